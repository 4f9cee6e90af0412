"""Many runs of the coastal El Niño index, from the grid to the lineage on the embedded Provena."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from on_platforms import register_examples

from flows.register_runs import register_runs
from ivcap_flows.local import PlatformControl, ensure

FLOWS = Path(__file__).parents[2] / "flows"

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("example_services"),
    pytest.mark.xdist_group("e2e"),  # which shares the Prefect server
]


def test_runs_are_registered_and_explored(prefect_api, embedded_platform, ivcap_journal, own_series, tmp_path):
    """A small grid becomes as many model runs; a second start makes nothing anew."""

    def start():
        return register_runs(str(own_series), window_years=(55,), base_years=(50,), output=tmp_path / "results")

    made, origins = start()

    # Windows begin in 1950 and 1955, and base periods with each window and five years later.
    assert len(made.runs) == made.rows == 4
    found = Counter(node.subtype for node in origins.nodes)
    assert (found["MODEL_RUN"], found["DATASET"], found["PERSON"]) == (1, 1, 1)
    with (tmp_path / "results/model-runs.csv").open(encoding="utf-8", newline="") as file:
        assert [row["model_run"] for row in csv.DictReader(file)] == [run.urn for run in made.runs]
    assert len(embedded_platform.requests("POST", "/provena/prov/model_run/register")) == 4

    embedded_platform.forget_requests()
    again, _ = start()
    assert again.runs == made.runs
    sent = [each["path"] for each in embedded_platform.requests("POST")]
    assert not [path for path in sent if path.endswith(("/orders", "register", "/create", "mint-dataset"))]


def test_two_first_starts(prefect_server, tmp_path):
    """Two processes that find Provena without any template register each once, and end with the same runs."""
    embedded = ensure(tmp_path / "platforms", idle=600)
    try:
        register_examples(embedded)
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
