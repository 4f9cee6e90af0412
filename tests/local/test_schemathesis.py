"""The embedded IVCAP does what its OpenAPI document says, whatever it is asked."""

import re
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parent / "fuzz.py"


def test_no_request_breaks_what_the_document_says():
    """Some hundred requests, right and wrong ones, to all operations find no reply that the document lacks."""
    done = subprocess.run(
        [sys.executable, str(FUZZ), "--examples", "5", "--phases", "fuzzing", "--seed", "1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    cases = re.search(r"^(\d+) cases, 0 faults$", done.stdout, re.MULTILINE)
    assert cases, done.stdout[-2000:]
    assert int(cases[1]) > 200
