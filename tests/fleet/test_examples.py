"""The example flows on a fleet: their mapped tasks in threads, in Dask workers and on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet
from layouts import LAYOUTS, lay_out

from flows.register_runs import grid

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]

PIPELINE: dict[str, Any] = {"bases": ["1961-1990", "1981-2010"], "seasons": ["DJF", "JJA"], "resamples": 500}
GRID: dict[str, Any] = {"window_years": [60], "base_years": [40]}


def expected(example: str) -> tuple[dict[str, Any], int, int]:
    """The parameters of an example, the orders of its first run, and those of an equal run beside it."""
    if example == "coastal":
        # One for each content, whichever run comes to it first.
        return {"first_month": "1997-11", "last_month": "1998-02", "base_start": 1961, "base_end": 1990}, 4, 0
    if example == "pipeline":
        each_base = 1 + len(PIPELINE["seasons"]) + 1
        orders = len(PIPELINE["bases"]) * each_base + 1
        return PIPELINE, orders, orders
    return GRID, len(grid(1950, 2010, GRID["window_years"], GRID["base_years"])), 0


@pytest.mark.usefixtures("example_services")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("example", ["coastal", "pipeline", "register"])
def test_an_example(fleet: Fleet, layout: str, example: str, own_series: Path) -> None:
    """Two equal runs at once, on two machines: what they share is ordered once, and both are recorded to the end."""
    lay_out(fleet, layout)
    parameters, orders, more = expected(example)
    parameters = {"source": str(own_series), **parameters}
    runs = [fleet.run(example, on=on, **parameters, output=str(fleet.shared / on)) for on in ("flows", "spare")]
    assert [fleet.ended(run) for run in runs] == ["COMPLETED", "COMPLETED"], fleet.said()
    assert fleet.orders() == orders + more
    for run in runs:
        fleet.audit(run)
    if layout != "workers" and example != "pipeline":
        assert len(fleet.processes(runs)) >= 2
