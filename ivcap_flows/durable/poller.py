"""Waiting for remote work: one poller per process and kind of work, which shares its rounds of requests with the
other processes that use its journal.

The result of a wait is always read from the platform. A platform that cannot be reached does not end a wait; only the
caller's time-out does. Each wait logs once a minute what it is waiting for.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from ivcap_flows.durable.poll_round import ROUND, PollRound, PollSource, crowded
from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.durable.wording import counted, listed
from ivcap_flows.errors import NotFoundError, PlatformError, WaitTimeoutError
from ivcap_flows.handles import TERMINAL
from ivcap_flows.http.pauses import retry_until
from ivcap_flows.plain_text import described
from ivcap_flows.secrets import logger_of

__all__ = ["LONGEST", "SHARE", "SHORTEST", "Poller", "interval"]

R = TypeVar("R")

TELLING: Final = 60.0
"""Seconds between two log lines about one wait."""
UNSAID: Final = 1.0
"""Seconds of a wait before the log names what it is for. A replayed or short one ends before."""
LOST: Final = 60.0
"""Seconds after which another round begins although the last one has not ended: its process is suspended or gone."""

_EXCHANGE: Final = 1.0
"""Seconds between two reads of the journal for what other processes wait for or have seen."""
_AFTER_FAILURE: Final = 5.0
"""Seconds after a round without an answer before this process begins another: the platform may be there for others."""
_AT_ONCE: Final = 8
"""Maximum number of records to read at once."""
_JITTER: Final = 0.2
"""Share of the interval that is random, so that processes that began together do not ask together."""

logger = logger_of("ivcap_flows.waiting")
SHORTEST: Final = 1.0
"""Lower limit of the interval between two looks, in seconds: for new work, which may end at any time."""
LONGEST: Final = 60.0
SHARE: Final = 0.05
"""The interval as a share of the work's age."""


@dataclass
class _Watch(Generic[R]):
    service: str
    since: float
    not_before: float
    """The monotonic time before which the platform does not want to be asked."""
    status: str = "unknown"
    futures: list[asyncio.Future[R]] = field(default_factory=list)
    read_at: float = -math.inf
    """When its record was last read."""
    ended_at: float | None = None
    """Since when it is known to have ended, until its record confirms it."""
    round_before: int | None = None
    """The round that was the last to begin when the wait began."""
    is_seen: bool = False
    """Whether the platform has said since the wait began how the work stands."""


def _called(urns: Iterable[str], names: Mapping[str, str]) -> str:
    return listed(names.get(urn, urn) for urn in urns)


