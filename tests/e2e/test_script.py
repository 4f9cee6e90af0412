"""The example flow as a plain script, as `make demo` runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ivcap_flows.local.register import read_definition, register

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
SERIES = ROOT / "flows/data/ersst_nino12_monthly.csv"


@pytest.fixture
def script(prefect_server, embedded_platform, tmp_path):
    """Runs the flow with options; the value is its exit status, its output and what it said of errors."""
    service = ROOT / "flows/services/coastal_el_nino_index.yaml"
    register(os.environ["IVCAP_URL"], os.environ["IVCAP_JWT"], read_definition(service), service)
    ours = {name: value for name, value in os.environ.items() if name.startswith(("IVCAP", "PROVENA"))}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "flows/coastal_el_nino.py", "--output", str(tmp_path / "results"), *options]
        environment = {**prefect_server, **ours}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.long
def test_a_second_run_with_another_base_period_sends_no_byte_of_the_input_again(script, embedded_platform, tmp_path):
    """Both runs print events and identifiers; the series is uploaded by the first one only."""
    first = script()
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    assert "extraordinary warm   1982-07  1983-11" in first.stdout
    assert "extraordinary warm   1997-03  1998-09" in first.stdout
    for kind in ("urn:ivcap:artifact:", "urn:ivcap:order:", "model run", "plot.png"):
        assert kind in first.stdout
    embedded_platform.forget_requests()
    again = script("--base-start", "1971", "--base-end", "2000")
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert "strong warm" in again.stdout
    assert [r for r in embedded_platform.requests("PATCH") if r["received"]] == []
    assert len(embedded_platform.requests("POST", "/1/orders")) == 1


@pytest.mark.long
def test_a_malformed_series_is_an_error_that_names_line_and_column(script, tmp_path):
    """The service's own words reach the user, with the log of the failed order."""
    lines = SERIES.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].replace("24.520", "warm", 1)
    spoiled = tmp_path / "spoiled.csv"
    spoiled.write_text("\n".join(lines), encoding="utf-8")
    done = script("--source", str(spoiled))
    assert done.returncode == 1
    said = done.stderr[done.stderr.rindex("OrderFailedError: 1 of 1 orders") :]
    assert "line 4, column 2 (JAN): 'warm' is no number" in said and "Traceback" not in said
