"""The service `coastal-el-nino-index`, called as the platform calls it."""

import csv
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.services.coastal_el_nino_index import RESULT_SCHEMA, run
from flows.services.icen import BasePeriodError, events
from flows.services.job import RequestError
from flows.services.months import Month, SeriesError
from flows.services.tables import EVENTS_HEADER

FLOWS = Path(__file__).parents[2] / "flows"
SERIES = "urn:ivcap:artifact:7d3c2c4e-6a0b-4b67-9e39-5b0c2f1f7a11"


class RecordingJob:
    """A job that keeps what the service hands over."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.products: dict[str, tuple[bytes, str]] = {}
        self.lines: list[str] = []

    def read_artifact(self, urn: str) -> bytes:
        assert urn == SERIES
        return self.data

    def add_product(self, name: str, data: bytes, media_type: str) -> None:
        self.products[name] = (data, media_type)

    def log(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def ersst() -> bytes:
    return (FLOWS / "data/ersst_nino12_monthly.csv").read_bytes()


@pytest.fixture(scope="module")
def done(ersst):
    job = RecordingJob(ersst)
    return run({"series": SERIES}, job), job


def rows(job: RecordingJob, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(job.products[name][0].decode())))


def test_the_products_are_two_tables_and_a_picture(done):
    """The default request stores `index.csv`, `events.csv` and `plot.png` with their media types."""
    _, job = done

    assert {name: media_type for name, (_, media_type) in job.products.items()} == {
        "index.csv": "text/csv",
        "events.csv": "text/csv",
        "plot.png": "image/png",
    }
    assert job.products["plot.png"][0].startswith(b"\x89PNG\r\n")
    assert any("732 months, 1950-01 to 2010-12" in line for line in job.lines)


def test_the_result_tells_the_events_in_json(done):
    """The result names its schema, the defaults it used, every event and the products."""
    result, job = done
    result = json.loads(json.dumps(result))

    assert result["$schema"] == RESULT_SCHEMA
    assert (result["base_start"], result["base_end"], result["series"]) == (1981, 2010, SERIES)
    assert result["products"] == list(job.products)
    assert [event["start"] for event in result["events"] if event["category"] == "extraordinary"] == [
        "1982-07",
        "1997-03",
    ]


def test_the_events_table_and_the_result_agree(done):
    """`events.csv` holds the result's events, one row each."""
    result, job = done
    table = rows(job, "events.csv")

    assert tuple(table[0]) == EVENTS_HEADER
    assert [row | {"months": int(row["months"]), "peak": float(row["peak"])} for row in table] == result["events"]


def test_the_index_table_alone_gives_the_same_events(done):
    """Whoever applies the definition to `index.csv` finds the events of `events.csv`."""
    _, job = done
    table = rows(job, "index.csv")
    index = {
        Month(*(int(part) for part in row["month"].split("-"))): float(row["icen"]) for row in table if row["icen"]
    }

    assert len(table) == 732
    assert [str(event.start) for event in events(index)] == [row["start"] for row in rows(job, "events.csv")]


def test_an_order_brings_its_years_as_text(ersst):
    """Orders carry every parameter as text; the years are read from it, and another base period gives other events."""
    text, number = RecordingJob(ersst), RecordingJob(ersst)
    run({"series": SERIES, "base_start": "1951", "base_end": "1980"}, text)
    run({"series": SERIES, "base_start": 1951, "base_end": 1980}, number)

    assert text.products == number.products
    assert len(rows(text, "events.csv")) != 41


def test_another_series_of_the_form_works():
    """A short series with missing months and no event at all gives tables and a picture."""
    header = "YEAR,JAN,FEB,MAR,APR,MAY,JUN,JUL,AUG,SEP,OCT,NOV,DEC"
    years = [f"{year}," + ",".join(["15.5"] * 11) + ",15.7" for year in range(2000, 2006)]
    job = RecordingJob("\n".join((header, *years, "2006,15.4,15.6,-99.99" + "," * 9)).encode())
    result = run({"series": SERIES, "base_start": 2000, "base_end": 2005}, job)

    assert result["events"] == []
    assert job.products["events.csv"][0].decode() == ",".join(EVENTS_HEADER) + "\n"
    assert len(rows(job, "index.csv")) == 74
    assert len(job.products["plot.png"][0]) > 10_000


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ({"series": SERIES, "base_start": 2010, "base_end": 1981}, BasePeriodError, "reversed"),
        ({"series": SERIES, "base_end": 2020}, BasePeriodError, "base_end is 2020"),
        ({"series": SERIES, "base_start": "eighty"}, BasePeriodError, "base_start is 'eighty'"),
        ({"series": SERIES, "base_start": 1981.5}, BasePeriodError, "base_start is 1981.5"),
        ({}, RequestError, "series is missing"),
    ],
)
def test_a_faulty_request_leaves_no_product(ersst, request_, error, words):
    """A base period that cannot be used is named, and nothing is stored."""
    job = RecordingJob(ersst)
    with pytest.raises(error, match=words):
        run(request_, job)

    assert job.products == {}


def test_a_faulty_series_leaves_no_product(ersst):
    """A fault in the middle of the series names line and column, and nothing is stored."""
    job = RecordingJob(ersst.replace(b"1982,", b"1982,warm", 1))
    with pytest.raises(SeriesError, match=r"line 34, column 2 \(JAN\): 'warm.*' is no number"):
        run({"series": SERIES}, job)

    assert job.products == {}


def test_equal_input_gives_equal_bytes(done, ersst):
    """The service is deterministic to the byte, the picture included."""
    again = RecordingJob(ersst)
    run({"series": SERIES}, again)

    assert again.products == done[1].products


def test_the_numbers_need_no_matplotlib():
    """Importing the service, and so a worker that never plots, does not load matplotlib."""
    code = "import sys, flows.services.coastal_el_nino_index; sys.exit('matplotlib' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_definition_names_what_the_service_takes():
    """The YAML definition names this entry point, and the defaults are those of `run`, as IVCAP text."""
    definition = yaml.safe_load((FLOWS / "services/coastal_el_nino_index.yaml").read_text())
    module, _, function = definition["entry"].partition(":")

    assert getattr(importlib.import_module(module), function) is run
    assert definition["name"] == "coastal-el-nino-index"
    assert {one["name"]: one.get("default") for one in definition["parameters"]} == {
        "series": None,
        "base_start": "1981",
        "base_end": "2010",
    }
