"""From the journal to the sinks: each is retried for ever with back-off, and delivered to exactly once, by key."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from ivcap_flows import loop
from ivcap_flows.durable.heartbeat import listen, start_heartbeat, stop_heartbeat
from ivcap_flows.errors import (
    ConfigurationError,
    DurabilityError,
    IvcapFlowsError,
    JournalError,
    NotAuthorizedError,
    WaitTimeoutError,
)
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Cursor
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record, activity
from ivcap_flows.secrets import logger_of
from ivcap_flows.sinks.base import REFUSALS, Delivery, Sink

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal, RunRow

__all__ = ["Drained", "drain", "run_graph", "run_records"]

log = logger_of("ivcap_flows.sinks")

FIRST_WAIT: Final = 15.0
"""Seconds before the second try; each further wait doubles, up to an hour."""
LONGEST_WAIT: Final = 3600.0
_MISSES: Final = 2
"""How many runs in a row find a sink away before it counts as such: one alone may be what it cannot take."""
_WINDOW: Final = 10_000
"""How many facts are looked through for runs at once."""
_ROUNDS: Final = 100
"""How often a drainer looks again for what came meanwhile; each time that is less."""


@dataclass(frozen=True)
class Drained:
    """What the passes over one sink came to. `busy`: another process drains it; `reached` says that it was offered all
    there is."""

    sink: str
    delivered: int = 0
    pending: int = 0
    dead: int = 0
    busy: bool = False
    reached: bool = field(default=True, compare=False)

    def followed_by(self, later: Drained) -> Drained:
        """Both together: what is left is what the later pass has left."""
        if later.busy:
            return replace(self, reached=False)
        return replace(later, delivered=self.delivered + later.delivered)


def run_graph(journal: Journal, run_id: str) -> Graph:
    """All that is known of one run. It is valid though facts of the run may be missing."""
    return Graph(run_records(journal, run_id)).whole()


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

    A delivery is known by the run and its newest fact, so that a later attempt is delivered as well; a run goes to a
    sink whole, and never from two drainers at once, so what is stated of it arrives in order. A sink that cannot be
    reached costs two tries a pass; a run that it can never take holds no other. `again` tries what waits for its time
    and what was refused, too. Two drainers at once share the sinks between them: what one passes by, because the other
    is at it, the other does before it ends. JournalError if the journal cannot be used.
    """
    # Where another machine shares the journal, the lease of a sink is as good as the heartbeat of its holder.
    start_heartbeat(journal)
    try:
        listen(journal)
        reports = {sink.name: _drain(journal, sink, again) for sink in sinks}
        for _ in range(_ROUNDS):
            # What ended, or was stated by a sink, while its pass went by.
            behind = [sink for sink in sinks if reports[sink.name].reached and _has_more(journal, sink)]
            if not behind:
                break
            for sink in behind:
                reports[sink.name] = reports[sink.name].followed_by(_drain(journal, sink, again=False))
        return list(reports.values())
    finally:
        stop_heartbeat(journal)


def _has_more(journal: Journal, sink: Sink) -> bool:
    """Whether runs that do not run have facts that the sink was not offered."""
    cursor = journal.deliveries.cursor(sink.name)
    newest = journal.facts.newest()
    return any(not _runs_now(journal, run) for run in _beyond(journal, cursor, newest))


def _beyond(journal: Journal, cursor: Cursor, until: int) -> Iterator[str]:
    yield from cursor.behind
    for after in range(cursor.seq, until, _WINDOW):
        yield from journal.deliveries.runs_between(after, min(after + _WINDOW, until))


def _runs_now(journal: Journal, run_id: str) -> bool:
    run = journal.runs.find(run_id)
    return run is None or run.outcome == "running"


def _drain(journal: Journal, sink: Sink, again: bool) -> Drained:
    with journal.deliveries.lease(sink.name) as mine:
        if not mine:
            return Drained(sink.name, busy=True, reached=False)
        return _Pass(journal, sink, again).run()


