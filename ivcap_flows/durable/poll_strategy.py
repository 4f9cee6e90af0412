"""One round of looking after remote work, in a few requests however much of it there is.

Three ways lead to a status. Pages of the list, newest first, show many at once. What the list does not reach is read
one by one, the longest unread first, so that nothing starves. And where the platform keeps a record of each change of
status, one page of the newest changes tells what has ended since the last round; this is believed only as far as it is
seen to be complete, and the lists are gone through now and then all the same.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.errors import PlatformError
from ivcap_flows.handles import TERMINAL

__all__ = ["PAGES", "ROUND", "SINGLE_READS", "Change", "PollStrategy", "Source"]

R = TypeVar("R")

ROUND: Final = 24
"""Requests of one round at most."""
PAGES: Final = 20
"""Pages of lists of one round at most; what is older is read by itself."""
SINGLE_READS: Final = 3
"""Up to so many of one list are read one by one; more are looked for in the list first."""

_RESERVED: Final = 2
_CHANGES: Final = 4
"""Pages of changes of one round at most."""
_BARREN: Final = 2
"""So many pages are read beyond the last that showed something wanted in the round before."""
_THOROUGH: Final = 8
"""After so many rounds the lists are gone through though the changes are believed, or changes are tried again."""
EASE: Final = 30.0
"""Seconds for which believed changes are enough."""
_AT_EASE: Final = 2
"""What is read one by one in a round where the changes are believed."""


@dataclass(frozen=True)
class Change:
    """A record that the status of something changed; `status` is None where it does not tell to what."""

    id: str
    urn: str
    status: str | None


class Source(Protocol[R]):
    """One kind of work on a platform. Each page that an iterator gives is one request."""

    what: str
    """How the work is called, in the plural."""
    tells_events: bool
    """Whether `hints` may tell anything."""

    async def read(self, urn: str, service: str) -> R:
        """The whole record."""

    def list_of(self, service: str) -> str:
        """The list on which the work of a service stands."""

    def pages(self, name: str) -> AsyncGenerator[Sequence[tuple[str, str]], None]:
        """URN and status of what is on a list, newest first, page by page."""

    def changes(self) -> AsyncGenerator[Sequence[Change], None]:
        """The changes of status of all services, newest first, page by page; nothing where the platform has none."""

    def hints(self, urn: str, service: str) -> AsyncGenerator[bool, None]:
        """As things happen to one work, whether that was its end; nothing where the platform does not tell."""

    def status(self, record: R) -> str:
        """The status in a record."""

    def took(self, record: R) -> tuple[str, float] | None:
        """Service of an ended record and the seconds it took from the request to the end, where both are known."""


class PollStrategy:
    """`note(urn, status)` hears each status that a list or change tells; `read(urn)` reads one and gives its status,
    or None where it has none to tell. Both are called within `look`."""

    def __init__(
        self,
        source: Source[R],
        rate_limiter: RateLimiter,
        note: Callable[[str, str], None],
        read: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self._source, self._rate_limiter, self._note, self._read_one = source, rate_limiter, note, read
        self.count = 0
        self.used = 0
        """Requests of the last round."""
        self._pages = 0
        self._depth: dict[str, int] = {}
        self._listed: dict[str, bool] = {}
        """What has been looked for on a list since it is wanted, and whether it was there."""
        self._read_at: dict[str, int] = {}
        """The round in which one was read by itself last, or before which it came."""
        self._unread: set[str] = set()
        self._live: set[str] = set()
        self._told: set[str] = set()
        self._suspects: set[str] = set()
        """What was found to have ended in the last round and no change has told of."""
        self._changes_known: set[str] = set()
        self._thorough = (0, time.monotonic())
        """The round and the time of the last that went through the lists though the changes were believed."""
        self._believed: bool | None = None
        """Whether changes are; None: not known yet."""

    async def look(self, targets: Mapping[str, str]) -> None:
        """One round for targets (URN to service). What was heard before an error is valid."""
        self.count += 1
        self.used = self._pages = 0
        self._mind(targets)
        few = len(targets) <= SINGLE_READS
        trying = self.count <= 2 or self.count % _THOROUGH == 0
        ended: set[str] = set()
        if not few and (self._believed or (self._believed is None and trying)):
            await self._ask_for_changes(targets)
        thorough = few or not self._believed or self._is_time()
        wanted = {urn: service for urn, service in targets.items() if thorough or urn not in self._listed}
        unlisted = await self._go_through_lists(wanted, ended)
        await self._read_singly(unlisted, ended, thorough=thorough)
        self._suspects = {urn for urn in ended - self._told if urn in self._live}

    def _is_time(self) -> bool:
        """Whether the lists are to be gone through though the changes are believed."""
        now = time.monotonic()
        if self.count - self._thorough[0] < _THOROUGH or now - self._thorough[1] < EASE:
            return False
        self._thorough = (self.count, now)
        return True

    def _mind(self, targets: Mapping[str, str]) -> None:
        """Forget what is no longer wanted, and let what is new wait for its turn behind what waits already."""
        for kept in (self._listed, self._read_at):
            for urn in [urn for urn in kept if urn not in targets]:
                del kept[urn]
        for known in (self._live, self._told, self._unread):
            known.intersection_update(targets)
        new = [urn for urn in targets if urn not in self._read_at]
        self._unread.update(new)
        self._read_at.update(dict.fromkeys(new, self.count - 1))

    def _heard(self, urn: str, status: str, ended: set[str]) -> None:
        if status in TERMINAL:
            ended.add(urn)
        elif status != "unknown":
            self._live.add(urn)
        self._note(urn, status)

    async def _request(self) -> None:
        await self._rate_limiter.take()
        self.used += 1

    async def _go_through_lists(self, wanted: Mapping[str, str], ended: set[str]) -> list[str]:
        """What was looked for and is on no page that was read. Another list is the first in each round."""
        lists: dict[str, dict[str, None]] = {}
        for urn, service in wanted.items():
            lists.setdefault(self._source.list_of(service), {})[urn] = None
        names = sorted(lists)
        first = self.count % len(names) if names else 0
        left: list[str] = []
        for name in [*names[first:], *names[:first]]:
            missing = lists[name]
            if len(missing) > SINGLE_READS and self._room() > 0:
                await self._go_through(name, missing, ended)
            elif len(missing) <= SINGLE_READS:
                self._listed.update(dict.fromkeys(missing, False))
            left += missing
        return left

    def _room(self) -> int:
        """Pages of lists that this round may still read; some requests are left for what no list shows."""
        return min(PAGES - self._pages, ROUND - _RESERVED - self.used)

    async def _go_through(self, name: str, missing: dict[str, None], ended: set[str]) -> None:
        sought = list(missing)
        most = self._room()
        if name in self._depth and self.count % _THOROUGH:
            most = min(most, self._depth[name] + _BARREN)
        depth = number = 0
        try:
            async with aclosing(self._source.pages(name)) as pages:
                while missing and number < most:
                    await self._request()
                    self._pages += 1
                    page = await anext(pages, None)
                    if page is None:
                        break
                    number += 1
                    for urn, status in page:
                        if urn in missing:
                            del missing[urn]
                            depth = number
                            self._heard(urn, status, ended)
        except PlatformError as error:
            # The list of one service, withdrawn perhaps, must not end the waits for others: its work is read.
            if error.retryable:
                raise
        self._depth[name] = depth
        for urn in sought:
            self._listed[urn] = urn not in missing

    async def _ask_for_changes(self, targets: Mapping[str, str]) -> None:
        seen: set[str] = set()
        number, met, first = 0, False, not self._changes_known
        suspects, self._suspects = self._suspects, set()
        try:
            async with aclosing(self._source.changes()) as pages:
                while not met and number < (1 if first else _CHANGES) and self.used < ROUND:
                    await self._request()
                    page = await anext(pages, None)
                    if page is None:
                        met = True
                        break
                    number += 1
                    for change in page:
                        seen.add(change.id)
                        suspects.discard(change.urn)
                        if change.id in self._changes_known:
                            met = True
                        elif change.urn in targets:
                            self._believed = True
                            await self._changed(change)
        except PlatformError as error:
            if error.retryable:
                raise
            self._believed = False
            return
        if number == 0 or suspects:
            self._believed = False
        if not met and not first:
            self._listed.clear()  # more has changed than was read
        self._changes_known = seen

    async def _changed(self, change: Change) -> None:
        """A change is told newest first, so the first that is told of a target since the last round counts."""
        if change.urn in self._told:
            return
        if change.status is None:
            await self._request()
            status = await self._read_one(change.urn)
            if status in TERMINAL:
                self._told.add(change.urn)
        elif change.status in TERMINAL:
            self._told.add(change.urn)
            self._note(change.urn, change.status)
        else:
            self._live.add(change.urn)
            self._note(change.urn, change.status)

    async def _read_singly(self, unlisted: Sequence[str], ended: set[str], *, thorough: bool) -> None:
        """Those that no list shows, the longest unread first. One that cannot be read must not hide the others."""
        turn = dict.fromkeys(unlisted)
        if not thorough:
            at_ease = [urn for urn, there in self._listed.items() if not there and urn not in self._unread]
            turn = dict.fromkeys([*(urn for urn in turn if urn in self._unread), *self._by_turn(at_ease)[:_AT_EASE]])
        failures: list[PlatformError] = []
        for urn in self._by_turn(turn)[: max(0, ROUND - self.used)]:
            self._read_at[urn] = self.count
            self._unread.discard(urn)
            await self._request()
            try:
                status = await self._read_one(urn)
            except PlatformError as error:
                failures.append(error)
                if len(failures) > SINGLE_READS:
                    break
                continue
            if status is not None:
                (ended if status in TERMINAL else self._live).add(urn)
        if failures:
            raise failures[0]

    def _by_turn(self, urns: Iterable[str]) -> list[str]:
        return sorted(urns, key=lambda urn: self._read_at[urn])