class Poller(Generic[R]):
    """Waits for work of one kind until its status is terminal, and returns the records. Runs on the package's loop.

    A record that is not found counts as missing only after `visibility_delay` seconds, since a platform may show an
    accepted request late. `on_idle` is called when no wait is left.
    """

    def __init__(
        self,
        source: PollSource[R],
        *,
        rate_limiter: RateLimiter,
        visibility_delay: float,
        sharing: PollSharing,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._source, self._rate_limiter = source, rate_limiter
        self._visibility_delay, self._sharing, self._on_idle = visibility_delay, sharing, on_idle
        self._watched: dict[str, _Watch[R]] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._reads: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._round: asyncio.Task[None] | None = None
        self._begun = self._ended = 0
        """The rounds of the watchlist that this process has seen begin and end."""
        self._begun_at = self._ended_at = self._not_before = 0.0
        self._jitter = 1.0
        self._pages = 0
        """The number of requests of this process's last round."""
        self._log = _PollLog(source.what)
        self.rounds = 0
        """The number of rounds so far, of this process and of others for it."""

    @property
    def watched(self) -> frozenset[str]:
        """The work that any wait is still waiting for."""
        return frozenset(self._watched)

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

        Raise WaitTimeoutError with the pending URNs after `timeout` seconds, but not before each was looked at once:
        `timeout=0` asks whether it has ended. `services` are the services of the work,
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
                if await self._look_once(futures):
                    continue
                late = [urn for urn, future in futures.items() if not future.done()]
                raise WaitTimeoutError(
                    f"{len(late)} of {len(futures)} {self._source.what} have not ended within the timeout of the wait "
                    f"({_called(late, names)}); they go on remotely, and waiting again continues.",
                    pending=late,
                )
            if now - said >= TELLING:
                said = now
                self._tell(futures, names, now - began)

    async def _look_once(self, futures: Mapping[str, asyncio.Future[R]]) -> bool:
        """Read what no look has reached since the wait began, without repeating a read. Return whether some has ended.

        The reads that are under way may be repeated for minutes while the platform is away.
        """
        unseen = [urn for urn, future in futures.items() if not future.done() and not self._watched[urn].is_seen]
        before = retry_until.set(time.monotonic())
        try:
            await asyncio.gather(*map(self._read_record, unseen))
        finally:
            retry_until.reset(before)
        for urn in unseen:
            if urn in self._watched:
                self._watched[urn].is_seen = True
        return any(futures[urn].done() for urn in unseen)

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
                    while self._watched:
                        await self._tick()
                finally:
                    running = [*self._reads.values(), *([self._round] if self._round else [])]
                    for task in running:
                        task.cancel()
                    await asyncio.gather(*running, return_exceptions=True)
                    self._round = None
                    await self._sharing.stop()
            except Exception as error:  # noqa: BLE001 - a wait must not hang because of a fault in the poller
                self._fail(list(self._watched), error)
        self._on_idle()

    async def _tick(self) -> None:
        """Learn what others have seen, ask for what is due, and pause until something may be due again."""
        self._stirred.clear()
        now = time.monotonic()
        await self._sharing.exchange({u: w.service for u, w in self._watched.items() if w.not_before <= now})
        self._learn()
        await self._ask()
        for urn, watch in self._watched.items():
            since = watch.ended_at
            if since is not None and (watch.read_at <= since or self._rested(watch.read_at, since)):
                self._read(urn)
        left = self._due_at() - time.monotonic()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stirred.wait(), left if 0 < left < _EXCHANGE else _EXCHANGE)

    def _rested(self, read_at: float, since: float) -> bool:
        """Return whether a record may be read again that was read then: not each time that others ask for theirs."""
        now = time.monotonic()
        return now - read_at >= (1 - _JITTER) * interval(now - since)

    def _learn(self) -> None:
        """Take over what a round has seen, whichever process asked."""
        poll, now = self._sharing.poll, time.monotonic()
        if poll.begun != self._begun:
            self._begun, self._begun_at = poll.begun, now
        for watch in self._watched.values():
            if watch.round_before is None:
                watch.round_before = poll.begun
        if poll.ended == self._ended:
            return
        self._ended = poll.ended
        for urn, watch in self._watched.items():
            status = poll.wanted[urn].status if urn in poll.wanted else None
            watch.is_seen |= status is not None and watch.round_before is not None and poll.ended > watch.round_before
            if status in TERMINAL:
                self._hear_of_end(urn)
            elif status is not None:
                watch.status = status
        self._read_some()

    async def _ask(self) -> None:
        """Begin a round if it is due and no other process has begun one. Without a crowded list, read the records."""
        if self._round is not None and self._round.done():
            done, self._round = self._round, None
            done.result()
        now, poll = time.monotonic(), self._sharing.poll
        if self._round is not None or now < self._due_at():
            return
        if not crowded(self._source, poll.wanted):
            self._read_some()
            return
        free = not poll.asking or now - self._begun_at >= LOST
        if free and now >= self._not_before and await self._sharing.begin():
            self._round = asyncio.get_running_loop().create_task(self._look())

    def _due_at(self) -> float:
        """Return when the next round is due, or the first time at which the platform wants to be asked for anything."""
        now = time.monotonic()
        watches = [watch for watch in self._watched.values() if watch.ended_at is None]
        pause = min((interval(now - watch.since) for watch in watches), default=SHORTEST)
        return max(self._ended_at + self._jitter * pause, min((w.not_before for w in watches), default=0.0))

    async def _look(self) -> None:
        """Ask the platform for all that any process waits for."""
        poll, found = self._sharing.poll, PollRound(self._source, self._rate_limiter)
        try:
            await found.look(poll.wanted, poll.begun)
        finally:
            self._pages = found.pages
            await self._sharing.end(poll.begun, found.seen)
            self._stirred.set()
        for name, error in found.lists.items():
            if error is None or name in found.silent:
                self._log.answered(f"list {name}", error, len(self._watched))
            else:
                self._log.refused(name, error)
        if found.silent:
            self._not_before = time.monotonic() + _AFTER_FAILURE

    def _read_some(self) -> None:
        """Read the records of work that no page shows, the longest unread first. This ends a round."""
        self.rounds += 1
        now = self._ended_at = time.monotonic()
        self._jitter = 1 - _JITTER * random.random()  # noqa: S311 - spreads load, no secret
        wanted = self._sharing.poll.wanted
        lists = crowded(self._source, wanted)
        singly = []
        for urn, watch in self._watched.items():
            is_missed = self._source.list_of(watch.service) not in lists or (urn in wanted and wanted[urn].missed > 0)
            asks = watch.ended_at is None and watch.not_before <= now and self._rested(watch.read_at, watch.since)
            if is_missed and asks:
                singly.append((urn, watch))
        singly.sort(key=lambda each: each[1].read_at)
        for urn, _ in singly[: ROUND - self._pages]:
            self._read(urn)
        self._pages = 0

    def _read(self, urn: str) -> None:
        """Read a record in the background; a read that takes long, because the server errs, delays no other."""
        if urn not in self._reads:
            self._watched[urn].read_at = time.monotonic()
            self._reads[urn] = asyncio.get_running_loop().create_task(self._read_record(urn))

    async def _read_record(self, urn: str) -> None:
        try:
            async with self._turns:
                await self._rate_limiter.take()
                watch = self._watched[urn]
                watch.read_at = time.monotonic()
                record = await self._source.read(urn, watch.service)
            status = self._source.status(record)
        except NotFoundError as error:
            if time.monotonic() - watch.since > self._visibility_delay:
                self._fail([urn], error)
        except Exception as error:  # noqa: BLE001 - such as that of a malformed URN: it ends the waits for this work
            if isinstance(error, PlatformError) and error.retryable:
                self._log.answered(urn, error, len(self._watched))
            else:
                self._fail([urn], error)
        else:
            self._log.answered(urn, None, len(self._watched))
            watch.status, watch.is_seen = status, True
            if status in TERMINAL:
                for future in self._take(urn):
                    future.set_result(record)
        finally:
            if self._reads.get(urn) is asyncio.current_task():
                del self._reads[urn]

    def _hear_of_end(self, urn: str) -> None:
        watch = self._watched[urn]
        if watch.ended_at is None:
            watch.ended_at = time.monotonic()

    def _take(self, urn: str) -> list[asyncio.Future[R]]:
        """Stop watching a work. Return the futures that are still waiting for it."""
        watch, reading = self._watched.pop(urn, None), self._reads.pop(urn, None)
        if reading is not None and reading is not asyncio.current_task():
            reading.cancel()
        self._log.forget(urn)
        return [future for future in watch.futures if not future.done()] if watch else []

    def _fail(self, urns: list[str], error: BaseException) -> None:
        for urn in urns:
            for future in self._take(urn):
                future.set_exception(error)


