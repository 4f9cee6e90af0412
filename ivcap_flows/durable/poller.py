"""Waiting for remote work: one poller per process and kind of work, and one poll leader among the processes that share
a journal.

The result of a wait is always read from the platform. A platform that cannot be reached does not end a wait; only the
caller's time-out does. Each wait logs once a minute what it is waiting for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from ivcap_flows.durable.poll_interval import SHORTEST, WorkDurations, interval
from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.durable.poll_strategy import PollStrategy, Source
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.durable.wording import counted, listed
from ivcap_flows.errors import NotFoundError, PlatformError, WaitTimeoutError
from ivcap_flows.handles import TERMINAL
from ivcap_flows.secrets import logger_of

__all__ = ["Poller"]

R = TypeVar("R")

STREAMS: Final = 4
"""Maximum number of works whose events are listened to. With more work, only lists and changes are read."""
TELLING: Final = 60.0
"""Seconds between two log lines about one wait."""
UNSAID: Final = 1.0
"""Seconds of a wait before the log names what it is for. A replayed or short one ends before."""

_LEAST: Final = 0.1
"""Minimum seconds between two rounds."""
_EXCHANGE: Final = 1.0
"""Seconds between two reads of the journal for what other processes wait for or have seen."""
OUT_OF_REACH: Final = 30.0
"""Seconds without an answer after which the leader lets another process ask: the platform may be there for that one."""
RENEWAL: Final = 5.0
"""Seconds after which the lead is renewed during a round."""
_LOOKS: Final = 0.5
"""Share of the rate limiter's requests for rounds; the rest is for reading records of ended work."""
_AT_ONCE: Final = 8
"""Maximum number of records of ended work to read at once."""
_UNREAD: Final = "unread"
"""Status of work whose state is not known: the processes that wait for it read its record."""

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
    """Work that other processes wait for: the status in all their rows, and the status that this process saw."""

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


def _called(urns: Iterable[str], names: Mapping[str, str]) -> str:
    return listed(names.get(urn, urn) for urn in urns)


