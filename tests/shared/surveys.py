"""A graph to draw, as large as is asked for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from ivcap_flows.provenance import Graph, activity, agent, entity, relation

NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)


def make_survey(orders: int) -> Graph:
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
