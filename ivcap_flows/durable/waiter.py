"""Waiting for remote work: one poller for all that a process waits for on one list of a platform.

It reads pages of the list, not one record per order, and asks more rarely the longer the work takes. Polling is the
truth; a platform that cannot be reached is waited out, since only the caller's deadline ends a wait. What each wait
is waiting for is said once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from ivcap_flows.errors import NotFoundError, PlatformError, WaitTimeoutError
from ivcap_flows.handles import TERMINAL

__all__ = ["Poller", "interval"]

R = TypeVar("R")

SHORTEST: Final = 0.5
"""Seconds between two looks at work that has just begun."""
LONGEST: Final = 60.0
SHARE: Final = 0.1
"""The interval as a share of the age of the youngest work: a wait ends at most a tenth late."""
SINGLE_READS: Final = 3
"""Up to so many are read one by one; more are looked for in the list first."""
TELLING: Final = 60.0
"""Seconds between two lines about one wait."""

logger = logging.getLogger("ivcap_flows.waiting")


def interval(age: float, *, jitter: float) -> float:
    """Seconds until the next look at work that is `age` seconds old; `jitter` in [0, 1) spreads many waiters."""
    return min(LONGEST, max(SHORTEST, SHARE * age)) * (0.75 + 0.5 * jitter)


@dataclass
class _Watch(Generic[R]):
    since: float
    status: str = "unknown"
    futures: list[asyncio.Future[R]] = field(default_factory=list)


class Poller(Generic[R]):
    """Resolves records once their status is terminal. Lives on the package's loop.

    `read(urn)` gives the whole record; `recent(urns)` yields (urn, status) of these and others, newest first, page by
    page; `status` takes a record. A record that is not found within `settle` seconds of the first look is waited for: a
    platform shows an accepted request late.
    """

    def __init__(
        self,
        *,
        what: str,
        read: Callable[[str], Awaitable[R]],
        recent: Callable[[Collection[str]], AsyncIterator[tuple[str, str]]],
        status: Callable[[R], str],
        settle: float,
    ) -> None:
        self._what, self._read, self._recent, self._status, self._settle = what, read, recent, status, settle
        self._watched: dict[str, _Watch[R]] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._joined = asyncio.Event()
        self._unreachable_since: float | None = None

    @property
    def watched(self) -> frozenset[str]:
        """What any wait is still waiting for."""
        return frozenset(self._watched)

    async def wait(self, urns: Sequence[str], *, timeout: float | None = None) -> list[R]:
        """The terminal records in the order of `urns`; after `timeout` seconds a WaitTimeoutError names the pending.

        A record that cannot be read for good ends the wait with its error, whatever the others do.
        """
        loop = asyncio.get_running_loop()
        futures: dict[str, asyncio.Future[R]] = {}
        for urn in dict.fromkeys(urns):
            futures[urn] = loop.create_future()
            self._watched.setdefault(urn, _Watch(time.monotonic())).futures.append(futures[urn])
        self._joined.set()
        if futures and (self._ticker is None or self._ticker.done()):
            self._ticker = loop.create_task(self._tick())
        try:
            await self._all(futures, timeout)
            return [futures[urn].result() for urn in urns]
        finally:
            for urn, future in futures.items():
                if future.done() and not future.cancelled():
                    future.exception()  # several may have failed; one is raised
                future.cancel()
                watch = self._watched.get(urn)
                if watch and all(f.done() for f in watch.futures):
                    del self._watched[urn]

    async def _all(self, futures: Mapping[str, asyncio.Future[R]], timeout: float | None) -> None:
        """Until all are done, one has failed, or the time is up."""
        if not futures:
            return
        logger.info("Waiting for %d %s.", len(futures), self._what)
        began = time.monotonic()
        while True:
            left = None if timeout is None else timeout - (time.monotonic() - began)
            rest = TELLING if left is None else max(0.0, min(TELLING, left))
            done, pending = await asyncio.wait(futures.values(), timeout=rest, return_when=asyncio.FIRST_EXCEPTION)
            for future in done:
                future.result()
            if not pending:
                return
            if timeout is not None and time.monotonic() - began >= timeout:
                late = [urn for urn, future in futures.items() if not future.done()]
                raise WaitTimeoutError(
                    f"{len(late)} of {len(futures)} {self._what} not finished after {timeout:g} s; "
                    "they go on remotely, and waiting again continues.",
                    pending=late,
                )
            self._tell(futures, time.monotonic() - began)

    def _tell(self, futures: Mapping[str, asyncio.Future[R]], waited: float) -> None:
        counts = Counter(
            self._status(future.result()) if future.done() else self._status_of(urn) for urn, future in futures.items()
        )
        told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        logger.info("Still waiting for %s after %.0f s: %s.", self._what, waited, told)

    def _status_of(self, urn: str) -> str:
        watch = self._watched.get(urn)
        return watch.status if watch else "unknown"

    async def _tick(self) -> None:
        while self._watched:
            try:
                await self._look()
                self._reached()
            except PlatformError as error:
                if error.retryable:
                    self._out_of_reach(error)
                else:
                    self._fail(list(self._watched), error)
            except Exception as error:  # noqa: BLE001 - a waiter must not hang on a fault of the poller's own
                self._fail(list(self._watched), error)
            await self._rest()

    async def _rest(self) -> None:
        """Rest for as long as the youngest work allows; a wait that joins meanwhile may bring younger work."""
        began, jitter = time.monotonic(), random.random()  # noqa: S311 - spreads load, no secret
        while self._watched:
            age = max(0.0, began - max(watch.since for watch in self._watched.values()))
            left = began + interval(age, jitter=jitter) - time.monotonic()
            if left <= 0:
                return
            self._joined.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._joined.wait(), left)

    async def _look(self) -> None:
        """One round: the list for many, then the records of those that are terminal or were not in it."""
        to_read = list(self._watched)
        if len(to_read) > SINGLE_READS:
            unseen, finished = set(to_read), []
            async for urn, status in self._recent(to_read):
                if urn in unseen:
                    unseen.discard(urn)
                    self._note(urn, status)
                    if status in TERMINAL:
                        finished.append(urn)
                if not unseen:
                    break
            to_read = [*finished, *unseen]
        failures: list[PlatformError] = []
        for urn in to_read:
            try:
                await self._read_one(urn)
            except PlatformError as error:
                # A record that cannot be read must not hide the others, nor an outage be asked about for each of them.
                failures.append(error)
                if len(failures) > SINGLE_READS:
                    break
        if failures:
            raise failures[0]

    async def _read_one(self, urn: str) -> None:
        watch = self._watched.get(urn)
        if watch is None:
            return
        try:
            record = await self._read(urn)
        except NotFoundError as error:
            if time.monotonic() - watch.since > self._settle:
                self._fail([urn], error)
            return
        except PlatformError as error:
            if error.retryable:
                raise
            self._fail([urn], error)
            return
        self._note(urn, self._status(record))
        if self._status(record) in TERMINAL:
            for future in self._take(urn):
                future.set_result(record)

    def _note(self, urn: str, status: str) -> None:
        if urn in self._watched:
            self._watched[urn].status = status

    def _take(self, urn: str) -> list[asyncio.Future[R]]:
        """Stop watching; the futures that still want an answer."""
        watch = self._watched.pop(urn, None)
        return [future for future in watch.futures if not future.done()] if watch else []

    def _fail(self, urns: list[str], error: BaseException) -> None:
        for urn in urns:
            for future in self._take(urn):
                future.set_exception(error)

    def _out_of_reach(self, error: PlatformError) -> None:
        if self._unreachable_since is None:
            self._unreachable_since = time.monotonic()
            logger.warning("Still waiting for %d %s: %s", len(self._watched), self._what, error.message)

    def _reached(self) -> None:
        if self._unreachable_since is not None:
            away = time.monotonic() - self._unreachable_since
            logger.warning("The platform answers again after %.0f s; waiting goes on.", away)
            self._unreachable_since = None
