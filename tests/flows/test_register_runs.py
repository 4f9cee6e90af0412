"""Many runs of the coastal El Niño index, from the grid to the lineage on the embedded Provena."""

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from prefect.settings import temporary_settings

from flows.register_runs import Case, grid, register_runs
from flows.services.icen import BasePeriod
from ivcap_flows.errors import InputError
from ivcap_flows.local import ensure
from ivcap_flows.local.register import read_definition, register
from ivcap_flows.local.remote import PlatformControl

FLOWS = Path(__file__).parents[2] / "flows"
YEARS = BasePeriod(1950, 2010)


def test_the_grid_has_200_cases_and_more():
    """Every case is another one, and has its base period in its window and its window in the data."""
    cases = grid(YEARS)
    assert len(set(cases)) == len(cases) >= 200
    for case in cases:
        assert YEARS.start <= case.window.start <= case.base.start <= case.base.end <= case.window.end <= YEARS.end


def test_the_grid_has_the_last_period_that_fits():
    """A window that ends with the data is in, and so is a base period that ends with its window."""
    cases = grid(BasePeriod(2000, 2009), (8,), (6,), 2)
    assert cases == [
        Case(BasePeriod(start, start + 7), BasePeriod(start + more, start + more + 5))
        for start in (2000, 2002)
        for more in (0, 2)
    ]


def test_a_grid_without_cases_is_refused():
    """Windows that are longer than the data are an error, not a flow that does nothing."""
    with pytest.raises(InputError, match="No window"):
        grid(BasePeriod(2000, 2009), (20,), (5,), 1)


@pytest.fixture
def on_prefect_server(prefect_settings):
    with temporary_settings(prefect_settings):
        yield


@pytest.mark.long
@pytest.mark.xdist_group("e2e")  # which shares the Prefect server
def test_runs_are_registered_and_explored(on_prefect_server, embedded_platform, ivcap_journal, own_series, tmp_path):
    """A small grid becomes as many model runs in one batch; a second start makes nothing anew."""
    service = FLOWS / "services/coastal_el_nino_index.yaml"
    register(os.environ["IVCAP_URL"], os.environ["IVCAP_JWT"], read_definition(service), service)

    def start():
        return register_runs(str(own_series), window_years=(55,), base_years=(50,), step=5, output=tmp_path / "results")

    made = start()

    # Windows begin in 1950 and 1955, and base periods with each window and five years later.
    assert len(made.runs.runs) == made.runs.rows == 4
    *downstream, upstream = made.explored
    assert [(each.direction, each.items["MODEL_RUN"], each.items["DATASET"]) for each in downstream] == [
        ("downstream", 2, 4),
        ("downstream", 2, 4),
    ]
    assert upstream.direction == "upstream" and upstream.items["DATASET"] == 1 and upstream.items["PERSON"] == 1
    with (tmp_path / "results/model-runs.csv").open(encoding="utf-8", newline="") as file:
        assert [row["model_run"] for row in csv.DictReader(file)] == [run.urn for run in made.runs.runs]
    assert len(embedded_platform.requests("POST", "/provena/prov/model_run/register_batch")) == 1

    embedded_platform.forget_requests()
    again = start()
    assert again.runs.runs == made.runs.runs
    assert again.explored == made.explored
    sent = [each["path"] for each in embedded_platform.requests("POST")]
    assert not [path for path in sent if path.endswith(("/orders", "register_batch", "/create", "mint-dataset"))]


@pytest.mark.long
@pytest.mark.xdist_group("e2e")  # which shares the Prefect server
def test_two_first_starts(prefect_server, tmp_path):
    """Two processes that find Provena without any template register each once, and end with the same runs."""
    embedded = ensure(tmp_path / "platforms", idle=600)
    try:
        service = FLOWS / "services/coastal_el_nino_index.yaml"
        register(
            embedded.environment["IVCAP_URL"], embedded.environment["IVCAP_JWT"], read_definition(service), service
        )
        environment = {
            **prefect_server,
            **embedded.environment,
            "IVCAP_FLOWS_JOURNAL": f"sqlite:///{tmp_path / 'journal.sqlite'}",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
        }
        words = [sys.executable, "-m", "ivcap_flows.cli", "run", "flows/register_runs.py:register_runs"]
        words += ["-p", "window_years=[61]", "-p", "base_years=[61]"]
        started = [
            subprocess.Popen(
                [*words, "-p", f"output={tmp_path / f'results-{number}'}"],
                cwd=FLOWS.parent,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(2)
        ]
        said = [each.communicate(timeout=240)[0] for each in started]
        assert [each.returncode for each in started] == [0, 0], "\n".join(said)[-8000:]
        outcomes = [(tmp_path / f"results-{number}/model-runs.csv").read_text() for number in range(2)]
        assert outcomes[0] == outcomes[1]
        made = Counter(
            each["path"] for each in PlatformControl(embedded).requests("POST") if each["path"].endswith("/create")
        )
        # An organisation, a model and a workflow template; three dataset templates.
        assert sorted(made.values()) == [1, 1, 1, 3], made
    finally:
        embedded.end()
