"""The runs that no process carries forward, and the orders and jobs that no run waits for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from ivcap_flows.cli.output import moment
from ivcap_flows.cli.records import read_journal
from ivcap_flows.durable.parking import in_words
from ivcap_flows.durable.wording import counted
from ivcap_flows.identity import short_id, short_run
from ivcap_flows.in_prefect.flow_run_states import ended_flow_runs
from ivcap_flows.work.orphans import orphans_of

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal, Outcome, RunRow
    from ivcap_flows.journal.rows import AttemptRow, Park

__all__ = ["check_runs"]

_RUNS: Final = 500
"""Unfinished runs of each kind that are read at most, newest first."""
_OVERSLEPT: Final = timedelta(minutes=10)
_UNENDED: Final[tuple[Outcome, ...]] = ("running", "lost")
_SHOWN: Final = 10
"""Runs or orphans of one kind that are listed at most."""


def check_runs() -> list[str]:
    """List lost, parked and paused runs, and orphans, each with what happens next."""
    with read_journal() as journal:
        open_runs = [run for outcome in _UNENDED for run in journal.runs.recent(_RUNS, outcome=outcome)]
        lost = [run for run, _ in map(journal.runs.standing, open_runs) if run.outcome == "lost"]
        paused = journal.runs.recent(_RUNS, outcome="paused")
        parks, orphans = journal.parks.open(), orphans_of(journal, ended_flow_runs)
        counts = [
            counted(len(found), nouns)
            for found, nouns in (
                *((lost, "lost runs"), (parks, "parked runs")),
                *((paused, "paused runs"), (orphans, "orphans")),
            )
            if found
        ]
        return [
            ", ".join(counts) or "none is lost, parked or paused, and none has left an order or job behind",
            *_first(f"lost: {_name(run)}, begun {moment(run.created_at)}; {_next(run)}" for run in lost),
            *_first(_parked(journal, *each) for each in parks),
            *_first(
                f"paused: {_name(run)}, since {moment(run.updated_at)}; resume its flow run in Prefect, or give it up: "
                f"ivcap-flows runs abandon {short_run(run.id)}"
                for run in paused
            ),
            *_first(
                f"orphan: {orphan.noun} {orphan.name or orphan.service} ({short_id(orphan.key or '')}) of "
                f"{orphan.flow or 'no run on record'}, {orphan.left}: {orphan.then}"
                for orphan in orphans
            ),
        ]


def _first(findings: Iterable[str]) -> list[str]:
    listed = list(findings)
    more = len(listed) - _SHOWN
    return listed if more <= 0 else [*listed[:_SHOWN], f"{more} more {listed[0].partition(':')[0]}"]


def _name(run: RunRow) -> str:
    return f"the run {short_run(run.id)} of {run.flow_name}"


def _next(run: RunRow) -> str:
    return f"{run.way_on} to continue it, or give it up: ivcap-flows runs abandon {short_run(run.id)}"


def _parked(journal: Journal, attempt: AttemptRow, park: Park) -> str:
    name = _name(journal.runs.get(attempt.run_id))
    if journal.now() - park.wake_at > _OVERSLEPT:
        return (
            f"overslept: {name} is parked and should have woken at {moment(park.wake_at)}; check that a worker of its "
            "pool is running and that its deployment has a free slot"
        )
    return f"parked: {name} waits for {in_words(park.waits)} and wakes at {moment(park.wake_at)}"
