"""Poll sharing: a poller's view of one watchlist of the journal.

While the journal cannot be used, each process asks the platform itself.
"""

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
"""Seconds for which a journal that failed is not used again."""
_PASSED_ON: Final = 60.0
"""Seconds for which a watcher that passed the lead on does not take it. Others take it when it is not renewed."""

logger = logger_of("ivcap_flows.waiting")


class PollSharing:
    """The exchange between this watcher and those of other processes about one watchlist.

    It remembers only who leads, and not what it wrote or read. So rows that are lost are written again.
    """

    def __init__(self, journal: Journal, *, noun: str, platform: str, account: str) -> None:
        self._journal = journal
        self._name = f"{noun} {account} {platform}"
        self._me = str(uuid.uuid4())
        self._lead: Lead | None = None
        self._away_until = self._follows_until = 0.0
        self._alive = False

    async def lead(self) -> bool:
        """Return whether this watcher must ask the platform: if no other leads, or the journal cannot be used."""
        if not self._alive:
            start_heartbeat(self._journal)
            self._alive = True
        now = time.monotonic()
        if now < self._follows_until:
            return now < self._away_until
        noted = await self._ask(self._journal.poll_status.lead, self._name, self._me, self._lead)
        self._lead = noted or self._lead
        return noted is None or noted.mine

    def pass_on(self) -> None:
        """Let another watcher lead, which happens within seconds."""
        self._follows_until = time.monotonic() + _PASSED_ON

    async def others(self) -> Mapping[str, Watch] | None:
        """Return what the other watchers wait for, by URN; None if the journal cannot be used."""
        return await self._ask(self._journal.poll_status.others, self._name, self._me)

    async def report(self, statuses: Mapping[str, str], trouble: str | None) -> bool:
        """Write statuses for the other watchers. Return False if another leads by now or the journal cannot be used."""
        report = self._journal.poll_status.report
        return await self._ask(report, self._name, self._me, statuses, trouble=trouble) or False

    async def news(self, wanted: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
        """Let the leader ask for these from now on (URN to service). Return the statuses that it has seen of them, and
        the problem that it has, if any."""
        return await self._ask(self._journal.poll_status.follow, self._name, self._me, wanted) or ({}, None)

    async def durations(self, service: str) -> Sequence[float]:
        """Return how long the last orders or jobs of a service took, in seconds."""
        return await self._ask(self._journal.poll_status.durations, self._name, service) or ()

    async def learn(self, took: Mapping[str, Sequence[float]]) -> None:
        """Store how long orders or jobs of these services took, in seconds."""
        await self._ask(_done(self._journal.poll_status.learn), self._name, took)

    async def leave(self) -> None:
        """Stop waiting; if this watcher led, the next watcher that asks becomes the leader."""
        self._away_until = 0.0  # try also after a failure: rows that stay in the journal would keep others waiting
        await self._ask(_done(self._journal.poll_status.leave), self._name, self._me)
        if self._alive:
            stop_heartbeat(self._journal)
            self._alive = False
        self._me, self._lead, self._follows_until = str(uuid.uuid4()), None, 0.0

    async def _ask(self, do: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Return the result of a call of the journal; None if the journal cannot be used."""
        if time.monotonic() < self._away_until:
            return None
        try:
            return await self._journal.ask(do, *args, **kwargs)
        except JournalError as error:
            self._away_until = time.monotonic() + _AWAY
            logger.warning("Waiting goes on without what other processes know: %s", error)
            return None


def _done(do: Callable[P, None]) -> Callable[P, bool]:
    """Let a function that returns nothing return True, so that its success can be seen."""

    def done(*args: P.args, **kwargs: P.kwargs) -> bool:
        do(*args, **kwargs)
        return True

    return done
