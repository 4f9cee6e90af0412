"""Code that order and job tasks share: lists, the tag with the key, and what happens when work has ended."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from textwrap import shorten
from typing import Any, Final, Generic, TypeVar

from ivcap_flows.arguments import is_several
from ivcap_flows.capture import mark_existing
from ivcap_flows.durable import planning
from ivcap_flows.durable.outages import through_outages
from ivcap_flows.durable.wording import counted, listed
from ivcap_flows.errors import ForbiddenError, JournalError, NotFoundError, PlatformError, WaitTimeoutError
from ivcap_flows.handles import Handle, Job, Order
from ivcap_flows.http.paging import checked_limit
from ivcap_flows.http.pauses import retry_until
from ivcap_flows.http.retry import is_transient
from ivcap_flows.identity import KEY_TAG, short_id
from ivcap_flows.ivcap.job_records import JobRecord
from ivcap_flows.ivcap.orders import OrderRecord
from ivcap_flows.ivcap.wire import segment
from ivcap_flows.journal import Journal
from ivcap_flows.journal.rows import Wait
from ivcap_flows.provenance.describe import content_sha256, shortened
from ivcap_flows.secrets import logger_of, scrub_text
from ivcap_flows.tasks.call import IvcapCall, urn_of
from ivcap_flows.tasks.missing import missing_inputs

__all__ = [
    "Ended",
    "Patience",
    "PlannedError",
    "failure",
    "first_of",
    "function_called",
    "log_tail",
    "name_of",
    "note_end",
    "outcome_of",
    "requested_with",
    "service_named",
    "tag",
    "wait_of",
    "waiting_for",
    "what_helps",
    "with_reason",
]

logger = logger_of("ivcap_flows.waiting")

W = TypeVar("W", Order, Job)
S = TypeVar("S", OrderRecord, JobRecord)
T = TypeVar("T")

_LOG_LINES: Final = 20
_REASON: Final = 500
"""The maximum number of characters of a reason that the log and the journal have. The handle has all."""
_NAMED: Final = 20
"""The maximum number of failures that a warning names, and that are looked up in the journal."""
_requested_with: ContextVar[str | None] = ContextVar("ivcap_flows_requested_with", default=None)
_EVENT: Final = 4_000
"""The maximum number of characters of an event's data to keep."""


class PlannedError(BaseException):
    """Ends a flow that is only planned when it needs the result of a request that was not sent.

    It is not an Exception, so that a flow that catches errors does not continue as if the work had failed.
    """

    @classmethod
    def refuse(cls, work: Sequence[Handle | str]) -> None:
        """Raise PlannedError if a plan is being made and some of this work is only planned."""
        waiting = [str(each) for each in work if str(each).startswith("urn:ivcap-flows:planned:")]
        if waiting and planning() is not None:
            requests = counted(len(waiting), "requests")
            raise cls(f"The plan ends here: the flow needs the results of {requests}, and a plan sends nothing.")


