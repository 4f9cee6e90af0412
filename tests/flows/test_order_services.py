"""The services of the order pipeline, called as the platform calls them."""

from pathlib import Path

import pytest
import yaml

from flows.services import (
    coastal_el_nino_index,
    coastal_el_nino_report,
    coastal_el_nino_returns,
    coastal_el_nino_season,
)
from flows.services.coastal_el_nino_season import BreakdownError
from flows.services.job import RequestError
from flows.services.seasons import SEASONS
from flows.services.tables import TableError

FLOWS = Path(__file__).parents[2] / "flows"


class Job:
    """A job that reads what is given by name and keeps what the service hands over."""

    def __init__(self, **artifacts: bytes) -> None:
        self.artifacts = artifacts
        self.products: dict[str, bytes] = {}
        self.lines: list[str] = []

    def read_artifact(self, urn: str) -> bytes:
        return self.artifacts[urn]

    def add_product(self, name: str, data: bytes, media_type: str) -> None:
        self.products[name] = data

    def log(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def index() -> bytes:
    job = Job(series=(FLOWS / "data/ersst_nino12_monthly.csv").read_bytes())
    coastal_el_nino_index.run({"series": "series"}, job)
    return job.products["index.csv"]


def after_base(base: str, table: bytes) -> bytes:
    header, *rows = table.decode().splitlines()
    return "".join(f"{line}\n" for line in (f"base,{header}", *(f"{base},{row}" for row in rows))).encode()


def test_a_season_has_a_row_for_each_year(index):
    """The summers of 1951 to 2010, the strongest of them that of 1997/98; what is left out is what the data lack."""
    job = Job(index=index)
    done = coastal_el_nino_season.run({"index": "index", "season": "DJF"}, job)
    header, *rows = job.products["season.csv"].decode().splitlines()
    assert header == "season,year,icen,condition"
    assert [row.split(",")[1] for row in rows] == [str(year) for year in range(1951, 2011)]
    assert "DJF,1998,3.4030,extraordinary warm" in rows
    assert sum(done["conditions"].values()) == len(rows)


def test_a_job_breaks_down_before_it_has_a_product(index):
    """With every job breaking down, this one does, and says that it may be ordered again."""
    job = Job(index=index)
    with pytest.raises(BreakdownError, match="Order it again"):
        coastal_el_nino_season.run({"index": "index", "season": "DJF", "breakdowns": "1.0"}, job)
    assert not job.products


def test_a_report_is_on_every_base_period_and_season(index):
    """The page has a column for each base period and rows for each season, and a picture comes with it."""
    seasons, returns = Job(index=index), Job(index=index)
    table = b""
    for season in SEASONS:
        coastal_el_nino_season.run({"index": "index", "season": season}, seasons)
        part = after_base("1981-2010", seasons.products["season.csv"])
        table += part if not table else b"".join(part.splitlines(keepends=True)[1:])
    coastal_el_nino_returns.run({"index": "index", "resamples": 100}, returns)
    job = Job(seasons=table, returns=after_base("1981-2010", returns.products["returns.csv"]))
    done = coastal_el_nino_report.run({"seasons": "seasons", "returns": "returns"}, job)
    page = job.products["report.md"].decode()
    assert done["bases"] == ["1981-2010"]
    assert "| SON warmest | +3.77 (1997) |" in page
    assert "| JJA | extraordinary warm | 30.5 (" in page and "∞" in page and "inf" not in page
    assert job.products["plot.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("service", "request_", "error", "words"),
    [
        (coastal_el_nino_season, {"season": "DJF"}, RequestError, "index is missing"),
        (coastal_el_nino_season, {"index": "index", "season": "winter"}, RequestError, "one of DJF, MAM, JJA, SON"),
        (coastal_el_nino_season, {"index": "index", "season": "DJF", "breakdowns": "2"}, RequestError, "from 0 to 1"),
        (coastal_el_nino_season, {"index": "empty", "season": "DJF"}, TableError, "header is ''"),
        (coastal_el_nino_season, {"index": "undated", "season": "DJF"}, TableError, "row 2 is no month"),
        (coastal_el_nino_returns, {"index": "index", "resamples": "few"}, RequestError, "resamples is 'few'"),
        (coastal_el_nino_returns, {"index": "index", "resamples": True}, RequestError, "resamples is True"),
        (coastal_el_nino_report, {"seasons": "index", "returns": "index"}, TableError, "it should be 'base,season,"),
        (coastal_el_nino_report, {"seasons": "odd", "returns": "none"}, TableError, "row 2 is no season"),
        (coastal_el_nino_report, {"seasons": "short", "returns": "none"}, TableError, "row 2 does not have 5 cells"),
    ],
)
def test_a_faulty_request_leaves_no_product(index, service, request_, error, words):
    """The message names the parameter or the row, and nothing is stored."""
    job = Job(
        index=index,
        empty=b"",
        undated=b"month,temperature,climatology,anomaly,icen\nJanuary,1,1,1,1\n",
        odd=b"base,season,year,icen,condition\n1981-2010,winter,1998,1.0,neutral\n",
        short=b"base,season,year,icen,condition\n1981-2010,DJF\n",
        none=b"base,season,condition,seasons,years,low,high\n",
    )
    with pytest.raises(error, match=words):
        service.run(request_, job)
    assert not job.products


@pytest.mark.parametrize("path", sorted((FLOWS / "services").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_definition_leads_to_a_service(path):
    """Its entry is a function, and each of its parameters is one that the function reads."""
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    module, _, function = definition["entry"].partition(":")
    assert module == f"flows.services.{path.stem}" and function == "run"
    source = (FLOWS / "services" / f"{path.stem}.py").read_text(encoding="utf-8")
    assert all(f'"{parameter["name"]}"' in source for parameter in definition["parameters"])
