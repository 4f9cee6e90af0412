"""Rows become model runs once each, whatever is lost, refused, killed or started twice."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from registration_rows import Items, read_outcomes, write_lines

from ivcap_flows import loop
from ivcap_flows.journal import Journal
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.registration.batch import Batch
from ivcap_flows.registration.outcome import BatchReport
from ivcap_flows.registration.sources import open_source

REGISTER = "/provena/prov/model_run/register_batch"


@pytest.fixture
def register(provena: ProvenaClient, tmp_path: Path) -> Callable[..., BatchReport]:
    """Checks and registers a file of rows, with the outcome in `out.csv`."""

    def run(file: Path, journal: Journal, patience: float = 20.0, **options: Any) -> BatchReport:
        async def both() -> BatchReport:
            with Batch(open_source(file), provena, patience=patience) as batch:
                await batch.check()
                return await batch.register(journal, out=tmp_path / "out.csv", **options)

        return loop.run(both())

    return run


@pytest.fixture
def journal(tmp_path: Path, sqlite_url: str) -> Any:
    with Journal.open(sqlite_url) as opened:
        yield opened


def rows_of(items: Items, count: int, **changes: Any) -> tuple[str, list[dict[str, Any]]]:
    """Rows of this test alone, and how their names begin."""
    name = uuid.uuid4().hex
    return name, [
        items.record(n, **{"display_name": f"{name} {n}", **changes}) for n in range(count)
    ]


def test_each_row_is_one_model_run(run_items, register, journal, lodged, tmp_path, ivcap_twin):
    """Every row gets a handle; a second start asks for nothing more, and says the same."""
    name, rows = rows_of(run_items, 60)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    first = register(file, journal)
    assert (first.rows, first.registered, first.is_whole) == (60, 60, True)
    outcomes = read_outcomes(tmp_path / "out.csv")
    assert [int(each["row"]) for each in outcomes] == list(range(1, 61))
    runs = lodged(name)
    assert len(runs) == 60 == len({each["model_run"] for each in outcomes})
    again = register(file, journal)
    assert again == first and read_outcomes(tmp_path / "out.csv") == outcomes
    assert len(ivcap_twin.requests("POST", REGISTER)) == 1
    assert len(lodged(name)) == 60
