"""Deliver runs from the journal to the sinks: retried for ever with back-off, and delivered exactly once, by key."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import chain
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
from ivcap_flows.in_prefect.reconcile import gone_on, unended
from ivcap_flows.journal import Cursor, Fact
from ivcap_flows.plain_text import described
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record, activity
from ivcap_flows.secrets import logger_of
from ivcap_flows.sinks.base import REFUSALS, Delivery, Sink

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal, RunRow
    from ivcap_flows.journal.rows import DeliveryRow

__all__ = ["FAULT", "Drained", "drain", "run_graph", "run_records"]

log = logger_of("ivcap_flows.sinks")

FIRST_WAIT: Final = 15.0
"""Seconds before the second try. Each further wait doubles, up to an hour."""
LONGEST_WAIT: Final = 3600.0
FAULT: Final = "The sink failed by a fault in its own code; nothing is wrong with the run"
"""How the reason of a delivery begins whose error no sink foresees."""
_CORRECTED: Final = "When that is corrected, run `ivcap-flows sync --again`."
_ISSUES: Final = "https://github.com/ivcap-works/ivcap-flows/issues"
_MISSES: Final = 2
"""After this many failed runs in a row a sink counts as away. A single one may be a run that the sink cannot take."""
WINDOW: Final = 10_000
"""The number of facts that are searched for runs at once."""
_ROUNDS: Final = 100
"""The maximum number of times that a drainer looks for new facts. There are fewer each time."""


@dataclass(frozen=True)
class Drained:
    """The result of the passes over one sink.

    `busy`: another process drains it. `reached`: it was offered all there is. `reasons` of the sink for runs that count
    as delivered, such as why it sent nothing, each with the number of runs.
    """

    sink: str
    delivered: int = 0
    pending: int = 0
    dead: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict, compare=False)
    busy: bool = False
    reached: bool = field(default=True, compare=False)

    def followed_by(self, later: Drained) -> Drained:
        """Return both passes together. What is left is what the later pass has left."""
        if later.busy:
            return replace(self, reached=False)
        reasons = Counter(self.reasons) + Counter(later.reasons)
        return replace(later, delivered=self.delivered + later.delivered, reasons=reasons)


def run_graph(journal: Journal, run_id: str) -> Graph:
    """Return the graph of one run. It is valid even if facts of the run are missing."""
    return Graph(run_records(journal, run_id)).whole()


def run_records(journal: Journal, run_id: str) -> list[Record]:
    """Return a run's facts, oldest first, then the ends that a killed attempt could not record: its own, and those of
    what it was at. A run that went on has no end before that of its last attempt."""
    run, attempts = journal.runs.standing(journal.runs.get(run_id))
    facts = (fact.record for fact in journal.facts.all_of_run(run_id))
    records = [gone_on(each, run) if each.id == flows_urn("run", run_id) else each for each in facts]
    for row in attempts:
        if row.outcome != "running":
            urn = flows_urn("attempt", row.id)
            ended = max(row.ended_at, row.started_at) if row.ended_at else None
            records.append(activity(urn, "attempt", row.started_at, ended, outcome=row.outcome, cause=row.cause))
        if row.outcome == "lost":
            records += [activity(at.id, at.type, at.time, ended, outcome="lost") for at in unended(journal, row)]
    if run.outcome == "lost":
        records.append(activity(flows_urn("run", run_id), "flow-run", run.created_at, outcome="lost"))
    return records


def drain(journal: Journal, sinks: Sequence[Sink], *, again: bool = False) -> list[Drained]:
    """Deliver every ended or parked run that has facts which a sink does not have. Return one report for each sink.

    A delivery is identified by the run and its newest fact, so a later attempt is delivered as well. A run goes to a
    sink as a whole, and never from two drainers at once, so its facts arrive in order. A sink that cannot be reached
    costs two tries per pass. A run that a sink can never take does not block the others.

    With `again`, deliveries that wait for their next try, and those that were refused, are tried, too. Two drainers
    that run at once share the sinks: one skips a sink that the other drains, and the other delivers those runs before
    it ends. Raises JournalError if the journal cannot be used.
    """
    # If another machine shares the journal, the lease of a sink depends on the heartbeat of its holder.
    start_heartbeat(journal)
    try:
        listen(journal)
        reports = {sink.name: _drain(journal, sink, again) for sink in sinks}
        for _ in range(_ROUNDS):
            # Runs that ended, or that a sink added facts to, during the pass.
            behind = [sink for sink in sinks if reports[sink.name].reached and _has_more(journal, sink)]
            if not behind:
                break
            for sink in behind:
                reports[sink.name] = reports[sink.name].followed_by(_drain(journal, sink, again=False))
        return list(reports.values())
    finally:
        stop_heartbeat(journal)


def _has_more(journal: Journal, sink: Sink) -> bool:
    """Whether runs that are not running have facts that the sink was not offered."""
    cursor = journal.deliveries.cursor(sink.name)
    newest = journal.facts.newest()
    beyond = (
        run_id
        for after in range(cursor.seq, newest, WINDOW)
        for run_id in journal.deliveries.runs_between(after, min(after + WINDOW, newest))
    )
    runs = (journal.runs.find(run_id) for run_id in chain(cursor.behind, beyond))
    return any(run is not None and run.outcome != "running" for run in runs)


def _drain(journal: Journal, sink: Sink, again: bool) -> Drained:
    with journal.deliveries.lease(sink.name) as mine:
        if not mine:
            return Drained(sink.name, busy=True, reached=False)
        return _Pass(journal, sink, again).run()


class _Pass:
    """One pass over what a sink does not have: the facts beyond its cursor, and what earlier passes left.

    Runs that were never tried come first, then those that were tried the longest ago, so that each gets its turn.
    """

    def __init__(self, journal: Journal, sink: Sink, again: bool) -> None:
        self._journal, self._sink, self._again = journal, sink, again
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._undelivered = journal.deliveries.left(sink.name)
        self._met = set(self._undelivered)
        self._misses = 0

    @property
    def _reachable(self) -> bool:
        return self._misses < _MISSES

    def run(self) -> Drained:
        deliveries, name = self._journal.deliveries, self._sink.name
        cursor, newest = deliveries.cursor(name), self._journal.facts.newest()
        behind = self._offer_new(cursor.behind)
        for after in range(cursor.seq, newest, WINDOW):
            until = min(after + WINDOW, newest)
            behind += self._offer_new(deliveries.runs_between(after, until))
            if self._reachable:
                # What was not offered because the sink is away is found again from the cursor.
                cursor = Cursor(until, tuple(behind))
                deliveries.advance(name, cursor)
        if self._reachable and cursor.behind != tuple(behind):
            deliveries.advance(name, Cursor(cursor.seq, tuple(behind)))
        for run_id in self._undelivered:
            self._offer(run_id)
        counts = self._counts
        ends = counts["delivered"], counts["pending"], counts["dead"]
        return Drained(name, *ends, dict(self._reasons), reached=self._reachable)

    def _offer_new(self, run_ids: Iterable[str]) -> list[str]:
        """Offer the runs that this pass has not met to the sink. Return those that are still running."""
        new = dict.fromkeys(run_id for run_id in run_ids if run_id not in self._met)
        self._met.update(new)
        return [run_id for run_id in new if not self._offer(run_id)]

    def _offer(self, run_id: str) -> bool:
        """Deliver a run unless it waits or the sink has it. Return False if it still runs, to offer it again later."""
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
        try:
            self._deliver(run, row, seq)
        except JournalError:
            if journal.runs.find(run.id) is not None:
                raise
            log.warning("The run %s was pruned while it was delivered to %s.", run.id, name)
        return True

    def _deliver(self, run: RunRow, row: DeliveryRow | None, seq: int) -> None:
        """Try a delivery of the facts up to `seq`, and store its outcome. `row` is the outcome of the try before."""
        journal = self._journal
        delivery, reached = _try(journal, self._sink, run)
        self._misses = 0 if reached else self._misses + 1
        if delivery.facts:
            seq = _append(journal, run, delivery.facts, seq)
        pending, reason = delivery.state == "pending", delivery.reason
        if delivery.state == "dead":
            reason = f"{(reason or 'It was refused').rstrip('.')}. {_CORRECTED}"
        journal.deliveries.record(
            self._sink.name,
            f"{run.id}@{seq}",
            delivery.state,
            run_id=run.id,
            reason=reason,
            next_try=(delivery.next_try or _next_try(row.tries if row is not None else 0)) if pending else None,
        )
        self._counts[delivery.state] += 1
        if delivery.state == "delivered" and reason:
            self._reasons[reason] += 1


def _append(journal: Journal, run: RunRow, records: Sequence[Record], seq: int) -> int:
    """Write the facts that a sink adds to a run. Return the newest fact that the sink has; it had those up to `seq`."""
    journal.facts.append([Fact(record, run.id) for record in records])
    new = list(journal.facts.all_of_run(run.id, after=seq))
    # Facts that others added meanwhile must still be delivered.
    return new[-1].seq if len(new) == len(records) else seq


def _try(journal: Journal, sink: Sink, run: RunRow) -> tuple[Delivery, bool]:
    """Try one delivery. Return it, and whether the sink could be reached. Raises JournalError if the run is gone."""
    try:
        graph = run_graph(journal, run.id)
        if journal.runs.find(run.id) is None:
            raise JournalError(f"The run {run.id} was pruned, so its record is not whole.", url=journal.url)
        return loop.run(sink.deliver(run, graph)), True
    except JournalError:
        raise
    except REFUSALS as error:
        return Delivery("dead", str(error)), True
    except (IvcapFlowsError, OSError) as error:
        return Delivery("pending", str(error) or type(error).__name__), not _is_away(error)
    except Exception as error:
        log.warning("The sink %s failed on run %s. It is tried again later.", sink.name, run.id, exc_info=True)
        reason = f"{FAULT} ({described(error)}). It is tried again later. Report it: {_ISSUES}."
        return Delivery("pending", reason), True


def _is_away(error: IvcapFlowsError | OSError) -> bool:
    """Whether an error means that the sink is away, not only that work takes time or that another process has it."""
    if isinstance(error, ConfigurationError | NotAuthorizedError | OSError):
        return True
    return error.retryable and not isinstance(error, WaitTimeoutError | DurabilityError)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _is_ahead(moment: datetime) -> bool:
    """Whether a try has to wait for this moment. One beyond the longest wait was noted by a clock that was ahead."""
    now = _now()
    return now < moment <= now + timedelta(seconds=LONGEST_WAIT)


def _next_try(tries: int) -> datetime:
    wait = min(FIRST_WAIT * 2.0 ** min(tries, 20), LONGEST_WAIT)
    return _now() + timedelta(seconds=random.uniform(wait / 2, wait))  # noqa: S311 - no secret
