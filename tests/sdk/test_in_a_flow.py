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


@pytest.mark.long
def test_jobs_of_sdk_services_are_shown(sdk_bench, in_flow, tmp_path):
    """The flow has the products' bytes; `show` has the result, the product and the events of each job."""
    source = tmp_path / "in.txt"
    source.write_text("some words for both")
    in_flow(HERE / "words_flow.py", source, sdk_bench.service("batch"), sdk_bench.service("lambda"))
    assert [(tmp_path / f"{number}.txt").read_text() for number in range(2)] == ["SOME WORDS FOR BOTH"] * 2

    shown = json.loads(in_flow("-m", "ivcap_flows.cli", "show", "latest", "--json"))
    assert len(shown["jobs"]) == 2
    for job in shown["jobs"]:
        assert job["result"]["words"] == 4
        assert [product["name"] for product in job["products"]] == ["capitals.txt"]
        assert job["result"]["capitals"] == job["products"][0]["urn"]
        assert len(job["events"]) == 3
    told = in_flow("-m", "ivcap_flows.cli", "show", "latest")
    assert told.count("capitals.txt") >= 2
    assert "count" in told
