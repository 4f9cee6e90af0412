"""The flow's own parts."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.coastal_el_nino import CoastalElNinoEvents, read_events, read_terms
from flows.services.tables import EVENTS_HEADER
from ivcap_flows.errors import InputError
from ivcap_flows.handles import LocalFile

ROOT = Path(__file__).parents[2]
ROW = "warm,extraordinary,1982-07,1983-11,17,4.0154,1983-06"


@pytest.fixture
def events_table(tmp_path):
    def write(*rows: str) -> LocalFile:
        path = tmp_path / "events.csv"
        path.write_text("\n".join((",".join(EVENTS_HEADER), *rows, "")))
        return LocalFile(path=str(path), sha256="0" * 64, size=path.stat().st_size)

    return write


def test_the_events_table_becomes_an_aspect_with_its_schema(events_table):
    """The rows are typed, and the aspect declares its schema under the name that IVCAP reads."""
    aspect = read_events.fn.__wrapped__(events_table(ROW), 1981, 2010).model_dump(mode="json", by_alias=True)

    assert aspect == {
        "$schema": "urn:ivcap-flows-examples:schema:coastal-el-nino-events.1",
        "base_start": 1981,
        "base_end": 2010,
        "events": [
            {
                "kind": "warm",
                "category": "extraordinary",
                "start": "1982-07",
                "end": "1983-11",
                "months": 17,
                "peak": 4.0154,
                "peak_month": "1983-06",
            }
        ],
    }
    assert CoastalElNinoEvents.model_validate(aspect).events[0].months == 17


def test_a_table_of_another_form_is_refused(events_table):
    """A row with an unknown category is an error, not an aspect."""
    with pytest.raises(ValidationError, match="category"):
        read_events.fn.__wrapped__(events_table(ROW.replace("extraordinary", "huge")), 1981, 2010)


def test_the_terms_of_the_example_state_all_that_a_dataset_needs():
    """The example's terms file names an owner, a licence and the approvals."""
    terms = read_terms(ROOT / "flows/data/terms.yaml")

    assert terms.owner is not None
    assert terms.datasets.license
    assert terms.datasets.approvals is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("datasets: {licence: https://example.org/}", "licence"),
        ("owners: {}\ndatasets: {}", "owners"),
        ("datasets: [", "cannot be used"),
        ("", "cannot be used"),
    ],
)
def test_terms_that_state_something_unknown_are_refused(tmp_path, text, words):
    """A misspelt or unreadable statement is named together with its file, not passed over."""
    path = tmp_path / "terms.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_terms(path)

    assert str(path) in str(caught.value)


def test_terms_that_do_not_exist_are_named(tmp_path):
    """A wrong path is an input error that names it."""
    with pytest.raises(InputError, match="nowhere.yaml"):
        read_terms(tmp_path / "nowhere.yaml")
