"""`wait_or_park`: wait for orders and jobs, and leave the process if possible. A plain function for a flow's body.

A run that parks leaves its process and continues in another one, from the flow's first line. Each time, the orders and
jobs themselves say whether the wait is over, so a run may wake at any time and for any reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final, TypeVar, overload

from prefect.client.schemas.objects import State
from prefect.exceptions import Pause

from ivcap_flows import loop
from ivcap_flows.arguments import several
from ivcap_flows.capture import recorder
from ivcap_flows.capture.context import attempt_at_hand, close_attempt
from ivcap_flows.durable import planning
from ivcap_flows.durable.parking import SHORTEST, in_words, rest, watcher_of
from ivcap_flows.errors import InputError, JournalError, WaitTimeoutError
from ivcap_flows.handles import Job, Order
from ivcap_flows.journal.rows import AttemptRow, Park, Wait
from ivcap_flows.secrets import logger_of
from ivcap_flows.settings import Settings
from ivcap_flows.tasks.accounts import block_name, credentials_of
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.flow_run import Obstacle, OwnRun, some_of
from ivcap_flows.tasks.following import following
from ivcap_flows.tasks.jobs import a_wait_for_jobs, wait_for_jobs
from ivcap_flows.tasks.missing import noticing
from ivcap_flows.tasks.orders import a_wait_for_orders, wait_for_orders
from ivcap_flows.tasks.poll_sources import JobSource, OrderSource, wait_for
from ivcap_flows.tasks.progress import progress_of
from ivcap_flows.tasks.waiting import Patience, wait_of
from ivcap_flows.threads import alone

__all__ = ["READING", "a_ended_or_park", "a_wait_or_park", "ended_or_park", "pending_of", "wait_or_park"]

logger = logger_of("ivcap_flows.waiting")

W = TypeVar("W", bound=Order | Job)

LEAST: Final = 2.0
"""Minimum number of seconds in the process before parking. Prefect's API may take so long to show a new task run."""
WOKEN: Final = 5.0
"""Seconds that a woken run waits in its process before it parks again for the same work."""
AGAIN: Final = 10.0
"""Seconds until the next try to park after a passing obstacle."""
READING: Final = 30.0
"""Seconds in which work that has ended is read, also after the timeout."""
_FLUSH: Final = 60.0
"""Maximum number of seconds to write a run's facts before it leaves."""

_told_once: deque[tuple[str, bool]] = deque(maxlen=1_000)
"""Attempts whose obstacle was already logged, with whether it was a passing one."""
_timed_out: deque[tuple[str, datetime]] = deque(maxlen=1_000)
"""Waits whose timeout has passed in an attempt: the attempt, and when the wait began."""


