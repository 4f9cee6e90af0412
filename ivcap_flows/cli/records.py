"""What commands read from the journal: the journal itself, a run by what the user calls it, graphs of facts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ivcap_flows.errors import InputError
from ivcap_flows.journal import AttemptRow, Journal, Outcome, RunRow
from ivcap_flows.provenance import Graph, Record
from ivcap_flows.settings import Settings
from ivcap_flows.sinks import run_records

__all__ = ["around", "existing_file", "find_run", "open_journal", "standing"]

WIDEST: Final = 200
"""Runs that one trace reads at most."""


def open_journal() -> Journal:
    """The journal that the settings name."""
    return Journal.open(Settings().journal)


def find_run(journal: Journal, name: str) -> RunRow:
    """A run by id, by the beginning of it, by a Prefect flow run's id, or `latest`."""
    if name != "latest":
        return journal.runs.get(name)
    newest = journal.runs.recent(1)
    if not newest:
        raise InputError(f"The journal {journal.url} has no run yet.")
    return newest[0]


def standing(journal: Journal, attempt: AttemptRow) -> Outcome:
    """How an attempt stands: one whose process is gone without a word is lost, though nobody has written it down."""
    return "lost" if attempt.outcome == "running" and not journal.runs.alive(attempt) else attempt.outcome


def around(journal: Journal, id: str) -> Graph:  # noqa: A002 - the graph's own word
    """What all runs state that a thing is connected with, through other runs too.

    InputError if no run knows the thing.
    """
    records: list[Record] = []
    asked: set[str] = set()
    read: set[str] = set()
    frontier = [id]
    while frontier and len(read) < WIDEST:
        node = frontier.pop()
        asked.add(node)
        for run_id in {fact.run_id for fact in journal.facts.about(node)} - read:
            read.add(run_id)
            mine = run_records(journal, run_id)
            records += mine
            frontier += [r.id for r in mine if r.kind == "entity" and r.id not in asked]
            asked.update(frontier)
    graph = Graph(records)
    if id not in graph.nodes:
        raise InputError(f"No run in the journal {journal.url} knows {id}.")
    return graph


def existing_file(name: str) -> Path | None:
    """The file of that name, if it is one."""
    path = Path(name)
    return path if not name.startswith("urn:") and path.is_file() else None
