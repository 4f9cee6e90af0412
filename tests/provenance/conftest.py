"""Graphs to draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest

from ivcap_flows.provenance import Graph, Record, activity, agent, entity, relation

NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)


def survey(orders: int) -> Graph:
    """A run that orders the given number of seasons and joins them into `out.csv`. Every tenth order fails."""
    records = [
        activity("run", "flow-run", NOON, name="survey", outcome="completed"),
        activity("attempt", "attempt", NOON, NOON + timedelta(hours=1), name="survey", number=1, outcome="completed"),
        relation("wasStartedBy", "attempt", "run"),
        agent("me", "user", name="me"),
        relation("wasAssociatedWith", "attempt", "me"),
        entity("service", "service", name="season"),
        entity("in", "file", path="/data/in.csv", size=5508),
        activity("join", "task-run", NOON, NOON + timedelta(seconds=2), name="Join tables", outcome="completed"),
        relation("wasStartedBy", "join", "attempt"),
        entity("out", "file", path="/data/out.csv"),
        relation("wasGeneratedBy", "out", "join"),
    ]
    for number in range(orders):
        place, order, product, load, file = (
            f"{name}:{number}" for name in ("place", "order", "product", "load", "file")
        )
        failed = number % 10 == 9
        records += [
            activity(place, "task-run", NOON, NOON, name="Place order", outcome="completed"),
            relation("wasStartedBy", place, "attempt"),
            relation("used", place, "in"),
            activity(
                order,
                "order",
                NOON,
                NOON + timedelta(seconds=number),
                name=f"Season {number} [0123456789abcdef]",
                service_name="season",
                outcome="failed" if failed else "completed",
                cause="The season has no data." if failed else None,
            ),
            relation("wasStartedBy", order, place),
            relation("used", order, "in"),
            relation("hadPlan", order, "service"),
        ]
        if not failed:
            records += [
                entity(product, "artifact", name="season.csv", size=100 * number),
                relation("wasGeneratedBy", product, order),
                activity(load, "task-run", NOON, NOON, name="Download artifact", outcome="completed"),
                relation("wasStartedBy", load, "attempt"),
                relation("used", load, product),
                entity(file, "file", path=f"/data/{number}.csv"),
                relation("wasGeneratedBy", file, load),
                relation("used", "join", file),
            ]
    return Graph(records)


@pytest.fixture
def make_survey() -> Callable[[int], Graph]:
    """Return `make_survey(n)`: a run with n orders."""
    return survey


def neighbours(others: int) -> Graph:
    """A run with n others that used what it made and share its input, code and user.

    Its tasks pass tables and arrays, and one had three tries.
    """
    records = [
        entity("in", "file", path="/data/stations.csv", size=5508),
        entity("code", "code", name="stations", commit="0123456789abcdef"),
        agent("me", "user", name="me"),
    ]
    for number in range(others):
        records += [*_stations(f"other{number}", NOON - timedelta(days=others - number), f"amber-fox-{number}")]
    columns = [{"name": name, "type": "float64"} for name in ("year", "temperature", "rain")]
    variables = [
        {"name": "anomaly", "dimensions": ["time", "place"], "shape": [20, 5], "type": "float64"},
        {"name": "time", "dimensions": ["time"], "shape": [20], "type": "int64"},
    ]
    records += [
        *_stations("own", NOON, "tidy-owl"),
        entity("table", "frame", library="pandas", rows=100, columns=columns),
        relation("wasGeneratedBy", "table", "own:load", role="result"),
        activity("own:clean", "task-run", NOON, name="clean", run_name="clean perth", outcome="completed"),
        relation("wasStartedBy", "own:clean", "own:attempt"),
        relation("used", "own:clean", "table", role="weather"),
        entity("grid", "array", library="xarray", variables=variables),
        relation("wasGeneratedBy", "grid", "own:clean", role="result"),
        entity("fitted", "array", library="numpy", shape=[2, 3], data_type="float64"),
    ]
    for number in (1, 2, 3):
        fit = "own:fit" if number == 1 else f"own:fit.{number}"
        tried = {"try": number} if number > 1 else {}
        outcome = "completed" if number == 3 else "retried"
        records += [
            activity(fit, "task-run", NOON, name="fit", run_name="fit-3f2", outcome=outcome, **tried),
            relation("wasStartedBy", fit, "own:attempt"),
            relation("used", fit, "grid", role="grid"),
        ]
    records += [
        relation("wasGeneratedBy", "fitted", "own:fit.3", role="result"),
        relation("wasInformedBy", "own:fit.2", "own:fit"),
        relation("wasInformedBy", "own:fit.3", "own:fit.2"),
    ]
    if others:
        records.append(relation("used", "own:load", "other0:report", role="earlier"))
    return Graph(records)


def _stations(run: str, begun: datetime, name: str) -> Iterator[Record]:
    """A run that loads the stations and reports on them."""
    load, write = f"{run}:load", f"{run}:write"
    yield activity(run, "flow-run", begun, begun + timedelta(seconds=9), name="stations", outcome="completed")
    yield activity(
        f"{run}:attempt", "attempt", begun, name="stations", flow_run_name=name, number=1, outcome="completed"
    )
    yield relation("wasStartedBy", f"{run}:attempt", run)
    yield relation("hadPlan", f"{run}:attempt", "code")
    yield relation("wasAssociatedWith", f"{run}:attempt", "me")
    yield activity(load, "task-run", begun, name="load", run_name="load-1a2", outcome="completed")
    yield activity(write, "task-run", begun, name="write", run_name="write-1a2", outcome="completed")
    yield entity(f"{run}:places", "file", path=f"/data/{run}/places.csv")
    yield entity(f"{run}:report", "file", path=f"/data/{run}/report.md", size=1200, sha256="ab" * 32)
    yield relation("wasStartedBy", load, f"{run}:attempt")
    yield relation("wasStartedBy", write, f"{run}:attempt")
    yield relation("wasInformedBy", write, load)
    yield relation("used", load, "in")
    yield relation("used", load, f"{run}:places")
    yield relation("wasGeneratedBy", f"{run}:report", write)


@pytest.fixture
def make_neighbours() -> Callable[[int], Graph]:
    """Return `make_neighbours(n)`: the run "own" beside n others."""
    return neighbours