@overload
def wait_or_park(
    work: Sequence[W | str],
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[W]: ...


@overload
def wait_or_park(  # type: ignore[overload-cannot-match] # mypy finds no W for orders beside jobs
    work: Sequence[Order | Job | str],
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[Order | Job]: ...


def wait_or_park(
    work: Sequence[Any],
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[Any]:
    """Wait for orders, jobs or both, like `wait_for_orders` and `wait_for_jobs`, and free the worker if possible.

    Call it in the flow's body. It waits in the process for IVCAP_FLOWS_PARK_AFTER seconds (default 60). Then a deployed
    run *parks*: its process ends and its slot is free. A worker starts the run again from time to time, or, if
    `ivcap-flows watch` runs, as soon as the work has ended. The flow then runs its body again from the first line.
    This package's tasks return the same results as before, and so do your own tasks with persisted results, unless
    their cache is off, refreshed or expires. If a task would run again, or the deployed run cannot park for another
    reason, the wait continues in the process and a warning says why, once. A task with the tag `replay-safe` may run
    again; the log names it when the run parks. A run of no deployment waits in its process.

    `timeout` (seconds) counts over all rounds of parking, and anew after a failure of the flow. A run that wakes after
    it asks the platform once more. `follow` shows in the flow's log what the services say until the run parks. Raises
    the errors of the two tasks.
    """
    work = several(work, "work", "wait_or_park")
    asked = _Asked.of(work, timeout, credentials, follow)
    orders, jobs = asked.orders, asked.jobs
    until = _until(loop.run(_wait(asked, OwnRun.here())))
    given: Any = {"follow": follow, "credentials": credentials}
    ended: list[Any] = []
    if orders:
        # If there are jobs, too, all must have ended before a failure is raised.
        raises = raise_on_failure and not jobs
        ended += wait_for_orders(orders, timeout=_left(until), raise_on_failure=raises, **given)
    if jobs:
        ended += wait_for_jobs(jobs, timeout=_left(until), raise_on_failure=raise_on_failure, **given)
    if raise_on_failure and (failed := [each for each in ended if not each.succeeded]):
        wait_for_orders(failed, timeout=_left(_to_read(until)), **given)
    return _in_order(work, ended)


@overload
async def a_wait_or_park(
    work: Sequence[W | str],
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[W]: ...


@overload
async def a_wait_or_park(  # type: ignore[overload-cannot-match]
    work: Sequence[Order | Job | str],
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[Order | Job]: ...


async def a_wait_or_park(
    work: Sequence[Any],
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[Any]:
    """Like `wait_or_park`, for asynchronous flows. Await it directly in the flow's body, not in `gather` or a group."""
    work = several(work, "work", "a_wait_or_park")
    asked = _Asked.of(work, timeout, credentials, follow)
    orders, jobs = asked.orders, asked.jobs
    until = _until(await loop.arun(_wait(asked, OwnRun.here())))
    given: Any = {"follow": follow, "credentials": credentials}
    ended: list[Any] = []
    if orders:
        raises = raise_on_failure and not jobs
        ended += await a_wait_for_orders(orders, timeout=_left(until), raise_on_failure=raises, **given)
    if jobs:
        ended += await a_wait_for_jobs(jobs, timeout=_left(until), raise_on_failure=raise_on_failure, **given)
    if raise_on_failure and (failed := [each for each in ended if not each.succeeded]):
        await a_wait_for_orders(failed, timeout=_left(_to_read(until)), **given)
    return _in_order(work, ended)


def ended_or_park(
    work: Sequence[W],
    *,
    enough: int,
    timeout: float | None,
    follow: bool,
    credentials: IvcapCredentialsLike,
) -> list[W]:
    """Wait as `wait_or_park` does until some of this work has ended, and return that, as it was given.

    In the process one is enough, since the next step can begin. A run that has parked wakes once `enough` have ended:
    each start costs minutes of a worker. With `enough=0`, return what has ended by now.
    """
    asked = _Asked.of(work, timeout, credentials, follow, enough)
    return _ended(work, loop.run(_wait_for_some(asked, OwnRun.here())))


async def a_ended_or_park(
    work: Sequence[W],
    *,
    enough: int,
    timeout: float | None,
    follow: bool,
    credentials: IvcapCredentialsLike,
) -> list[W]:
    """Like `ended_or_park`, for asynchronous flows."""
    asked = _Asked.of(work, timeout, credentials, follow, enough)
    return _ended(work, await loop.arun(_wait_for_some(asked, OwnRun.here())))


def _ended(work: Sequence[W], decided: State[Any] | set[str]) -> list[W]:
    """Return the work that is not pending, or leave the process."""
    if isinstance(decided, State):
        raise Pause(state=decided)
    return [each for each in work if each.urn not in decided]


def _in_order(work: Sequence[Order | Job | str], ended: Sequence[Any]) -> list[Any]:
    by_urn = {each.urn: each for each in ended}
    return [by_urn[urn_of(each)] for each in work]


def _until(decided: State[Any] | float) -> float:
    """Return the monotonic time until which the wait in the process may last, or leave the process."""
    if isinstance(decided, State):
        raise Pause(state=decided)
    return decided


def _left(until: float) -> float | None:
    return None if until == math.inf else max(0.0, until - time.monotonic())


def _to_read(until: float) -> float:
    """Return until when work that has ended may be read."""
    return max(until, time.monotonic() + READING)


def _is_job(each: Order | Job | str) -> bool:
    """Return whether this is a job, not an order. Raises InputError if it is neither."""
    urn = urn_of(each)
    for kind, noun in ((Job, "job"), (Order, "order")):
        if isinstance(each, kind) or urn.startswith(f"urn:ivcap:{noun}:"):
            return noun == "job"
    raise InputError(f"Pass orders and jobs to wait for: {urn} is neither.")


async def pending_of(
    call: IvcapCall,
    waits: Collection[Wait],
    *,
    timeout: float | None,
    enough: int | None = None,
    told: Callable[[Mapping[str, Any]], None] | None = None,
) -> set[str]:
    """Wait at most `timeout` seconds, and return the URNs of the work that has not ended.

    With `enough`, return as soon as so many have ended. `told` is called as by `wait_for`.
    """
    pending, wanted = {wait.urn for wait in waits}, len(waits) if enough is None else enough
    reached = asyncio.Event()

    def hear(seen: Mapping[str, Any]) -> None:
        if told is not None:
            told(seen)
        pending.difference_update(urn for urn, record in seen.items() if not isinstance(record, str))
        if len(waits) - len(pending) >= wanted:
            reached.set()

    async def of(source: Any, noun: str) -> None:
        some = [wait for wait in waits if wait.noun == noun]
        with contextlib.suppress(WaitTimeoutError):
            await wait_for(call, source, some, timeout=timeout, told=hear)

    both = of(OrderSource(call.client.orders), "order"), of(JobSource(call.client.jobs), "job")
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(each) for each in both]
    all_of_it: asyncio.Future[Any] = asyncio.gather(*tasks)
    hearing: asyncio.Future[Any] = asyncio.ensure_future(reached.wait())
    try:
        await asyncio.wait([all_of_it, hearing], return_when=asyncio.FIRST_COMPLETED)
        if all_of_it.done():
            all_of_it.result()
        return pending
    finally:
        # What is left would go on for nobody.
        for task in (*tasks, hearing):
            task.cancel()
        await asyncio.gather(*tasks, hearing, return_exceptions=True)


@dataclass(frozen=True)
class _Asked:
    """The arguments of one call: what it waits for, and how long."""

    work: Mapping[str, Order | Job | str]
    timeout: float | None
    credentials: IvcapCredentialsLike
    follow: bool
    enough: int | None
    """How much of it must have ended to wake a parked run; None for all."""

    @classmethod
    def of(
        cls,
        work: Sequence[Order | Job | str],
        timeout: float | None,
        credentials: IvcapCredentialsLike,
        follow: bool,
        enough: int | None = None,
    ) -> _Asked:
        # Who wakes a parked run is in no flow, so the flow's credentials are noted as if they had been given.
        given = credentials_of("ivcap", credentials, attempt_at_hand())
        return cls({urn_of(each): each for each in work}, timeout, given, follow, enough)

    @property
    def orders(self) -> list[Any]:
        return [each for each in self.work.values() if not _is_job(each)]

    @property
    def jobs(self) -> list[Any]:
        return [each for each in self.work.values() if _is_job(each)]

    async def waits(self, call: IvcapCall) -> list[Wait]:
        """Return what to wait for, each with its service; a job can only be read by its service."""
        found = []
        for urn, each in self.work.items():
            service = each.service if isinstance(each, Order | Job) else ""
            if _is_job(each) and not service:
                service = await call.client.jobs.service_of(urn)
            found.append(wait_of(each, "job" if _is_job(each) else "order", service))
        return found


@noticing
async def _wait(asked: _Asked, own: OwnRun | Obstacle) -> State[Any] | float:
    """Wait, and try to park after a while.

    Returns the state to leave the process with, or the monotonic time until which the wait in the process may last.
    """
    patience = Patience.of(asked.work, asked.timeout)
    if planning() is not None or not asked.work:
        return patience.until
    call, waits = await _asking(asked, patience)
    async with following(call, waits, asked=asked.follow):
        stay = await _Stay.begin(call, waits, patience)
        left = await _parked(stay, asked, own)
    if left is not None:
        return left
    if not stay.is_over and stay.left <= 0:
        raise stay.time_out(asked.timeout)
    return _to_read(stay.until) if stay.is_over else stay.until


@noticing
async def _wait_for_some(asked: _Asked, own: OwnRun | Obstacle) -> State[Any] | set[str]:
    """Wait, and try to park after a while. Return the state to leave the process with, or the URNs that are pending."""
    patience = Patience.of(asked.work, asked.timeout)
    call, waits = await _asking(asked, patience)
    if not asked.enough:
        return await pending_of(call, waits, timeout=0)
    async with following(call, waits, asked=asked.follow), progress_of(f"{waits[0].noun}s", asked.work) as told:
        stay = await _Stay.begin(call, waits, patience, asked.enough, told)
        left = await _parked(stay, asked, own)
        if left is None and not stay.is_over:
            await stay.look(stay.left)
    if left is not None:
        return left
    if not stay.is_over:
        raise stay.time_out(asked.timeout)
    return stay.pending


async def _asking(asked: _Asked, patience: Patience) -> tuple[IvcapCall, list[Wait]]:
    call = await patience.read(lambda: IvcapCall.of(asked.credentials))
    call.check(list(asked.work.values()))
    return call, await patience.read(lambda: asked.waits(call))


async def _parked(stay: _Stay, asked: _Asked, own: OwnRun | Obstacle) -> State[Any] | None:
    """Park as soon as nothing hinders it. Return None if that will not be before the end of the wait."""
    while not stay.is_over and stay.left > SHORTEST:
        hindered: Obstacle
        if isinstance(own, Obstacle):
            hindered = own
        elif isinstance(again := await alone(own.judge), Obstacle):
            hindered = again
        else:
            left = await stay.park(own, asked, again)
            if isinstance(left, State):
                return left
            hindered = left
        stay.tell(hindered)
        if not hindered.passing:
            break
        await stay.look(min(AGAIN, stay.left))
    return None


@dataclass
class _Stay:
    """The time that one call spends in this process."""

    call: IvcapCall
    waits: list[Wait]
    began_at: datetime
    until: float
    """The end of the caller's timeout, by this process's monotonic clock."""
    enough: int | None = None
    """How much must have ended to wake the run, if it parks; None for all."""
    told: Callable[[Mapping[str, Any]], None] | None = None
    """Shows how the work stands, where no task that waits for it does."""
    pending: set[str] = field(default_factory=set)

    @classmethod
    async def begin(
        cls,
        call: IvcapCall,
        waits: list[Wait],
        patience: Patience,
        enough: int | None = None,
        told: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> _Stay:
        """Wait for the time before parking; a run that has woken, for a moment, even if its timeout has passed."""
        park_after = max(LEAST, Settings.current().park_after)
        assert call.attempt is not None
        journal, run_id = call.journal, call.attempt.run.id
        urns = {wait.urn for wait in waits}
        try:
            now = await journal.ask(journal.now)
            attempts = await journal.ask(journal.runs.attempts, run_id)
        except JournalError as error:
            logger.warning("The earlier rounds of this wait cannot be read; its time counts from now: %s", error)
            now, attempts = datetime.now(timezone.utc), []
        began_at = now - timedelta(seconds=time.monotonic() - patience.began)
        stay = cls(call, waits, began_at, patience.until, enough, told)
        woken = any(each.park is not None and each.park.urns <= urns for each in attempts)
        await stay.look(min(WOKEN if woken else park_after, patience.left))
        # A shorter wait never parks, so the rounds are of another wait for the same work.
        if stay.pending and patience.timeout > park_after + SHORTEST:
            stay._go_on(attempts)
        return stay

    def _go_on(self, attempts: Sequence[AttemptRow]) -> None:
        """Count the time from the first round of this wait.

        Its rounds are those that waited for all that is pending now, since the flow failed and since another wait for
        the same work was over. In another journal they are missing; then the time only counts from now.
        """
        assert self.call.attempt is not None
        attempt, leading = self.call.attempt.attempt, [each for each in attempts if each.leads]
        failed = max((each.number for each in leading if each.outcome == "failed"), default=0)
        all_of_it = {wait.urn for wait in self.waits}
        parks = [each.park for each in leading if each.number > failed and each.park is not None]
        rounds = [park for park in parks if self.pending <= park.urns <= all_of_it]
        began = [park.began_at for park in rounds if (attempt.id, park.began_at) not in _timed_out]
        if began:
            self.until -= (self.began_at - min(began)).total_seconds()
            self.began_at = min(began)

    async def look(self, seconds: float) -> None:
        """Wait so long at most. In the process, the first end is enough for who does not wait for all."""
        enough = None if self.enough is None else 1
        self.pending = await pending_of(self.call, self.waits, timeout=seconds, enough=enough, told=self.told)

    @property
    def is_over(self) -> bool:
        """Whether enough has ended."""
        return not self.pending if self.enough is None else len(self.pending) < len(self.waits)

    def time_out(self, timeout: float | None) -> WaitTimeoutError:
        """Return the error to raise. A later wait of this attempt for the same work has its own time."""
        assert self.call.attempt is not None
        _timed_out.append((self.call.attempt.attempt.id, self.began_at))
        late = [wait for wait in self.waits if wait.urn in self.pending]
        return WaitTimeoutError(
            f"{len(late)} of {len(self.waits)} orders and jobs not finished after {timeout:g} s: "
            f"{in_words(late)}. They continue on the platform; call again to wait longer.",
            pending=[wait.urn for wait in late],
        )

    @property
    def left(self) -> float:
        """Seconds until the caller's timeout."""
        return self.until - time.monotonic()

    async def park(self, own: OwnRun, asked: _Asked, again: Sequence[str]) -> State[Any] | Obstacle:
        """Park the run for a while, after its facts are written. The log names what runs `again`.

        Returns the state to leave the process with, or the obstacle because of which the run stays.
        """
        assert self.call.attempt is not None
        opened, journal = self.call.attempt, self.call.journal
        waits = [wait for wait in self.waits if wait.urn in self.pending]
        try:
            if not await alone(recorder().flush, _FLUSH):
                return Obstacle("the run's facts are still being written to the journal", passing=True)
            now = await journal.ask(journal.now)
            # A journal may store the name of a block, but not the credentials themselves.
            asks = self.call.platform, self.call.account, block_name(asked.credentials)
            watched = await journal.ask(journal.leases.held, watcher_of(*asks))
            seconds = min(self.left, rest([self._age(wait, asked, now) for wait in waits], watched=watched))
            prefect_now = await alone(own.now)
            if isinstance(prefect_now, Obstacle):
                return prefect_now
            wake_at = prefect_now + timedelta(seconds=seconds)
            attempts = await journal.ask(journal.runs.attempts, opened.run.id)
            number = 1 + sum(each.park is not None for each in attempts if each.id != opened.attempt.id)
            enough = None if self.enough is None else min(self.enough, len(waits))
            park = Park(number, *asks, tuple(waits), self.began_at, wake_at, enough)
            await journal.ask(journal.parks.note, opened.attempt.id, park)
        except JournalError as error:
            return Obstacle(f"the journal cannot record that the run parks: {error}", passing=True)
        what = in_words(waits) if enough is None else f"{enough} of {in_words(waits)}"
        cause = f"Parked: waits for {what}; wakes at {wake_at:%Y-%m-%d %H:%M:%S} UTC (round {park.round})."
        if again:
            cause += f" When it wakes, {some_of(again)} {'runs' if len(again) == 1 else 'run'} again."
        left = await alone(own.park, wake_at, cause)
        try:
            if isinstance(left, Obstacle):
                await journal.ask(journal.parks.note, opened.attempt.id, None)
            else:
                # If the worker was killed, its console is gone and logging exits. The run has left anyway.
                with contextlib.suppress(SystemExit):
                    logger.info(cause)
                await alone(close_attempt, opened, "parked", cause)
        except JournalError as error:
            # This process can do nothing more for the run. The next attempt records how this one ended.
            logger.warning("Could not record in the journal how this attempt ended; the next attempt does: %s", error)
        return left

    def _age(self, wait: Wait, asked: _Asked, now: datetime) -> float:
        work = asked.work[wait.urn]
        since = work.requested_at if isinstance(work, Order | Job) and work.requested_at else self.began_at
        return (now - since).total_seconds()

    def tell(self, obstacle: Obstacle) -> None:
        """Log once why the run waits in its process. One that is not deployed has no other place to wait in."""
        assert self.call.attempt is not None
        if self.call.attempt.run.deployment_id is None:
            return
        told = self.call.attempt.attempt.id, obstacle.passing
        if told not in _told_once:
            _told_once.append(told)
            logger.warning(
                "The run cannot park and waits in its process%s: %s.",
                " for now" if obstacle.passing else "",
                obstacle.reason,
            )
