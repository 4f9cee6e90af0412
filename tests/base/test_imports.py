"""What the file of a flow imports: a module more is a wait at each start of a process. `benchmarks.imports` takes the
time; a number of modules does not depend on the machine."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

MOST = 180
"""Modules beyond those that Prefect imports for the same flow, at the most."""

LATER = ("sqlalchemy", "ivcap_flows.sinks", "ivcap_flows.reading", "ivcap_flows.cli")
"""Imported when a call first needs it."""


def modules(code: str) -> set[str]:
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(told.stdout))


@pytest.fixture(scope="module")
def prefect() -> set[str]:
    return modules("from prefect import flow, task")


@pytest.mark.long
def test_a_flow_with_tasks_for_orders_and_model_runs_imports_few_modules(prefect: set[str]) -> None:
    names = "download_artifact, place_order, register_model_run, upload_artifact, wait_for_orders"
    more = modules(f"from ivcap_flows import flow, task\nfrom ivcap_flows.tasks import {names}") - prefect
    assert len(more) <= MOST, sorted(more)
    assert [each for each in more if each.startswith(LATER)] == []


@pytest.mark.long
def test_a_flow_of_orders_does_not_import_the_client_of_provena(prefect: set[str]) -> None:
    more = modules("from ivcap_flows.tasks import place_order, wait_for_orders")
    assert [each for each in more if each.startswith(("ivcap_flows.provena.", "ivcap_flows.registration"))] == []


def test_the_package_itself_imports_neither_prefect_nor_tasks() -> None:
    more = modules("import ivcap_flows, ivcap_flows.tasks")
    more -= {"ivcap_flows.tasks.ivcap", "ivcap_flows.tasks.provena"}
    assert [each for each in more if each.startswith(("prefect", "ivcap_flows.tasks."))] == []


def test_a_name_that_does_not_exist_is_told_as_such() -> None:
    with pytest.raises(ImportError, match="place_orders"):
        exec("from ivcap_flows.tasks import place_orders")


def test_what_benchmarks_run_in_other_processes_imports_what_there_is() -> None:
    """Their code stands in texts, which no check of types reads."""
    lines = [
        line
        for path in Path(__file__).parents[2].glob("benchmarks/*.py")
        for line in re.findall(r"^(?:from|import) ivcap_flows.*", path.read_text(), re.MULTILINE)
    ]
    assert len(lines) > 30
    for line in lines:
        exec(line)
