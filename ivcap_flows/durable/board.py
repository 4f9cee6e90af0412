"""One watchlist of the journal as a poller sees it. Where the journal cannot be used, each process looks for itself."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, ParamSpec, TypeVar

from ivcap_flows.durable.beating import start_beating, stop_beating
from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Journal
from ivcap_flows.journal.sightings import Watch

__all__ = ["Board"]

P = ParamSpec("P")
R = TypeVar("R")

_AWAY: Final = 30.0
"""Seconds for which a journal that failed is not asked again."""

logger = logging.getLogger("ivcap_flows.waiting")


class Board:
    """What this watcher and those of other processes tell each other about one watchlist."""

    def __init__(self, journal: Journal, *, noun: str, platform: str, account: str) -> None:
        self._journal = journal
        self._name = f"{noun} {account} {platform}"
        self._me = str(uuid.uuid4())
        self._mark = (0, 0)
        self._posted: set[str] = set()
        self._seen_after: datetime | None = None
        self._away_until = 0.0
        self._beats = False
        self._present = False

    async def lead(self) -> bool:
        """Whether this watcher is to ask the platform; it is where no other does, or none can be heard of."""
        self._begin()
        leads = await self._ask(self._journal.sightings.lead, self._name, self._me)
        self._present = self._present or leads is True
        return leads is not False

    async def others(self) -> Mapping[str, Watch] | None:
        """What the other watchers wait for; None where nothing has changed since it was last told."""
        found = await self._ask(self._journal.sightings.others, self._name, self._me, self._mark)
        if found is None:
            return None
        self._mark = found.mark
        return found.watches

    async def report(self, statuses: Mapping[str, str], trouble: str | None) -> None:
        """Tell the others; without effect where another asks the platform by now."""
        await self._ask(self._journal.sightings.report, self._name, self._me, statuses, trouble=trouble)

    async def news(self, mine: Mapping[str, Watch]) -> tuple[dict[str, str], str | None]:
        """The statuses that the lookout has seen since last time, after it was told what this watcher waits for now,
        and what hinders it."""
        self._begin()
        wanted = [watch for urn, watch in mine.items() if urn not in self._posted]
        unwanted = [urn for urn in self._posted if urn not in mine]
        sightings = self._journal.sightings
        if wanted:
            if await self._ask(_done(sightings.watch), self._name, self._me, wanted) is None:
                return {}, None
            self._seen_after = None
        if unwanted:
            await self._ask(_done(sightings.unwatch), self._name, self._me, unwanted)
        self._posted = set(mine)
        found = await self._ask(sightings.seen, self._name, self._seen_after)
        if found is None:
            return {}, None
        statuses, self._seen_after, trouble = found
        return {urn: status for urn, status in statuses.items() if urn in mine}, trouble

    async def pace(self, service: str) -> Sequence[float]:
        """How long, in seconds, the last work of a service took."""
        return await self._ask(self._journal.sightings.pace, self._name, service) or ()

    async def learn(self, took: Mapping[str, Sequence[float]]) -> None:
        """Note how long work of these services took."""
        await self._ask(_done(self._journal.sightings.learn), self._name, took)

    async def leave(self) -> None:
        """Wait for nothing any more; if this was the lookout, the next who asks is."""
        sightings = self._journal.sightings
        if self._posted:
            await self._ask(_done(sightings.unwatch), self._name, self._me)
            self._posted = set()
        if self._present:
            await self._ask(_done(sightings.resign), self._name, self._me)
            self._present = False
        if self._beats:
            stop_beating(self._journal)
            self._beats = False
        self._me, self._mark, self._seen_after = str(uuid.uuid4()), (0, 0), None

    def _begin(self) -> None:
        if not self._beats:
            start_beating(self._journal)
            self._beats = True

    async def _ask(self, do: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """What the journal says; None where it cannot be used."""
        if time.monotonic() < self._away_until:
            return None
        try:
            return await asyncio.to_thread(do, *args, **kwargs)
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
