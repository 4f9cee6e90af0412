"""The example flow as a plain script, as `make demo` runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from other_processes import settings_of_platforms

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(prefect_server, example_services, embedded_platform, own_series, tmp_path):
    """Runs the flow on a series of the test's own; the value is its exit status, its output, and its errors."""

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        given = [f"source={own_series}", f"output={tmp_path / 'results'}", *options]
        flow = "flows/coastal_el_nino.py:coastal_el_nino"
        command = [
            sys.executable,
            "-m",
            "ivcap_flows.cli",
            "run",
            flow,
            *(word for each in given for word in ("-p", each)),
        ]
        environment = {**prefect_server, **settings_of_platforms()}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.long
def test_a_second_run_with_another_base_period_sends_no_byte_of_the_input_again(script, embedded_platform, tmp_path):
    """Both runs make their events and say what is on record; the series is uploaded by the first one only."""
    first = script()
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    [events] = tmp_path.glob("results/*/events.csv")
    assert "warm,extraordinary,1982-07,1983-11" in events.read_text()
    assert "1 order" in first.stderr and "`ivcap-flows show " in first.stderr
    embedded_platform.forget_requests()
    same = script()
    assert same.returncode == 0 and "Unchanged: " in same.stdout
    assert embedded_platform.requests("POST", "/1/orders") == []
    again = script("base_start=1971", "base_end=2000")
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert "warm,strong," in events.read_text()
    assert [r for r in embedded_platform.requests("PATCH") if r["received"]] == []
    assert len(embedded_platform.requests("POST", "/1/orders")) == 1


@pytest.mark.long
def test_a_malformed_series_is_an_error_that_names_line_and_column(script, embedded_platform, own_series):
    """Nothing is ordered, and the error says where the series is wrong."""
    own_series.write_text(own_series.read_text().replace("24.520", "warm", 1))
    done = script()
    assert done.returncode == 1
    said = done.stderr[done.stderr.rindex("InputError: series.csv is no monthly table") :]
    assert "line 4, JAN: Input should be a valid decimal, not 'warm'" in said and "Traceback" not in said
    assert embedded_platform.requests("POST", "/1/orders") == []
