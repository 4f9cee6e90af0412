"""What tests put on record in a journal, and read there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ivcap_flows.durable import plan
from ivcap_flows.journal import AttemptRow, Journal, NewIntent
from ivcap_flows.provenance import Graph
from ivcap_flows.sinks import run_graph


def wanted(key: str = "k1:a", **more: Any) -> NewIntent:
    """An order that is to be placed."""
    return NewIntent(key, key, "order", "https://x", "ada", "account", {"n": key}, subject="service", **more)


def key_of(work: Callable[[], Any]) -> str:
    """The idempotency key of what a function would make; anybody could work it out."""
    with plan():
        return str(work().urn.removeprefix("urn:ivcap-flows:planned:"))


def last_graph(journal: Journal) -> Graph:
    """What the newest run left."""
    return run_graph(journal, journal.runs.recent(1)[0].id)


def pairs(graph: Graph, type_: str) -> set[tuple[str | None, str | None]]:
    """The source and the target of each relation of a type."""
    return {(link.source, link.target) for link in graph.links(type_)}


def all_have_left(_: object, attempts: list[AttemptRow]) -> set[str]:
    """In the place of `Parks.left`: no process of an attempt is there any more."""
    return {attempt.id for attempt in attempts}