def interval(age: float) -> float:
    """Return the seconds until the next look at work that is `age` seconds old."""
    return min(LONGEST, max(SHORTEST, SHARE * age))


class _PollLog:
    """The log of one poller. `what` is the plural noun of its work."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._silent: set[str] = set()
        """The lists and records that were asked for last without an answer."""
        self._silent_since = 0.0
        self._refused: set[str] = set()

    def answered(self, asked: str, failure: Exception | None, waits: int) -> None:
        """Note whether the platform answered, and log when it begins and when it ceases to be out of reach."""
        was = bool(self._silent)
        (self._silent.discard if failure is None else self._silent.add)(asked)
        if failure is not None and not was:
            self._silent_since = time.monotonic()
            logger.warning("Still waiting for %s: %s", counted(waits, self._what), failure)
        elif was and not self._silent:
            away = time.monotonic() - self._silent_since
            logger.warning("The platform answers again after %.0f s; waiting goes on.", away)

    def forget(self, asked: str) -> None:
        """Forget a record that is no longer asked for."""
        self._silent.discard(asked)

    def refused(self, name: str, error: Exception) -> None:
        """Log once for each list why it cannot be read. A fault of this package is shown with its traceback."""
        if name not in self._refused:
            self._refused.add(name)
            shown = None if isinstance(error, PlatformError) else error
            why = described(error)
            listed = f"list of {self._what} {name}".rstrip()
            logger.warning("The %s cannot be read, so the wait goes on without it. %s", listed, why, exc_info=shown)
