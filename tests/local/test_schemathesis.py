"""Each embedded platform does what its OpenAPI documents say, whatever the request."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz.py"


@pytest.mark.long
@pytest.mark.parametrize(("platform", "examples", "least"), [("ivcap", 5, 200), ("provena", 1, 400)])
def test_no_request_breaks_what_the_document_says(platform, examples, least, tmp_path):
    """Some hundred valid and invalid requests to all operations get only replies that the document describes."""
    options = ["--platform", platform, "--examples", str(examples), "--phases", "fuzzing", "--seed", "1"]
    done = subprocess.run([sys.executable, str(FUZZ), *options], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    cases = re.search(r"^(\d+) cases, 0 faults$", done.stdout, re.MULTILINE)
    assert cases, done.stdout[-2000:]
    assert int(cases[1]) > least
