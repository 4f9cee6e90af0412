"""Remote work without a platform. It counts the poller's requests, and the tests set its status."""

from __future__ import annotations

import asyncio
from collections import Counter

from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.durable.poller import Poller
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.errors import InputError, NotFoundError, UnreachableError

PAGE = 50


class Work:
    """`status` by URN, oldest first; `service` by URN where there are several."""

    what = "orders"

    def __init__(self, **status: str) -> None:
        self.status = dict(status)
        self.service: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.down = False
        self.lists_down: set[str] = set()

    @property
    def requests(self) -> int:
        return sum(self.asked.values())

    def end(self, *urns: str, status: str = "succeeded") -> None:
        self.status |= dict.fromkeys(urns, status)

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

    def status_of(self, record: tuple[str, str]) -> str:
        return record[1]

    def poller(
        self, sharing: PollSharing | None = None, *, visibility_delay: float = 5.0, per_minute: int = 60_000
    ) -> Poller[tuple[str, str]]:
        limiter = RateLimiter(per_minute)
        return Poller(
            Seen(self), visibility_delay=visibility_delay, rate_limiter=limiter, sharing=sharing or PollSharing()
        )


class Seen:
    """The work as a source."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __getattr__(self, name: str):
        return getattr(self._work, "status_of" if name == "status" else name)
