"""From the journal to the sinks, each at its own pace: retried for ever with back-off, effective once by key."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from ivcap_flows import loop
from ivcap_flows.durable.beating import start_beating, stop_beating
from ivcap_flows.errors import ConfigurationError, IvcapFlowsError, JournalError
from ivcap_flows.identity import flows_urn
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record, activity
from ivcap_flows.sinks.base import REFUSALS, Delivery, Sink

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal, RunRow

__all__ = ["Drained", "drain", "run_graph", "run_records"]

log = logging.getLogger("ivcap_flows.sinks")

FIRST_WAIT: Final = 15.0
"""Seconds before the second try; each further wait doubles, up to an hour."""
LONGEST_WAIT: Final = 3600.0
_PAGE: Final = 50


@dataclass(frozen=True)
class Drained:
    """What one pass over one sink came to. `busy`: another process drains it."""

    sink: str
    delivered: int = 0
    pending: int = 0
    dead: int = 0
    busy: bool = False


def run_graph(journal: Journal, run_id: str) -> Graph:
    """All that is known of one run."""
    return Graph(run_records(journal, run_id))


def run_records(journal: Journal, run_id: str) -> list[Record]:
    """What a run has stated, oldest first, and then how its attempts ended, which a killed one could not state."""
    records: list[Record] = []
    after = 0
    while page := journal.facts.of_run(run_id, after=after):
        records += (fact.record for fact in page)
        after = page[-1].seq
    for row in journal.runs.attempts(run_id):
        if row.outcome != "running":
            urn = flows_urn("attempt", row.id)
            ended = max(row.ended_at, row.started_at) if row.ended_at else None
            records.append(activity(urn, "attempt", row.started_at, ended, outcome=row.outcome, cause=row.cause))
    return records


def drain(journal: Journal, sinks: Sequence[Sink], *, again: bool = False) -> list[Drained]:
    """Deliver every ended or parked run that has facts a sink has not got; one report a sink.

    A delivery is known by the run and its newest fact, so that a later attempt is delivered as well. A sink that
    cannot be reached costs one try a pass. `again` tries what waits for its time and what was refused, too. Two
    drainers at once share the sinks between them. JournalError if the journal cannot be used.
    """
    # Where another machine shares the journal, the lease of a sink is as good as the beat of its holder.
    start_beating(journal)
    try:
        return [_drain(journal, sink, again) for sink in sinks]
    finally:
        stop_beating(journal)


def _drain(journal: Journal, sink: Sink, again: bool) -> Drained:
    counts = {"delivered": 0, "pending": 0, "dead": 0}
    with journal.deliveries.lease(sink.name) as mine:
        if not mine:
            return Drained(sink.name, busy=True)
        reachable = True
        for run in _runs(journal):
            seq = journal.facts.last_seq(run.id)
            key = f"{run.id}@{seq}"
            row = journal.deliveries.get(sink.name, key)
            if row is not None and row.state == "delivered":
                continue
            waits = row is not None and row.next_try is not None and row.next_try > datetime.now(timezone.utc)
            if not reachable or (row is not None and not again and (waits or row.state == "dead")):
                counts["dead" if row is not None and row.state == "dead" else "pending"] += 1
                continue
            delivery, reachable = _try(journal, sink, run)
            tries = row.tries if row is not None else 0
            if delivery.facts:
                key = f"{run.id}@{_append(journal, run, delivery.facts, seq)}"
            journal.deliveries.record(
                sink.name,
                key,
                delivery.state,
                run_id=run.id,
                reason=delivery.reason,
                next_try=_next_try(tries) if delivery.state == "pending" else None,
            )
            counts[delivery.state] += 1
            if delivery.state == "delivered":
                _close_older(journal, sink, run, key)
    return Drained(sink.name, counts["delivered"], counts["pending"], counts["dead"])


def _append(journal: Journal, run: RunRow, records: Sequence[Record], seq: int) -> int:
    """Write what a sink states of a run; the newest fact that the sink knows, where it knew `seq` before."""
    from ivcap_flows.journal import Fact

    journal.facts.append([Fact(record, run.id) for record in records])
    new = journal.facts.of_run(run.id, after=seq)
    # What another stated meanwhile has yet to be delivered.
    return new[-1].seq if len(new) == len(records) else seq


def _close_older(journal: Journal, sink: Sink, run: RunRow, key: str) -> None:
    """What the sink did not get of a run before is part of what it has got now."""
    for row in journal.deliveries.where(sink.name, run_id=run.id, limit=None):
        if row.key != key and row.state != "delivered":
            journal.deliveries.record(sink.name, row.key, "delivered", run_id=run.id)


def _runs(journal: Journal) -> Iterator[RunRow]:
    """Runs that do not run now, newest first."""
    last: RunRow | None = None
    while page := journal.runs.recent(_PAGE, before=last):
        yield from (run for run in page if run.outcome != "running")
        last = page[-1]


def _try(journal: Journal, sink: Sink, run: RunRow) -> tuple[Delivery, bool]:
    """One delivery, and whether the sink could be reached."""
    try:
        return loop.run(sink.deliver(run, run_graph(journal, run.id))), True
    except JournalError:
        raise
    except REFUSALS as error:
        return Delivery("dead", _words(error)), True
    except (IvcapFlowsError, OSError) as error:
        down = isinstance(error, ConfigurationError | OSError) or getattr(error, "retryable", False)
        return Delivery("pending", _words(error)), not down
    except Exception as error:
        log.warning("The sink %s failed on run %s.", sink.name, run.id, exc_info=True)
        return Delivery("pending", _words(error)), True


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _next_try(tries: int) -> datetime:
    wait = min(FIRST_WAIT * 2.0 ** min(tries, 20), LONGEST_WAIT)
    return datetime.now(timezone.utc) + timedelta(seconds=random.uniform(wait / 2, wait))  # noqa: S311 - no secret
