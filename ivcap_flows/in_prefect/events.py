"""Emit events in Prefect for what happens to effects, runs and deliveries, so that automations can react.

Prefect sends events in a thread of its own. An event that cannot be sent is lost; the journal has what it said.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ivcap_flows.journal import IntentRow
from ivcap_flows.journal.observer import (
    AttemptEnded,
    DeliveryRefused,
    IntentMoved,
    LimitReached,
    RunWoken,
    Transition,
)
from ivcap_flows.journal.rows import COMES_BACK
from ivcap_flows.secrets import logger_of, scrub

__all__ = ["KINDS", "Event", "Kind", "emit", "emit_orphans", "events_of"]

log = logger_of("ivcap_flows.in_prefect")

MOST_WAITING: Final = 1_000
"""Events that may wait to be sent. If Prefect's server is away, a process that ends tries each of them for seconds."""
_PLACED: Final = "key service scope generation run platform"


@dataclass(frozen=True)
class Kind:
    """When an event is emitted, which resource it is about, and the names in its payload."""

    when: str
    resource: str
    payload: str


def _of_work(noun: str) -> dict[str, Kind]:
    a = "An order" if noun == "order" else "A job"
    urn = f"the {noun}'s URN"
    unless = f"{urn}, or `ivcap-flows.effect.<key>` while it is not known"
    return {
        f"ivcap.{noun}.placed": Kind(f"{a} was placed.", urn, _PLACED),
        f"ivcap.{noun}.adopted": Kind(
            f"{a} that exists was taken as the result of a request: its reply was lost, or another journal placed it.",
            urn,
            f"{_PLACED} matched_by",
        ),
        f"ivcap.{noun}.resubmitted": Kind(f"{a} was placed again, since an earlier one failed.", urn, _PLACED),
        f"ivcap.{noun}.succeeded": Kind(f"{a} that the run waited for succeeded.", urn, f"{_PLACED} status"),
        f"ivcap.{noun}.failed": Kind(f"{a} that the run waited for ended otherwise.", urn, f"{_PLACED} status"),
        f"ivcap.{noun}.orphaned": Kind(
            f"A run ended without success and left {a.lower()} that nobody waits for.", unless, f"{_PLACED} outcome"
        ),
    }


KINDS: Final[Mapping[str, Kind]] = {
    **_of_work("order"),
    **_of_work("job"),
    "ivcap-flows.run.parked": Kind(
        "A run left its process while it waits.", "`ivcap-flows.run.<run>`", "run flow attempt message"
    ),
    "ivcap-flows.run.paused": Kind(
        "A run was suspended, until somebody resumes it.", "`ivcap-flows.run.<run>`", "run flow attempt message"
    ),
    "ivcap-flows.run.woken": Kind("A parked run continues.", "`ivcap-flows.run.<run>`", "run round waits"),
    "ivcap-flows.effect.in-doubt": Kind(
        "A request was sent, and it is not known whether it took effect. Most doubts end within seconds.",
        "`ivcap-flows.effect.<key>`",
        "key noun subject run reason",
    ),
    "ivcap-flows.spend.limit": Kind(
        "An order or job was not placed, since the run has as many as IVCAP_FLOWS_MAX_ORDERS allows.",
        "`ivcap-flows.run.<run>`",
        "run service limit placed",
    ),
    "provena.model-run.registered": Kind(
        "A model run has its handle.", "`provena.model-run.<handle>`", "key subject name run platform"
    ),
    "ivcap-flows.delivery.refused": Kind(
        "A sink refused the record of a run permanently.", "`ivcap-flows.run.<run>`", "run sink reason"
    ),
}
"""Every event of the package. The reference page is made of this table."""


@dataclass(frozen=True)
class Event:
    """An event of one of the `KINDS`. `flow_run` is the Prefect flow run that it is about, if the run has one."""

    name: str
    resource: str
    title: str
    payload: Mapping[str, Any]
    flow_run: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def emit(transition: Transition) -> None:
    """Emit the events of a transition. Every journal that this process records into has this as its observer."""
    for event in events_of(transition):
        _send(event)


def emit_orphans(rows: Iterable[IntentRow], outcome: str) -> None:
    """Emit an event for each order or job that a run left behind when it ended with `outcome`. Never raises."""
    try:
        for row in rows:
            _send(_of_row(f"ivcap.{row.noun}.orphaned", row, outcome=outcome))
    except Exception as error:  # noqa: BLE001 - events are best effort
        log.debug("The orphans of a run were not emitted as events: %s", error)


