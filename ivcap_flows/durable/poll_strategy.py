"""The poll strategy: one round of asking for remote work, with few requests even for much work.

There are three ways to get a status. Pages of a list, newest first, show many statuses at once. Work that is on no page
is read one by one, the longest unread first, so that each gets its turn. If the platform has a record of each change of
status, one page of the newest changes shows what has ended since the last round. This change feed is relied on only
while it is seen to be complete, and at intervals a round reads the lists as well, in case the feed missed something.
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
from ivcap_flows.secrets import logger_of

__all__ = ["PAGES", "ROUND", "SINGLE_READS", "Change", "PollStrategy", "Source"]

R = TypeVar("R")

logger = logger_of("ivcap_flows.waiting")

ROUND: Final = 24
"""Maximum number of requests per round."""
PAGES: Final = 20
"""Maximum number of list pages per round; older work is read one by one."""
SINGLE_READS: Final = 3
"""Up to so many works of one list are read one by one; more are looked for in the list first.

After more errors than this, a round asks for nothing else.
"""

_RESERVED: Final = 2
"""Requests per round that list pages leave for single reads."""
_CHANGES: Final = 4
"""Maximum number of pages of changes per round."""
_BARREN: Final = 2
"""Extra pages to read after the last page that had a match in the previous round."""
_THOROUGH: Final = 8
"""Rounds after which the lists are read as well, in case the feed missed something, or the feed is tried again."""
EASE: Final = 30.0
"""Minimum seconds between two rounds that read the lists as well, while the change feed is relied on."""
_AT_EASE: Final = 2
"""Works to read one by one in a round that relies on the change feed."""


@dataclass(frozen=True)
class Change:
    """A change of the status of some work. `status` is None if the record does not contain the new one."""

    id: str
    urn: str
    status: str | None


class Source(Protocol[R]):
    """One kind of work on a platform, such as orders. Each page that an iterator yields is one request."""

    what: str
    """The plural noun of the work."""
    tells_events: bool
    """Whether `hints` may yield anything."""

    async def read(self, urn: str, service: str) -> R:
        """Return the whole record of one work."""

    def list_of(self, service: str) -> str:
        """Return the name of the list that contains the work of a service."""

    def pages(self, name: str) -> AsyncGenerator[Sequence[tuple[str, str]], None]:
        """Yield the pages of a list, newest first, as pairs of URN and status."""

    def changes(self) -> AsyncGenerator[Sequence[Change], None]:
        """Yield pages of the changes of status of all services, newest first; none if the platform has no such feed."""

    def hints(self, urn: str, service: str) -> AsyncGenerator[bool, None]:
        """Yield at each event of one work whether it was its end; nothing if the platform has no events."""

    def status(self, record: R) -> str:
        """Return the status in a record."""

    def took(self, record: R) -> tuple[str, float] | None:
        """Return the service of an ended record and the seconds from its request to its end, or None if unknown."""


class PollStrategy:
    """The rounds of one poller over one source.

    `look` calls `note(urn, status)` for each status in a list or a change. It calls `read(urn)` to read one record;
    that returns the status, or None if there is none to report.
    """

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
        """The number of requests of the last round."""
        self.answered = True
        """Whether the platform answered any of them."""
        self._pages = 0
        self._depth: dict[str, int] = {}
        self._listed: dict[str, bool] = {}
        """The targets that were looked for on a list, and whether they were there."""
        self._read_at: dict[str, int] = {}
        """The round in which a target was last read one by one; at first, the round before it was added."""
        self._unread: set[str] = set()
        self._live: set[str] = set()
        self._told: set[str] = set()
        self._suspects: set[str] = set()
        """Targets that had ended in the last round without a change in the feed."""
        self._changes_known: set[str] = set()
        self._thorough = (0, time.monotonic())
        """Number and time of the last round that read the lists although it relied on the change feed."""
        self._unreadable: set[str] = set()
        """The lists of which the log says that they cannot be read."""
        self._believed: bool | None = None
        """Whether to rely on the change feed; None while that is not known."""

    async def look(self, targets: Mapping[str, str]) -> None:
        """Do one round for targets (URN to service).

        What does not answer is passed over, and its error raised at the end; what was noted is valid nevertheless.
        """
        self.count += 1
        self.used = self._pages = 0
        self._mind(targets)
        few = len(targets) <= SINGLE_READS
        trying = self.count <= 2 or self.count % _THOROUGH == 0
        ended: set[str] = set()
        failures: list[PlatformError] = []
        if not few and (self._believed or (self._believed is None and trying)):
            await self._ask_for_changes(targets, failures)
        thorough = few or bool(failures) or not self._believed or self._is_time()
        wanted = {urn: service for urn, service in targets.items() if thorough or urn not in self._listed}
        unlisted = await self._go_through_lists(wanted, ended, failures)
        await self._read_singly(unlisted, ended, failures, thorough=thorough)
        self.answered = self.used > len(failures)
        if failures:
            raise failures[0]
        self._suspects = {urn for urn in ended - self._told if urn in self._live}

    def _is_time(self) -> bool:
        """Return whether to read the lists although the change feed is relied on."""
        now = time.monotonic()
        if self.count - self._thorough[0] < _THOROUGH or now - self._thorough[1] < EASE:
            return False
        self._thorough = (self.count, now)
        return True

    def _mind(self, targets: Mapping[str, str]) -> None:
        """Forget targets that are no longer wanted, and put new ones behind those that already wait to be read."""
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

    async def _go_through_lists(
        self, wanted: Mapping[str, str], ended: set[str], failures: list[PlatformError]
    ) -> list[str]:
        """Look for these on their lists; return those that are on no page that was read.

        Each round begins with another list.
        """
        lists: dict[str, dict[str, None]] = {}
        for urn, service in wanted.items():
            lists.setdefault(self._source.list_of(service), {})[urn] = None
        names = sorted(lists)
        first = self.count % len(names) if names else 0
        left: list[str] = []
        for name in [*names[first:], *names[:first]]:
            missing = lists[name]
            if len(missing) > SINGLE_READS and self._room() > 0 and len(failures) <= SINGLE_READS:
                try:
                    await self._go_through(name, missing, ended)
                except PlatformError as error:
                    failures.append(error)
            elif len(missing) <= SINGLE_READS:
                self._listed.update(dict.fromkeys(missing, False))
            left += missing
        return left

    def _room(self) -> int:
        """Return how many list pages this round may still read; some requests are reserved for single reads."""
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
        except Exception as error:
            # A list that cannot be read, perhaps of a withdrawn service, must not end the waits for others. Its work is
            # read one by one.
            if isinstance(error, PlatformError) and error.retryable:
                raise
            self._say_unreadable(f"list of {self._source.what} {name}".rstrip(), error)
        self._depth[name] = depth
        for urn in sought:
            self._listed[urn] = urn not in missing

    def _say_unreadable(self, what: str, error: Exception) -> None:
        """Log once for each list why it cannot be read. A fault of this package is shown with its traceback."""
        if what not in self._unreadable:
            self._unreadable.add(what)
            shown = None if isinstance(error, PlatformError) else error
            why = f"{type(error).__name__}: {error}"
            logger.warning("The %s cannot be read, so the wait goes on without it. %s", what, why, exc_info=shown)

    async def _ask_for_changes(self, targets: Mapping[str, str], failures: list[PlatformError]) -> None:
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
                        suspects.discard(change.urn)
                        known = change.id in self._changes_known
                        met |= known
                        news = not known and change.urn in targets
                        if news and change.status is None and self.used >= ROUND:
                            continue  # the next round reads its record
                        seen.add(change.id)
                        if news:
                            self._believed = True
                            await self._changed(change)
        except PlatformError as error:
            if error.retryable:
                failures.append(error)
            else:
                self._say_unreadable(f"list of changes of {self._source.what}", error)
                self._believed = False
            return
        if number == 0 or suspects:
            self._believed = False
        if not met and not first:
            self._listed.clear()  # there are more changes than were read, so look on the lists again
        self._changes_known = seen

    async def _changed(self, change: Change) -> None:
        """Note a change of a target. Changes come newest first, so ignore later ones once it has ended."""
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

    async def _read_singly(
        self, unlisted: Sequence[str], ended: set[str], failures: list[PlatformError], *, thorough: bool
    ) -> None:
        """Read those that are on no list, the longest unread first. After an error, continue with the others."""
        turn = dict.fromkeys(unlisted)
        if not thorough:
            at_ease = [urn for urn, there in self._listed.items() if not there and urn not in self._unread]
            turn = dict.fromkeys([*(urn for urn in turn if urn in self._unread), *self._by_turn(at_ease)[:_AT_EASE]])
        for urn in self._by_turn(turn)[: max(0, ROUND - self.used)]:
            if len(failures) > SINGLE_READS:
                break
            self._read_at[urn] = self.count
            self._unread.discard(urn)
            await self._request()
            try:
                status = await self._read_one(urn)
            except PlatformError as error:
                failures.append(error)
                continue
            if status is not None:
                (ended if status in TERMINAL else self._live).add(urn)

    def _by_turn(self, urns: Iterable[str]) -> list[str]:
        return sorted(urns, key=lambda urn: self._read_at[urn])
