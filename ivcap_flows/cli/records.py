"""What commands read from the journal: a run by what the user calls it, and how it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ivcap_flows.errors import InputError
from ivcap_flows.journal import AttemptRow, Journal, RunRow
from ivcap_flows.settings import Settings

__all__ = ["find_run", "open_journal", "standing"]


def open_journal(*, new: bool = False) -> Journal:
    """The journal that the settings name; InputError where it is not there, unless it may be `new`."""
    url = Settings().journal
    place = url.partition("sqlite:///")[2]
    is_file = bool(place) and not place.startswith((":memory:", "file:"))
    if is_file and not new and not Path(place).expanduser().exists():
        raise InputError(f"There is no journal {url}: nothing was run yet, or IVCAP_FLOWS_JOURNAL names another.")
    return Journal.open(url)


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
