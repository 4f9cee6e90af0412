"""Services written with the official SDKs, asked by Prefect tasks: what they came to is on record."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="the service SDKs need Python 3.11")

HERE = Path(__file__).parent


@pytest.fixture
def in_flow(sdk_bench, prefect_server, tmp_path):
    """Runs a command against the bench, a Prefect server and a journal of its own; returns what it printed."""
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("IVCAP", "PROVENA"))},
        **prefect_server,
        "IVCAP_LOCAL_DIR": str(sdk_bench.root),
        "IVCAP_FLOWS_JOURNAL": f"sqlite:///{tmp_path / 'journal.sqlite'}",
    }

    def call(*arguments):
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return call


def test_a_job_of_an_sdk_service_is_shown(sdk_bench, sdk_kind, in_flow, tmp_path):
    """The flow has the product's bytes; `show` has the result, the product and the events of the job."""
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text(f"some words of {sdk_kind}")
    in_flow(HERE / "words_flow.py", sdk_bench.services[sdk_kind], source, target)
    assert target.read_text() == f"SOME WORDS OF {sdk_kind.upper()}"

    shown = json.loads(in_flow("-m", "ivcap_flows.cli", "show", "latest", "--json"))
    [job] = shown["jobs"]
    assert job["result"]["words"] == 4
    assert [product["name"] for product in job["products"]] == ["capitals.txt"]
    assert job["result"]["capitals"] == job["products"][0]["urn"]
    assert len(job["events"]) == 3
    told = in_flow("-m", "ivcap_flows.cli", "show", "latest")
    assert "capitals.txt" in told
    assert "count" in told
