"""Lineage across runs: every run that states something of a thing, and of what that leads to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from ivcap_flows.provenance.graph import Direction, Graph
from ivcap_flows.provenance.records import Record

if TYPE_CHECKING:
    from ivcap_flows.journal import Fact, Journal

__all__ = ["run_graph", "trace"]

_MAX_RUNS: Final = 200
_LINKING: Final = frozenset({"artifact", "file", "directory", "dataset", "aspect", "order", "job", "model-run"})


def run_graph(journal: Journal, run_id: str) -> Graph:
    """All that is known of one run."""
    return Graph(fact.record for fact in _pages(partial(journal.facts.of_run, run_id)))


def trace(journal: Journal, id: str, direction: Direction = "up") -> Graph:  # noqa: A002
    """Where a thing comes from, or what came of it, over all runs of the journal (the first 200 that it meets).

    KeyError if no run states anything of it.
    """
    records: list[Record] = []
    runs: set[str] = set()
    asked: set[str] = set()
    open_ids = {id}
    while open_ids:
        asked |= open_ids
        found = {fact.run_id for name in open_ids for fact in _pages(partial(journal.facts.about, name))}
        for run_id in sorted(found - runs)[: _MAX_RUNS - len(runs)]:
            runs.add(run_id)
            records += (fact.record for fact in _pages(partial(journal.facts.of_run, run_id)))
        graph = Graph(records)
        if id not in graph.nodes:
            raise KeyError(f"the journal knows no {id!r}")
        reached = graph.lineage(id, direction)
        open_ids = {node.id for node in reached.nodes.values() if node.type in _LINKING} - asked
    return reached


def _pages(page: Callable[..., list[Fact]]) -> list[Fact]:
    found: list[Fact] = []
    while new := page(after=found[-1].seq if found else 0):
        found += new
    return found
