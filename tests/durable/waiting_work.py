"""Remote work without a platform. It counts the poller's requests, and the tests set its status."""

from __future__ import annotations

import asyncio
from collections import Counter

from ivcap_flows.durable.poll_strategy import Change
from ivcap_flows.durable.poller import Poller
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.errors import InputError, NotFoundError, UnreachableError

PAGE = 50


class Work:
    """`status` by URN, oldest first; `service` by URN where there are several; `told` are the changes, oldest first."""

    what = "orders"

    def __init__(self, **status: str) -> None:
        self.status = dict(status)
        self.service: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.down = False
        self.lists_down: set[str] = set()
        self.feed_down = False
        self.told: list[Change] | None = None
        self.events: dict[str, asyncio.Event] | None = None
        self.took_seconds = 0.0

    @property
    def tells_events(self) -> bool:
        return self.events is not None

    @property
    def requests(self) -> int:
        return sum(self.asked.values())

    def end(self, *urns: str, status: str = "succeeded", tell: bool = True) -> None:
        for urn in urns:
            self.status[urn] = status
            if tell and self.told is not None:
                self.told.append(Change(f"c{len(self.told)}", urn, status))
            if self.events is not None:
                self.events[urn].set()

    async def read(self, urn: str, service: str) -> tuple[str, str]:
        self.asked["read"] += 1
        self.reads[urn] += 1
        if self.status.get(urn) == "tried for long":
            await asyncio.sleep(60)
        if self.status.get(urn) == "malformed":
            raise InputError(f"{urn!r} is no URN")
        if self.down or self.status.get(urn) == "unreadable":
            raise UnreachableError("no reply", platform="p")
        if urn not in self.status:
            raise NotFoundError(f"{urn} is not known", platform="p")
        return urn, self.status[urn]

    def list_of(self, service: str) -> str:
        return service

    async def pages(self, name: str):
        listed = [(urn, s) for urn, s in reversed(self.status.items()) if self.service.get(urn, "") == name]
        for begin in range(0, len(listed) or 1, PAGE):
            self.asked["page"] += 1
            if self.down or name in self.lists_down:
                raise UnreachableError("no reply", platform="p")
            yield [(urn, self.status[urn]) for urn, _ in listed[begin : begin + PAGE]]

    async def changes(self):
        if self.told is None:
            return
        told = list(reversed(self.told))
        for begin in range(0, len(told) or 1, PAGE):
            self.asked["changes"] += 1
            if self.feed_down:
                raise UnreachableError("no reply", platform="p")
            yield told[begin : begin + PAGE]

    async def hints(self, urn: str, service: str):
        self.asked["stream"] += 1
        assert self.events is not None
        yield False
        await self.events[urn].wait()
        yield True

    def status_of(self, record: tuple[str, str]) -> str:
        return record[1]

    def took(self, record: tuple[str, str]) -> tuple[str, float] | None:
        return (self.service.get(record[0], ""), self.took_seconds) if self.took_seconds else None

    def poller(self, *, visibility_delay: float = 5.0, per_minute: int = 60_000, **options) -> Poller[tuple[str, str]]:
        return Poller(Seen(self), visibility_delay=visibility_delay, rate_limiter=RateLimiter(per_minute), **options)


class Seen:
    """The work as a source."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __getattr__(self, name: str):
        return getattr(self._work, "status_of" if name == "status" else name)
