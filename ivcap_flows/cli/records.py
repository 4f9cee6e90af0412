"""What commands read from the journal: a run by what the user calls it, how it stands, where a thing comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ivcap_flows.errors import InputError
from ivcap_flows.journal import AttemptRow, Fact, Journal, RunRow
from ivcap_flows.provenance import Direction, Graph, Record
from ivcap_flows.settings import Settings
from ivcap_flows.sinks import run_records

__all__ = ["Lineage", "find_run", "lineage", "open_journal", "standing"]

_OF_ONE_RUN: Final = frozenset({"flow-run", "attempt", "task-run", "call"})
_SHARED: Final = frozenset({"parameters", "code", "service", "workflow-template", "user", "software", "organisation"})
"""What many runs have in common without one having come from another."""


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


def standing(journal: Journal, run: RunRow) -> tuple[RunRow, Sequence[AttemptRow]]:
    """How a run and its attempts stand: one whose process is gone is lost, though nobody has written it down."""
    attempts = [
        replace(attempt, outcome="lost")
        if attempt.outcome == "running" and not journal.runs.alive(attempt)
        else attempt
        for attempt in journal.runs.attempts(run.id)
    ]
    leading = [attempt for attempt in attempts if attempt.leads]
    if run.outcome == "running" and leading:
        run = replace(run, outcome=leading[-1].outcome)
    return run, attempts


@dataclass(frozen=True)
class Lineage:
    """What a thing comes from, or what came from it (`graph`), and all that the runs on the way state (`around`)."""

    graph: Graph
    around: Graph


def lineage(journal: Journal, id: str, direction: Direction) -> Lineage:  # noqa: A002 - the graph's own word
    """The lineage of a thing through all runs on record. InputError if no run knows it."""
    records: list[Record] = []
    read: set[str] = set()
    asked: set[str] = set()
    asking = {id}
    while True:
        runs = {fact.run_id for node in asking for fact in _about(journal, node)} - read
        asked |= asking
        if runs or not read:
            records += [record for run_id in sorted(runs) for record in run_records(journal, run_id)]
            read |= runs
            around = Graph(records)
            if id not in around.nodes:
                raise InputError(f"No run in the journal {journal.url} knows {id}.")
            found = around.lineage(id, direction)
        asking = {n.id for n in found.nodes.values() if n.type not in _OF_ONE_RUN | _SHARED} - asked
        if not asking:
            return Lineage(found, around)


def _about(journal: Journal, id: str) -> Iterator[Fact]:  # noqa: A002
    after = 0
    while page := journal.facts.about(id, after=after):
        yield from page
        after = page[-1].seq