@dataclass
class Patience:
    """The time that a wait for some work may take, counted from its call. The wait itself and its `read`s share it."""

    work: Collection[Handle | str]
    timeout: float
    """Seconds; infinite if the caller gives none."""
    began: float
    """The monotonic time of the call."""
    has_ended: bool = False
    """Whether all of the work has ended, and is only read."""

    @classmethod
    def of(cls, work: Collection[Handle | str], timeout: float | None) -> Patience:
        return cls(work, math.inf if timeout is None else timeout, time.monotonic())

    @property
    def until(self) -> float:
        """The monotonic time at which it ends."""
        return self.began + self.timeout

    @property
    def left(self) -> float:
        """Seconds until it ends."""
        return max(0.0, self.until - time.monotonic())

    async def read(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `ask`, repeated while the platform cannot answer. `ask` must be safe to repeat.

        Raises WaitTimeoutError once it would have to be repeated after the end. A platform that answers is read on.
        """
        before = retry_until.set(self.until)
        try:
            return await through_outages(ask, math.inf)
        except PlatformError as error:
            if not is_transient(error):
                raise
            raise WaitTimeoutError(
                f"The timeout of the wait for {listed(map(name_of, self.work))} is over, and the platform cannot "
                f"answer. Waiting again continues. {error}",
                pending=[] if self.has_ended else [urn_of(each) for each in self.work],
            ) from error
        finally:
            retry_until.reset(before)


async def first_of(
    records: AsyncIterator[S], handle: Callable[[S], W], *, status: str | None, limit: int | None
) -> list[W]:
    """Return the handles of the records with a status, or of all, at most `limit`. Reads no record after the last."""
    kept: list[W] = []
    if checked_limit(limit) == 0:
        return kept
    async for record in records:
        if status is None or record.status == status:
            kept.append(handle(record))
            mark_existing(kept[-1].urn)
            if len(kept) == limit:
                break
    return kept


async def service_named(call: IvcapCall, work: W) -> W:
    """Return the handle with the name of its service, if the account can read that."""
    if work.service_name is not None or not work.service:
        return work
    try:
        service = await call.client.services.read(work.service)
    except (ForbiddenError, NotFoundError):
        return work
    return work.model_copy(update={"service_name": service.name})


def outcome_of(work: Order | Job) -> dict[str, Any]:
    """Return what the journal and the idempotency record keep of an order or job.

    Of a long result they keep only the sha256, and of a long event what the record shows: the platform has them whole.
    """
    outcome = work.model_dump(mode="json")
    if isinstance(work, Job):
        outcome["events"] = [{**event, "data": shortened(event["data"], _EVENT)} for event in outcome["events"]]
        if shortened(work.result) is not work.result:
            outcome |= {"result": None, "result_sha256": content_sha256(work.result)}
    return outcome


async def note_end(journal: Journal, work: Order | Job) -> bool:
    """Write to the journal how work ended, and why. Return whether this is news: reused work had ended before.

    If the journal cannot be written, the flow continues, and the next wait writes it.
    """
    key = work.key
    if key is None:
        return True

    def finish() -> bool:
        before = journal.intents.get(key)
        journal.intents.finish(key, work.status, outcome_of(work), error=_reason(work))
        return before is None or (not before.has_ended and before.how != "reused")

    try:
        return await journal.ask(finish)
    except JournalError as error:
        logger.error("Could not record that %s ended as %s; the next wait does: %s", work.urn, work.status, error)
        return False


async def log_tail(call: IvcapCall, order: str) -> str:
    """Return the last lines of an order's log, or the reason why it cannot be read."""
    try:
        return await call.client.orders.log_tail(order, _LOG_LINES)
    except PlatformError as error:
        return f"(its log cannot be read: {error.message})"


@dataclass(frozen=True)
class Ended(Generic[W]):
    """An order or job that has ended. `is_news` says whether the journal did not know; `log` is the end of its log."""

    work: W
    is_news: bool
    log: str = ""


def with_reason(work: W, log: str) -> W:
    """Return the handle of work that failed with the reason: the platform's, else the last line of the log."""
    last = next((line for line in reversed(log.splitlines()) if line.strip()), None)
    return work.model_copy(update={"error_message": work.error_message or last})


def _reason(work: Order | Job) -> str | None:
    """Return the reason for which work failed on one line."""
    return None if work.error_message is None else shorten(work.error_message, _REASON, placeholder=" …")


def failure(failed: Sequence[Ended[Any]], total: int, noun: str, *, logs: bool) -> list[str]:
    """Return the lines that say which work failed, and why; with `logs`, each with the end of its log."""
    lines = [f"{len(failed)} of {total} {noun}s did not succeed."]
    for each in failed if logs else failed[:_NAMED]:
        work = each.work
        called = work.name or work.service_name or work.service
        lines.append(f"{called} ({work.urn}) ended as {work.status}: {_reason(work) or 'no reason is known'}")
        if logs:
            lines += [f"  | {line}" for line in each.log.splitlines()]
    if not logs and len(failed) > _NAMED:
        lines.append(f"and {len(failed) - _NAMED} more: `ivcap-flows show latest` lists them.")
    return lines


@contextmanager
def requested_with(function: str) -> Iterator[None]:
    """In the block, let the error of failed work name this function as the one to call. The outermost block counts."""
    before = _requested_with.set(_requested_with.get() or function)
    try:
        yield
    finally:
        _requested_with.reset(before)


def function_called(function: str) -> str:
    """Return the name of the function that the user called, by `requested_with`, else this one."""
    return _requested_with.get() or function


async def what_helps(call: IvcapCall, failed: Sequence[Ended[Any]], task: str) -> list[str]:
    """Return a line with the next step after work that failed; none if it was not requested with this package.

    `task` requests such work, unless the user called another function for it.
    """
    missing = await missing_inputs(call, [each.work for each in failed])
    if missing:
        return missing
    rows = []
    with suppress(JournalError):
        for each in failed[:_NAMED]:
            rows += await call.journal.ask(partial(call.journal.intents.where, urn=each.work.urn))
    if not rows:
        return []
    function, again = function_called(task), "IVCAP_FLOWS_FRESH=1"
    if not all(row.scope.startswith(("run:", "call:")) for row in rows):
        again += " IVCAP_FLOWS_PAY_AGAIN=1"
    return [
        f"The same call in this run returns the same result. If such a failure may pass, pay again: {function}(…, "
        f"max_resubmits=1), or more if that was used, or a new run ({again})."
    ]


def tag(key: str) -> str:
    """Return the tag for an order that is placed under a key."""
    return KEY_TAG + short_id(key)


def waiting_for(what: str) -> Callable[[dict[str, Any]], str]:
    """Return a function that names a task run after the `orders` or `jobs` that it waits for."""

    def name(given: dict[str, Any]) -> str:
        work = given[what]
        if not is_several(work):
            return f"wait for {what}"
        return f"wait for {counted(len(work), what)}" + (f": {listed(map(name_of, work))}" if work else "")

    return name


def name_of(work: object) -> str:
    """Return what a user calls an order or job: its name, else that of its service, else its URN."""
    return str(work.name or work.service_name or work.urn if isinstance(work, Order | Job) else work)


def wait_of(work: Order | Job | str, noun: str, service: str) -> Wait:
    """Return what a wait for an order or job looks for.

    Raises InputError for a malformed URN, before other processes hear of it.
    """
    for urn in (urn_of(work), *([service] if service else [])):
        segment(urn)
    account = None if isinstance(work, str) else work.account
    return Wait(urn_of(work), noun, service, scrub_text(name_of(work)), account)