def events_of(transition: Transition) -> Iterator[Event]:
    """Yield the events of a transition: none or one."""
    if isinstance(transition, IntentMoved):
        yield from _of_intent(transition.before, transition.intent)
    elif isinstance(transition, AttemptEnded):
        attempt = transition.attempt
        if attempt.outcome in COMES_BACK:
            payload = {"run": attempt.run_id, "flow": attempt.flow_name, "attempt": attempt.number}
            yield _of_run(
                attempt.outcome, attempt.run_id, {**payload, "message": attempt.cause}, flow_run=attempt.flow_run_id
            )
    elif isinstance(transition, RunWoken) and transition.attempt.park is not None:
        attempt, park = transition.attempt, transition.attempt.park
        payload = {"run": attempt.run_id, "round": park.round, "waits": [each.urn for each in park.waits]}
        yield _of_run("woken", attempt.run_id, payload, flow_run=attempt.flow_run_id)
    elif isinstance(transition, LimitReached):
        limit, run = transition.error.data, transition.run_id
        payload = {"run": run, **{name: limit[name] for name in ("service", "limit", "placed")}}
        yield Event("ivcap-flows.spend.limit", f"ivcap-flows.run.{run}", f"run {run}", payload)
    elif isinstance(transition, DeliveryRefused):
        run, sink = transition.run_id, transition.sink
        payload = {"run": run, "sink": sink, "reason": transition.reason}
        labels = {"ivcap-flows.sink": sink}
        yield Event("ivcap-flows.delivery.refused", f"ivcap-flows.run.{run}", f"run {run}", payload, labels=labels)


def _of_intent(before: IntentRow, row: IntentRow) -> Iterator[Event]:
    work = row.noun in ("order", "job")
    if row.in_doubt and not before.in_doubt:
        payload = {"key": row.key, "noun": row.noun, "subject": row.subject, "run": row.run_id, "reason": row.error}
        title = row.name or row.subject or row.noun
        yield Event("ivcap-flows.effect.in-doubt", f"ivcap-flows.effect.{row.key}", title, payload)
    elif row.state == "done" and before.state != "done" and row.how != "reused":
        if work and row.how == "adopted":
            yield _of_row(f"ivcap.{row.noun}.adopted", row, matched_by=row.matched_by)
        elif work:
            yield _of_row(f"ivcap.{row.noun}.{'resubmitted' if row.generation else 'placed'}", row)
        elif row.noun == "model run":
            payload = {"key": row.key, "subject": row.subject, "name": row.name, "run": row.run_id}
            payload["platform"] = row.platform
            title = row.name or row.subject or row.noun
            yield Event("provena.model-run.registered", f"provena.model-run.{row.urn}", title, payload)
    elif row.has_ended and not before.has_ended and work and row.how != "reused":
        ended = "succeeded" if row.status == "succeeded" else "failed"
        yield _of_row(f"ivcap.{row.noun}.{ended}", row, status=row.status)


def _of_row(name: str, row: IntentRow, **more: Any) -> Event:
    payload = {
        "key": row.key,
        "service": row.subject,
        "scope": row.scope,
        "generation": row.generation,
        "run": row.run_id,
        "platform": row.platform,
        **more,
    }
    resource = row.urn or f"ivcap-flows.effect.{row.key}"
    labels = {"ivcap.service": row.subject} if row.subject else {}
    return Event(name, resource, row.name or row.subject or row.noun, payload, labels=labels)


def _of_run(what: str, run: str, payload: dict[str, Any], *, flow_run: str) -> Event:
    return Event(f"ivcap-flows.run.{what}", f"ivcap-flows.run.{run}", f"run {run}", payload, flow_run=flow_run)


def _send(event: Event) -> None:
    # When the interpreter ends, Prefect's thread of events is stopped first, and starting another would fail loudly.
    if not threading.main_thread().is_alive():
        return
    from prefect.context import FlowRunContext, TaskRunContext
    from prefect.events import emit_event
    from prefect.events.worker import EventsWorker
    from prefect.settings import get_current_settings

    runs = FlowRunContext.get() is not None or TaskRunContext.get() is not None
    if not (runs or get_current_settings().api.url):
        # Prefect would start a server of its own, only for this.
        return
    if EventsWorker.instance()._queue.qsize() > MOST_WAITING:
        log.debug("The event %s was not emitted: Prefect has not yet sent the events before it.", event.name)
        return
    resource = {"prefect.resource.id": event.resource, "prefect.resource.name": event.title, **event.labels}
    related = (
        [{"prefect.resource.id": f"prefect.flow-run.{event.flow_run}", "prefect.resource.role": "flow-run"}]
        if event.flow_run
        else []
    )
    emit_event(event.name, scrub(resource), related=related, payload=scrub(dict(event.payload)))
