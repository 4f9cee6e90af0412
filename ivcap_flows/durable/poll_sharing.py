"""One watchlist of the journal as a poller sees it. Where the journal cannot be used, each process looks for itself."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final, ParamSpec, TypeVar

from ivcap_flows.durable.heartbeat import start_heartbeat, stop_heartbeat
from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Journal
from ivcap_flows.journal.rows import Lead, Watch
from ivcap_flows.secrets import logger_of

__all__ = ["PollSharing"]

P = ParamSpec("P")
R = TypeVar("R")

_AWAY: Final = 30.0
"""Seconds for which a journal that failed is not asked again."""

logger = logger_of("ivcap_flows.waiting")


class PollSharing:
    """What this watcher and those of other processes tell each other about one watchlist.

    It remembers nothing of what it wrote or read there but who leads, so that whatever is lost is written again.
    """

    def __init__(self, journal: Journal, *, noun: str, platform: str, account: str) -> None:
        self._journal = journal
        self._name = f"{noun} {account} {platform}"
        self._me = str(uuid.uuid4())
        self._lead: Lead | None = None
        self._away_until = 0.0
        self._alive = False

    async def lead(self) -> bool:
        """Whether this watcher is to ask the platform; it is where no other does, or none can be heard of."""
        if not self._alive:
            start_heartbeat(self._journal)
            self._alive = True
        noted = await self._ask(self._journal.poll_status.lead, self._name, self._me, self._lead)
        self._lead = noted or self._lead
        return noted is None or noted.mine

    async def others(self) -> Mapping[str, Watch] | None:
        """What the other watchers wait for, by URN; None where the journal cannot say."""
        return await self._ask(self._journal.poll_status.others, self._name, self._me)

    async def report(self, statuses: Mapping[str, str], trouble: str | None) -> bool:
        """Tell the others; False where they were not told, since another leads by now or the journal cannot be used."""
        report = self._journal.poll_status.report
        return await self._ask(report, self._name, self._me, statuses, trouble=trouble) or False

    async def news(self, wanted: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
        """The statuses that the leader has seen of these (URN to service), which it looks after from now on, and what
        hinders it."""
        return await self._ask(self._journal.poll_status.follow, self._name, self._me, wanted) or ({}, None)

    async def durations(self, service: str) -> Sequence[float]:
        """How long, in seconds, the last work of a service took."""
        return await self._ask(self._journal.poll_status.durations, self._name, service) or ()

    async def learn(self, took: Mapping[str, Sequence[float]]) -> None:
        """Note how long work of these services took."""
        await self._ask(_done(self._journal.poll_status.learn), self._name, took)

    async def leave(self) -> None:
        """Wait for nothing any more; if this watcher led, the next who asks does."""
        self._away_until = 0.0  # what stays behind in the journal would keep others waiting
        await self._ask(_done(self._journal.poll_status.leave), self._name, self._me)
        if self._alive:
            stop_heartbeat(self._journal)
            self._alive = False
        self._me, self._lead = str(uuid.uuid4()), None

    async def _ask(self, do: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """What the journal says; None where it cannot be used."""
        if time.monotonic() < self._away_until:
            return None
        try:
            return await self._journal.ask(do, *args, **kwargs)
        except JournalError as error:
            self._away_until = time.monotonic() + _AWAY
            logger.warning("Waiting goes on without what other processes know: %s", error)
            return None


def _done(do: Callable[P, None]) -> Callable[P, bool]:
    """True when it is done, for what tells nothing else."""

    def done(*args: P.args, **kwargs: P.kwargs) -> bool:
        do(*args, **kwargs)
        return True

    return done
