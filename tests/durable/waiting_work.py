"""Remote work without a platform. It counts the poller's requests, and the tests set its status."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from simulated import Clock

from ivcap_flows.durable import poll_sharing, poller, rate_limiter
from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.durable.poller import Poller
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.errors import InputError, NotFoundError, UnreachableError

PAGE = 50


def wait_by(patch: pytest.MonkeyPatch, clock: Callable[[], Clock]) -> None:
    """Let all that waits in the package go by a clock."""
    for module in (poller, poll_sharing, rate_limiter):
        patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock().monotonic()))


class Work:
    """`status` by URN, oldest first; `service` by URN where there are several. It is on the pages unless `hidden`."""

    what = "orders"

    def __init__(self, **status: str) -> None:
        self.status = dict(status)
        self.service: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.asked: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.down = False
        self.lists_down: dict[str, Exception] = {}

    @property
    def requests(self) -> int:
        return sum(self.asked.values())

    def end(self, *urns: str, status: str = "succeeded") -> None:
        self.status |= dict.fromkeys(urns, status)

    async def read(self, urn: str, service: str) -> tuple[str, str]:
        self.asked["read"] += 1
        self.reads[urn] += 1
        if self.status.get(urn) == "tried for long":
            await asyncio.sleep(600)
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
        of_list = [urn for urn in reversed(self.status) if self.service.get(urn, "") == name]
        for begin in range(0, len(of_list) or 1, PAGE):
            self.asked["page"] += 1
            if self.down:
                raise UnreachableError("no reply", platform="p")
            if name in self.lists_down:
                raise self.lists_down[name]
            yield [(urn, self.status[urn]) for urn in of_list[begin : begin + PAGE] if urn not in self.hidden]

    def status_of(self, record: tuple[str, str]) -> str:
        return record[1]

    def poller(
        self, sharing: PollSharing | None = None, *, visibility_delay: float = 5.0, per_minute: int = 60_000
    ) -> Poller[tuple[str, str]]:
        limiter, sharing = RateLimiter(per_minute), sharing or PollSharing()
        return Poller(Seen(self), visibility_delay=visibility_delay, rate_limiter=limiter, sharing=sharing)


class Seen:
    """The work as a source."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __getattr__(self, name: str):
        return getattr(self._work, "status_of" if name == "status" else name)