class _Pass:
    """One pass over what a sink has not got: the facts beyond its cursor, and what is left of earlier passes.

    What was never tried goes first, and then what was tried the longest ago, so that each gets its turn.
    """

    def __init__(self, journal: Journal, sink: Sink, again: bool) -> None:
        self._journal, self._sink, self._again = journal, sink, again
        self._counts: Counter[str] = Counter()
        self._left = journal.deliveries.left(sink.name)
        self._seen = set(self._left)
        self._misses = 0

    @property
    def _reachable(self) -> bool:
        return self._misses < _MISSES

    def run(self) -> Drained:
        deliveries, name = self._journal.deliveries, self._sink.name
        cursor, newest = deliveries.cursor(name), self._journal.facts.newest()
        behind = self._offered(cursor.behind)
        for after in range(cursor.seq, newest, _WINDOW):
            until = min(after + _WINDOW, newest)
            behind += self._offered(deliveries.runs_between(after, until))
            if self._reachable:
                # What was not offered because the sink is away is found again from where the cursor stands.
                cursor = Cursor(until, tuple(behind))
                deliveries.advance(name, cursor)
        if self._reachable and cursor.behind != tuple(behind):
            deliveries.advance(name, Cursor(cursor.seq, tuple(behind)))
        for run_id in self._left:
            self._offer(run_id)
        counts = self._counts
        return Drained(name, counts["delivered"], counts["pending"], counts["dead"], reached=self._reachable)

    def _offered(self, run_ids: Iterable[str]) -> list[str]:
        """Offer runs to the sink; those of them that still run."""
        fresh = dict.fromkeys(run_id for run_id in run_ids if run_id not in self._seen)
        self._seen.update(fresh)
        return [run_id for run_id in fresh if not self._offer(run_id)]

    def _offer(self, run_id: str) -> bool:
        """Deliver a run unless it waits or the sink has it; False for one that still runs, which waits for its end."""
        journal, name = self._journal, self._sink.name
        run = journal.runs.find(run_id)
        if run is None:
            return True
        if run.outcome == "running":
            return False
        seq = journal.facts.last_seq(run.id)
        row = journal.deliveries.get(name, f"{run.id}@{seq}")
        if row is not None and row.state == "delivered":
            return True
        waits = row is not None and row.next_try is not None and _is_ahead(row.next_try)
        if not self._reachable or (row is not None and not self._again and (waits or row.state == "dead")):
            self._counts["dead" if row is not None and row.state == "dead" else "pending"] += 1
            return True
        delivery, reached = _try(journal, self._sink, run)
        self._misses = 0 if reached else self._misses + 1
        if delivery.facts:
            seq = _append(journal, run, delivery.facts, seq)
        pending = delivery.state == "pending"
        journal.deliveries.record(
            name,
            f"{run.id}@{seq}",
            delivery.state,
            run_id=run.id,
            reason=delivery.reason,
            next_try=(delivery.next_try or _next_try(row.tries if row is not None else 0)) if pending else None,
        )
        self._counts[delivery.state] += 1
        return True


def _append(journal: Journal, run: RunRow, records: Sequence[Record], seq: int) -> int:
    """Write what a sink states of a run; the newest fact that the sink knows, where it knew `seq` before."""
    from ivcap_flows.journal import Fact

    journal.facts.append([Fact(record, run.id) for record in records])
    new = journal.facts.of_run(run.id, after=seq)
    # What another stated meanwhile has yet to be delivered.
    return new[-1].seq if len(new) == len(records) else seq


def _try(journal: Journal, sink: Sink, run: RunRow) -> tuple[Delivery, bool]:
    """One delivery, and whether the sink could be reached."""
    try:
        return loop.run(sink.deliver(run, run_graph(journal, run.id))), True
    except JournalError:
        raise
    except REFUSALS as error:
        return Delivery("dead", _words(error)), True
    except (IvcapFlowsError, OSError) as error:
        return Delivery("pending", _words(error)), not _is_away(error)
    except Exception as error:
        log.warning("The sink %s failed on run %s.", sink.name, run.id, exc_info=True)
        return Delivery("pending", _words(error)), True


def _is_away(error: IvcapFlowsError | OSError) -> bool:
    """Whether an error tells of the sink, and not only of work that takes its time or that another process has."""
    if isinstance(error, ConfigurationError | NotAuthorizedError | OSError):
        return True
    return error.retryable and not isinstance(error, WaitTimeoutError | DurabilityError)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _is_ahead(moment: datetime) -> bool:
    """Whether a try is to wait for this moment. One beyond the longest wait was noted by a clock that was ahead."""
    now = _now()
    return now < moment <= now + timedelta(seconds=LONGEST_WAIT)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _next_try(tries: int) -> datetime:
    wait = min(FIRST_WAIT * 2.0 ** min(tries, 20), LONGEST_WAIT)
    return _now() + timedelta(seconds=random.uniform(wait / 2, wait))  # noqa: S311 - no secret
