"""Waiting for remote work: one poller for all that a process waits for on one list of a platform, and, among processes
that share a journal, one that asks for all.

Polling is the truth; a platform that cannot be reached is waited out, since only the caller's deadline ends a wait.
What each wait is waiting for is said once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from ivcap_flows.durable.poll_interval import SHORTEST, WorkDurations, interval
from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.durable.poll_strategy import PollStrategy, Source
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.errors import NotFoundError, PlatformError, WaitTimeoutError
from ivcap_flows.handles import TERMINAL
from ivcap_flows.secrets import logger_of

__all__ = ["Poller"]

R = TypeVar("R")

STREAMS: Final = 4
"""Up to so many are listened to where the platform tells of events; of more, only the lists are read."""
TELLING: Final = 60.0
"""Seconds between two lines about one wait."""

_LEAST: Final = 0.1
"""Seconds between two rounds at least."""
_EXCHANGE: Final = 1.0
"""Seconds between two looks into the journal for what other processes want or have seen."""
_RENEWAL: Final = 5.0
"""Seconds after which the lead is renewed while a round goes on."""
_LOOKS: Final = 0.5
"""The share of the budget that rounds may use up; the rest is for reading what has ended."""
_AT_ONCE: Final = 8
_UNREAD: Final = "unread"
"""Said of a record of which it is not known how it stands: whoever waits for it reads it."""

logger = logger_of("ivcap_flows.waiting")


@dataclass
class _Watch(Generic[R]):
    service: str
    since: float
    not_before: float
    """The monotonic time before which the platform does not want to be asked."""
    status: str = "unknown"
    futures: list[asyncio.Future[R]] = field(default_factory=list)


@dataclass
class _Other:
    """What other processes wait for: what all of them were told of its status, and what this process saw of it."""

    service: str
    since: float
    told: str | None = None
    seen: str | None = None

    @property
    def ended(self) -> bool:
        return self.told in TERMINAL or self.seen in TERMINAL

    @property
    def untold(self) -> bool:
        return self.seen is not None and self.seen != self.told


class Poller(Generic[R]):
    """Resolves records once their status is terminal. Lives on the package's loop.

    A record that is not found within `visibility_delay` seconds of the first look is waited for: a platform shows an
    accepted request late. Without a `sharing` nothing is shared with other processes. `on_idle` is called when nothing
    is waited for any more.
    """

    def __init__(
        self,
        source: Source[R],
        *,
        rate_limiter: RateLimiter,
        visibility_delay: float,
        sharing: PollSharing | None = None,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._source, self._rate_limiter, self._visibility_delay, self._sharing = (
            source,
            rate_limiter,
            visibility_delay,
            sharing,
        )
        self._on_idle = on_idle
        self._strategy = PollStrategy(source, rate_limiter, self._note, self._read_target)
        self._watched: dict[str, _Watch[R]] = {}
        self._others: dict[str, _Other] = {}
        self._ending: dict[str, float] = {}
        """What is said to have ended, and since when, until its record says so."""
        self._tried: set[str] = set()
        self._reads: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._listeners: dict[str, asyncio.Task[None]] = {}
        self._telling: set[str] = set()
        """Those whose end the platform tells by itself."""
        self._mute: set[str] = set()
        self._durations: dict[str, WorkDurations] = {}
        self._learned: dict[str, list[float]] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._unreachable_since: float | None = None
        self._trouble: str | None = None
        """What the others were told that hinders this process from seeing."""

    @property
    def watched(self) -> frozenset[str]:
        """What any wait is still waiting for."""
        return frozenset(self._watched)

    @property
    def rounds(self) -> int:
        """How often this process has asked the platform."""
        return self._strategy.count

    async def wait(
        self,
        urns: Sequence[str],
        *,
        services: Mapping[str, str] | None = None,
        not_before: Mapping[str, float] | None = None,
        timeout: float | None = None,
        told: Callable[[Mapping[str, R | str]], None] | None = None,
    ) -> list[R]:
        """The terminal records in the order of `urns`; after `timeout` seconds a WaitTimeoutError names the pending.

        `services` are those of the work, where known; `not_before` the monotonic times before which some of it is not
        to be asked after; `told` hears now and then the status of each, or its record once it has ended. A record that
        cannot be read for good ends the wait with its error, whatever the others do.
        """
        loop = asyncio.get_running_loop()
        services, not_before = services or {}, not_before or {}
        futures: dict[str, asyncio.Future[R]] = {}
        now = time.monotonic()
        for urn in dict.fromkeys(urns):
            futures[urn] = loop.create_future()
            new = _Watch[R](services.get(urn, ""), now, not_before.get(urn, 0.0))
            self._watched.setdefault(urn, new).futures.append(futures[urn])
        self._stirred.set()
        if futures and (self._ticker is None or self._ticker.done()):
            self._ticker = loop.create_task(self._run())
        try:
            await self._all(futures, timeout, told)
            return [futures[urn].result() for urn in urns]
        finally:
            for urn, future in futures.items():
                if future.done() and not future.cancelled():
                    future.exception()  # several may have failed; one is raised
                future.cancel()
                watch = self._watched.get(urn)
                if watch and all(f.done() for f in watch.futures):
                    self._take(urn)
            self._stirred.set()

    async def _all(
        self,
        futures: Mapping[str, asyncio.Future[R]],
        timeout: float | None,
        told: Callable[[Mapping[str, R | str]], None] | None,
    ) -> None:
        """Until all are done, one has failed, or the time is up."""
        if not futures:
            return
        logger.info("Waiting for %d %s.", len(futures), self._source.what)
        began = said = time.monotonic()
        while True:
            left = None if timeout is None else timeout - (time.monotonic() - began)
            pause = min(TELLING, _EXCHANGE) if told else TELLING
            rest = pause if left is None else max(0.0, min(pause, left))
            done, pending = await asyncio.wait(futures.values(), timeout=rest, return_when=asyncio.FIRST_EXCEPTION)
            for future in done:
                future.result()
            if told is not None:
                told(self._seen(futures))
            if not pending:
                return
            now = time.monotonic()
            if timeout is not None and now - began >= timeout:
                late = [urn for urn, future in futures.items() if not future.done()]
                raise WaitTimeoutError(
                    f"{len(late)} of {len(futures)} {self._source.what} not finished after {timeout:g} s; "
                    "they go on remotely, and waiting again continues.",
                    pending=late,
                )
            if now - said >= TELLING:
                said = now
                self._tell(futures, now - began)

    def _seen(self, futures: Mapping[str, asyncio.Future[R]]) -> dict[str, R | str]:
        return {urn: future.result() if future.done() else self._status_of(urn) for urn, future in futures.items()}

    def _tell(self, futures: Mapping[str, asyncio.Future[R]], waited: float) -> None:
        seen = self._seen(futures).values()
        counts = Counter(each if isinstance(each, str) else self._source.status(each) for each in seen)
        told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        logger.info("Still waiting for %s after %.0f s: %s.", self._source.what, waited, told)

    def _status_of(self, urn: str) -> str:
        watch = self._watched.get(urn)
        return watch.status if watch else "unknown"

    async def _run(self) -> None:
        while self._watched:
            try:
                try:
                    await self._tick()
                finally:
                    for task in (*self._listeners.values(), *self._reads.values()):
                        task.cancel()
                    self._reads.clear()
                    if self._sharing is not None:
                        await self._sharing.leave()
            except Exception as error:  # noqa: BLE001 - a waiter must not hang on a fault of the poller's own
                self._fail(list(self._watched), error)
        self._on_idle()

    async def _tick(self) -> None:
        due = True
        while self._watched:
            leads = True
            try:
                await self._know_durations()
                leads = self._sharing is None or await self._sharing.lead()
                if not leads:
                    self._others, self._trouble = {}, None
                if due:
                    await self._meanwhile_reading_ends(self._look() if leads else self._follow())
                    self._listen(leads=leads)
                await self._read_ends()
                if leads:
                    self._reached()
            except PlatformError as error:
                if error.retryable:
                    self._out_of_reach(error.message)
                else:
                    self._fail(list(self._watched), error)
            if leads:
                await self._report()
            due = await self._rest(leads=leads)

    async def _meanwhile_reading_ends(self, doing: Coroutine[Any, Any, None]) -> None:
        """A round may take long; beside it the lead is kept, and what is known to have ended is read."""
        task = asyncio.get_running_loop().create_task(doing)
        try:
            while not task.done():
                self._stirred.clear()
                stirred = asyncio.ensure_future(self._stirred.wait())
                try:
                    done, _ = await asyncio.wait({task, stirred}, timeout=_RENEWAL, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stirred.cancel()
                if not done and self._sharing is not None:
                    await self._sharing.lead()
                if self._untried():
                    await self._read_ends()
            await task
        finally:
            task.cancel()

    def _untried(self) -> bool:
        return any(urn not in self._tried for urn in self._ending)

    async def _look(self) -> None:
        """Ask the platform for all that any process waits for."""
        await self._hear_of_others()
        now = time.monotonic()
        targets = {
            urn: watch.service
            for urn, watch in self._watched.items()
            if watch.not_before <= now and urn not in self._reads
        }
        for urn, other in self._others.items():
            if not other.ended:
                targets.setdefault(urn, other.service)
        if targets:
            await self._strategy.look(targets)

    async def _hear_of_others(self) -> None:
        found = None if self._sharing is None else await self._sharing.others()
        if found is None:
            return
        known, now = self._others, time.monotonic()
        self._others = {urn: known.get(urn) or _Other(watch.service, now) for urn, watch in found.items()}
        for urn, watch in found.items():
            self._others[urn].told = watch.status

    async def _report(self) -> None:
        """Tell the others what they were not told; what cannot be told now is told the next time."""
        trouble = None if self._unreachable_since is None else "the platform does not answer"
        news = {urn: other.seen for urn, other in self._others.items() if other.seen is not None and other.untold}
        if self._sharing is None or not self._others or not (news or trouble != self._trouble):
            return
        if await self._sharing.report(news, trouble):
            self._trouble = trouble
            for urn, status in news.items():
                self._others[urn].told = status

    async def _follow(self) -> None:
        """Hear what the process has seen that asks for all."""
        if self._sharing is None:
            return
        now = time.monotonic()
        # Who asks for all is told of no work before the platform wants to be asked after it.
        wanted = {urn: watch.service for urn, watch in self._watched.items() if watch.not_before <= now}
        statuses, trouble = await self._sharing.news(wanted)
        for urn, status in statuses.items():
            self._note(urn, status)
        if trouble is None:
            self._reached()
        else:
            self._out_of_reach(f"{trouble}, says the process that asks for all.".capitalize())

    async def _rest(self, *, leads: bool) -> bool:
        """Rest for as long as the work allows. Whether a round is due then, or only ends are to be read.

        A wait that joins meanwhile may bring younger work; one of another process does within seconds.
        """
        began, jitter = time.monotonic(), random.random()  # noqa: S311 - spreads load, no secret
        floor = self._strategy.used / (_LOOKS * self._rate_limiter.rate) if leads else _LEAST
        exchanged = began
        while self._watched:
            self._stirred.clear()
            now = time.monotonic()
            left = began + max(_LEAST, floor, jitter * self._interval(now)) - now
            left = max(left, self._first_asking() - now)
            if left <= 0:
                return True
            if self._untried():
                return False
            if self._sharing is not None:
                left = min(left, exchanged + _EXCHANGE - now)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), max(0.0, left))
            if self._sharing is not None and time.monotonic() - exchanged >= _EXCHANGE:
                exchanged = time.monotonic()
                if await self._sharing.lead() != leads:
                    return True
                if leads:
                    await self._hear_of_others()
                else:
                    await self._follow()
            if leads:
                await self._report()
        return True

    def _interval(self, now: float) -> float:
        """The longest rest that all of the work allows."""
        longest = [interval(now - told) for told in self._ending.values()]
        longest += [
            interval(now - watch.since, surely=self._surely(watch.service), told=urn in self._telling)
            for urn, watch in self._watched.items()
        ]
        longest += [interval(now - other.since) for other in self._others.values()]
        return min(longest, default=SHORTEST)

    def _first_asking(self) -> float:
        """The time before which the platform wants to be asked about nothing; the server's word is first."""
        return 0.0 if self._others else min((watch.not_before for watch in self._watched.values()), default=0.0)

    def _surely(self, service: str) -> float:
        durations = self._durations.get(service)
        return durations.surely if durations else 0.0

    async def _know_durations(self) -> None:
        for service in {watch.service for watch in self._watched.values()} - self._durations.keys():
            self._durations[service] = WorkDurations(
                () if self._sharing is None else await self._sharing.durations(service)
            )

    def _listen(self, *, leads: bool) -> None:
        """Listen to the events of few, as a hint to look early; of many the changes tell."""
        services = {urn: watch.service for urn, watch in self._watched.items()}
        services |= {urn: each.service for urn, each in self._others.items() if not each.ended}
        if not leads or not self._source.tells_events or len(services) > STREAMS:
            services = {}
        for urn in [urn for urn in self._listeners if urn not in services]:
            self._listeners.pop(urn).cancel()
        for urn, service in services.items():
            running = self._listeners.get(urn)
            if (running is None or running.done()) and urn not in self._mute and self._rate_limiter.take_now():
                self._listeners[urn] = asyncio.get_running_loop().create_task(self._listen_to(urn, service))
        self._mute.intersection_update(services)

    async def _listen_to(self, urn: str, service: str) -> None:
        heard = False
        try:
            async with contextlib.aclosing(self._source.hints(urn, service)) as hints:
                async for ended in hints:
                    heard = True
                    self._telling.add(urn)
                    if ended:
                        self._note(urn, _UNREAD)
                        self._stirred.set()
        except Exception as error:  # noqa: BLE001 - a hint that does not come fails no wait
            logger.debug("The events of %s cannot be heard: %s", urn, error)
            heard = False
        finally:
            self._telling.discard(urn)
            if not heard:
                self._mute.add(urn)

    async def _read_ends(self) -> None:
        """Read the records of what is said to have ended, each once if it is true.

        A read that is tried for long, since its reply is an error of the server's, goes on beside what comes next.
        """
        for urn in self._ending.keys() - self._reads.keys():
            self._reads[urn] = asyncio.get_running_loop().create_task(self._read_end(urn))
        if self._reads:
            await asyncio.wait(self._reads.values(), timeout=_RENEWAL)
        over = [self._reads.pop(urn) for urn, reading in list(self._reads.items()) if reading.done()]
        if self._learned and self._sharing is not None:
            learned, self._learned = self._learned, {}
            await self._sharing.learn(learned)
        for error in [reading.exception() for reading in over]:
            if error is not None:
                raise error

    async def _read_end(self, urn: str) -> None:
        async with self._turns:
            await self._rate_limiter.take()
            self._tried.add(urn)
            await self._read_one(urn)

    async def _read_target(self, urn: str) -> str | None:
        """The status of one that the round wants to be read, for whichever process."""
        if urn in self._watched:
            return await self._read_one(urn)
        other = self._others.get(urn)
        if other is None:
            return None
        try:
            status = self._source.status(await self._source.read(urn, other.service))
        except PlatformError as error:
            if error.retryable:
                raise
            if not isinstance(error, NotFoundError) or time.monotonic() - other.since > self._visibility_delay:
                self._note(urn, _UNREAD)
            return None
        self._note(urn, status)
        return status

    async def _read_one(self, urn: str) -> str | None:
        watch = self._watched.get(urn)
        if watch is None:
            return None
        try:
            record = await self._source.read(urn, watch.service)
        except NotFoundError as error:
            if time.monotonic() - watch.since > self._visibility_delay:
                self._fail([urn], error)
            return None
        except PlatformError as error:
            if error.retryable:
                raise
            self._fail([urn], error)
            return None
        status = self._source.status(record)
        if status not in TERMINAL:
            # A record may lag behind what was told of it, and then is read again.
            watch.status = status
            return status
        self._note(urn, status)
        took = self._source.took(record)
        if took is not None:
            service, seconds = took
            self._durations.setdefault(service, WorkDurations()).learn(seconds)
            self._learned.setdefault(service, []).append(seconds)
        for future in self._take(urn):
            future.set_result(record)
        return status

    def _note(self, urn: str, status: str) -> None:
        watch = self._watched.get(urn)
        if watch is not None:
            if status in TERMINAL or status == _UNREAD:
                self._ending.setdefault(urn, time.monotonic())
                self._stirred.set()
            else:
                watch.status = status
        other = self._others.get(urn)
        if other is not None and other.seen not in TERMINAL:
            other.seen = status

    def _take(self, urn: str) -> list[asyncio.Future[R]]:
        """Stop watching; the futures that still want an answer."""
        watch = self._watched.pop(urn, None)
        self._ending.pop(urn, None)
        for known in (self._telling, self._mute, self._tried):
            known.discard(urn)
        if urn in self._listeners:
            self._listeners.pop(urn).cancel()
        return [future for future in watch.futures if not future.done()] if watch else []

    def _fail(self, urns: list[str], error: BaseException) -> None:
        for urn in urns:
            for future in self._take(urn):
                future.set_exception(error)

    def _out_of_reach(self, why: str) -> None:
        if self._unreachable_since is None:
            self._unreachable_since = time.monotonic()
            logger.warning("Still waiting for %d %s: %s", len(self._watched), self._source.what, why)

    def _reached(self) -> None:
        if self._unreachable_since is not None:
            away = time.monotonic() - self._unreachable_since
            logger.warning("The platform answers again after %.0f s; waiting goes on.", away)
            self._unreachable_since = None