class Poller(Generic[R]):
    """Waits for work of one kind until its status is terminal, and returns the records. Runs on the package's loop.

    A record that is not found counts as missing only after `visibility_delay` seconds, since a platform may show an
    accepted request late. Without `sharing`, this process asks the platform itself. `on_idle` is called when no wait is
    left.
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
        """Work that is reported to have ended, and since when, until its record confirms it."""
        self._tried: set[str] = set()
        self._reads: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._listeners: dict[str, asyncio.Task[None]] = {}
        self._telling: set[str] = set()
        """Work whose end the platform announces."""
        self._mute: set[str] = set()
        self._durations: dict[str, WorkDurations] = {}
        self._learned: dict[str, list[float]] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._round_ended = self._jitter = 0.0
        """When the last round ended, and which share of the longest pause to wait until the next one."""
        self._unreachable_since: float | None = None
        self._unanswered_since: float | None = None
        """The begin of the first of the last rounds in which the platform answered nothing."""
        self._trouble: str | None = None
        """This process's problem as last written for the other processes."""

    @property
    def watched(self) -> frozenset[str]:
        """The work that any wait is still waiting for."""
        return frozenset(self._watched)

    @property
    def rounds(self) -> int:
        """The number of rounds that this process has done."""
        return self._strategy.count

    async def wait(
        self,
        urns: Sequence[str],
        *,
        services: Mapping[str, str] | None = None,
        names: Mapping[str, str] | None = None,
        not_before: Mapping[str, float] | None = None,
        timeout: float | None = None,
        told: Callable[[Mapping[str, R | str]], None] | None = None,
    ) -> list[R]:
        """Wait until all have ended, and return their records in the order of `urns`.

        Raise WaitTimeoutError with the pending URNs after `timeout` seconds. `services` are the services of the work,
        if known, and `names` what it is called in the log, by default its URN. `not_before` gives monotonic times
        before which not to ask for some of it. `told` is called about once a second with the status of each, or its
        record once it has ended. A record that permanently cannot be read ends the wait with its error, even if others
        have not ended.
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
            await self._all(futures, names or {}, timeout, told)
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
        names: Mapping[str, str],
        timeout: float | None,
        told: Callable[[Mapping[str, R | str]], None] | None,
    ) -> None:
        """Wait until all are done, one has failed, or the time is up."""
        if not futures:
            return
        began = said = time.monotonic()
        named = False
        while True:
            left = None if timeout is None else timeout - (time.monotonic() - began)
            pause = min(TELLING, _EXCHANGE) if told else TELLING
            pause = pause if named else min(pause, UNSAID)
            rest = pause if left is None else max(0.0, min(pause, left))
            done, pending = await asyncio.wait(futures.values(), timeout=rest, return_when=asyncio.FIRST_EXCEPTION)
            for future in done:
                future.result()
            if told is not None:
                told(self._seen(futures))
            if not pending:
                return
            if not named:
                named = True
                logger.info("Waiting for %s: %s.", counted(len(futures), self._source.what), _called(futures, names))
            now = time.monotonic()
            if timeout is not None and now - began >= timeout:
                late = [urn for urn, future in futures.items() if not future.done()]
                raise WaitTimeoutError(
                    f"{len(late)} of {len(futures)} {self._source.what} not finished after {timeout:g} s "
                    f"({_called(late, names)}); they go on remotely, and waiting again continues.",
                    pending=late,
                )
            if now - said >= TELLING:
                said = now
                self._tell(futures, names, now - began)

    def _seen(self, futures: Mapping[str, asyncio.Future[R]]) -> dict[str, R | str]:
        return {urn: future.result() if future.done() else self._status_of(urn) for urn, future in futures.items()}

    def _tell(self, futures: Mapping[str, asyncio.Future[R]], names: Mapping[str, str], waited: float) -> None:
        by_status: dict[str, list[str]] = {}
        for urn, each in self._seen(futures).items():
            by_status.setdefault(each if isinstance(each, str) else self._source.status(each), []).append(urn)
        told = ", ".join(
            f"{len(urns)} {status}" + ("" if status in TERMINAL else f" ({_called(urns, names)})")
            for status, urns in sorted(by_status.items())
        )
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
            except Exception as error:  # noqa: BLE001 - a wait must not hang because of a fault in the poller
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
                    self._others, self._trouble, self._unanswered_since = {}, None, None
                try:
                    if due:
                        await self._meanwhile_reading_ends(self._look() if leads else self._follow())
                        self._listen(leads=leads)
                finally:
                    # A list that never answers must not keep the records of other work unread.
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
                self._let_others_lead()
            if due:
                self._round_ended, self._jitter = time.monotonic(), random.random()  # noqa: S311 - spreads load, no secret
            due = await self._rest(leads=leads)

    async def _meanwhile_reading_ends(self, doing: Coroutine[Any, Any, None]) -> None:
        """Run a round, which may take long. Meanwhile renew the lead, and read the records of ended work."""
        task, renewed = asyncio.get_running_loop().create_task(doing), time.monotonic()
        try:
            while not task.done():
                self._stirred.clear()
                stirred = asyncio.ensure_future(self._stirred.wait())
                try:
                    await asyncio.wait({task, stirred}, timeout=RENEWAL, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stirred.cancel()
                if self._sharing is not None and time.monotonic() - renewed >= RENEWAL and not task.done():
                    await self._sharing.lead()
                    renewed = time.monotonic()
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
        if not targets:
            return
        try:
            await self._strategy.look(targets)
        finally:
            if self._strategy.answered:
                self._unanswered_since = None
            elif self._unanswered_since is None:
                self._unanswered_since = now

    def _let_others_lead(self) -> None:
        """Pass the lead on if the platform has answered nothing for long, and any other process waits."""
        since = self._unanswered_since
        if self._sharing is None or not self._others or since is None or time.monotonic() - since < OUT_OF_REACH:
            return
        logger.warning("Another process asks the platform from now on, since it does not answer this one.")
        self._sharing.pass_on()

    async def _hear_of_others(self) -> None:
        found = None if self._sharing is None else await self._sharing.others()
        if found is None:
            return
        known, now = self._others, time.monotonic()
        self._others = {urn: known.get(urn) or _Other(watch.service, now) for urn, watch in found.items()}
        for urn, watch in found.items():
            self._others[urn].told = watch.status

    async def _report(self) -> None:
        """Write new statuses for the other processes. What cannot be written now is written the next time."""
        trouble = None if self._unreachable_since is None else "the platform does not answer"
        news = {urn: other.seen for urn, other in self._others.items() if other.seen is not None and other.untold}
        if self._sharing is None or not self._others or not (news or trouble != self._trouble):
            return
        if await self._sharing.report(news, trouble):
            self._trouble = trouble
            for urn, status in news.items():
                self._others[urn].told = status

    async def _follow(self) -> None:
        """Read what the poll leader has seen."""
        if self._sharing is None:
            return
        now = time.monotonic()
        # The leader does not get work before the time at which the platform wants to be asked for it.
        wanted = {urn: watch.service for urn, watch in self._watched.items() if watch.not_before <= now}
        statuses, trouble = await self._sharing.news(wanted)
        for urn, status in statuses.items():
            self._note(urn, status)
        if trouble is None:
            self._reached()
        else:
            self._out_of_reach(f"{trouble}, says the process that asks for all.".capitalize())

    async def _rest(self, *, leads: bool) -> bool:
        """Pause for as long as the work allows. Return whether a round is due then, or only ended work is to be read.

        A new wait may shorten the pause, since its work is younger; a wait of another process does so within seconds.
        """
        floor = self._strategy.used / (_LOOKS * self._rate_limiter.rate) if leads else _LEAST
        exchanged = time.monotonic()
        while self._watched:
            self._stirred.clear()
            now = time.monotonic()
            left = self._round_ended + max(_LEAST, floor, self._jitter * self._interval(now)) - now
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
        """Return the longest pause that all of the work allows."""
        longest = [interval(now - told) for told in self._ending.values()]
        longest += [
            interval(now - watch.since, surely=self._surely(watch.service), told=urn in self._telling)
            for urn, watch in self._watched.items()
        ]
        longest += [interval(now - other.since) for other in self._others.values()]
        return min(longest, default=SHORTEST)

    def _first_asking(self) -> float:
        """Return the time before which not to ask for any work, as the platform requested."""
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
        """Listen to the events of the work, as a hint to look early. With much work, the changes do that instead."""
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
        except Exception as error:  # noqa: BLE001 - a missing hint must not end a wait
            logger.debug("The events of %s cannot be heard: %s", urn, error)
            heard = False
        finally:
            self._telling.discard(urn)
            if not heard:
                self._mute.add(urn)

    async def _read_ends(self) -> None:
        """Read the records of work that is reported to have ended; one read is enough if the report is true.

        A read that takes long, because the server replies with errors, continues in the background.
        """
        for urn in self._ending.keys() - self._reads.keys():
            self._reads[urn] = asyncio.get_running_loop().create_task(self._read_end(urn))
        if self._reads:
            await asyncio.wait(self._reads.values(), timeout=RENEWAL)
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
        """Read one record for a round, whichever process waits for it, and return its status."""
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
        except Exception as error:  # noqa: BLE001 - a fault in the record of another process must not end own waits
            logger.debug("The record of %s cannot be read: %s", urn, error)
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
        except Exception as error:
            # Such as that of a malformed URN: it must not end other waits.
            if isinstance(error, PlatformError) and error.retryable:
                raise
            self._fail([urn], error)
            return None
        status = self._source.status(record)
        if status not in TERMINAL:
            # The record may lag behind a list or a change. Then it is read again.
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
        """Stop watching a work. Return the futures that are still waiting for it."""
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
            logger.warning("Still waiting for %s: %s", counted(len(self._watched), self._source.what), why)

    def _reached(self) -> None:
        if self._unreachable_since is not None:
            away = time.monotonic() - self._unreachable_since
            logger.warning("The platform answers again after %.0f s; waiting goes on.", away)
            self._unreachable_since = None
