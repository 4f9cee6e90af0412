"""The flow's own parts."""

from pathlib import Path

import pytest

from flows.monthly_table import BUNDLED, data_file, months_of, read_events
from flows.services.tables import EVENTS_HEADER
from ivcap_flows.errors import InputError
from ivcap_flows.provena.terms import missing_terms
from ivcap_flows.registration.workflows import Workflows

ROOT = Path(__file__).parents[2]
ROW = "warm,extraordinary,1982-07,1983-11,17,4.0154,1983-06"


def test_the_events_table_becomes_an_aspect_with_its_schema(tmp_path):
    """The aspect declares its schema under the name that IVCAP reads, and has the rows by their columns."""
    path = tmp_path / "events.csv"
    path.write_text("\n".join((",".join(EVENTS_HEADER), ROW, "")))
    aspect = read_events.fn.__wrapped__(path)
    assert aspect == {
        "$schema": "urn:ivcap-flows-examples:schema:coastal-el-nino-events.1",
        "events": [dict(zip(EVENTS_HEADER, ROW.split(","), strict=True))],
    }


def test_the_workflow_of_the_example_states_all_that_a_model_run_needs():
    """Its file has a workflow for the service, with an owner, a licence and the approvals of the datasets."""
    [workflow] = Workflows.read(ROOT / "flows/coastal_el_nino.yaml").all
    assert workflow.service == "coastal-el-nino-index"
    assert missing_terms(workflow.terms) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((None, None, (2001, 2000)), "The base period 2001-2000 should lie in the series"),
        ((None, None, (1981, 2011)), "should lie in the series, which goes from 1950-01 to 2010-12"),
        (("2030-01", None, (1981, 2010)), "no month from 2030-01 to 2010-12"),
    ],
    ids=["reversed", "too late", "no month"],
)
def test_months_that_cannot_be_published_are_refused(given, words):
    """The error says what is wrong, before anything is ordered."""
    with pytest.raises(InputError, match=words):
        months_of(data_file(BUNDLED), *given)


def test_a_table_that_is_not_there_is_named(tmp_path):
    """A wrong path is an input error that names it."""
    with pytest.raises(InputError, match=r"nowhere\.csv cannot be read"):
        months_of(tmp_path / "nowhere.csv", None, None, (1981, 2010))


def test_paths_and_names_of_bundled_files(tmp_path, monkeypatch):
    """A name is that of a file here, before one of the examples; a path is itself."""
    monkeypatch.chdir(tmp_path)
    bundled = ROOT / "flows/data" / BUNDLED
    assert data_file(BUNDLED) == bundled == data_file(bundled)
    (tmp_path / BUNDLED).touch()
    assert data_file(BUNDLED) == Path(BUNDLED)
