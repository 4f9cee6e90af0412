"""Poll sharing: one watchlist of the journal, as a poller uses it.

While the journal cannot be used, each process asks the platform itself, with a watchlist of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Final, ParamSpec, TypeVar

from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Journal
from ivcap_flows.journal.rows import Poll, Wanted
from ivcap_flows.secrets import logger_of

__all__ = ["PollSharing"]

P = ParamSpec("P")
R = TypeVar("R")

_AWAY: Final = 30.0
"""Seconds for which a journal that failed is not used again."""

logger = logger_of("ivcap_flows.waiting")


class PollSharing:
    """A watchlist that this process adds to. Without a journal, only this process uses it."""

    def __init__(self, journal: Journal | None = None, watchlist: str = "") -> None:
        self._journal, self._watchlist = journal, watchlist
        self._away_until = 0.0 if journal is not None else math.inf
        self._shared: Poll | None = None
        """The watchlist as last read from the journal; None while the journal is not used."""
        self._mine: frozenset[str] = frozenset()
        self.poll = Poll()
        """The watchlist as last seen."""

    async def exchange(self, wanted: Mapping[str, str]) -> None:
        """Read the watchlist, and add what it lacks of this work (URN to service)."""
        self._mine = frozenset(wanted)
        self._shared = await self._ask(lambda journal: journal.polls.read(self._watchlist, self._shared))
        self.poll = self.poll if self._shared is None else self._shared
        new = {urn: service for urn, service in wanted.items() if urn not in self.poll.wanted}
        if new:
            added = await self._ask(lambda journal: journal.polls.add(self._watchlist, new))
            self._see(added, self.poll.with_new(new))

    async def begin(self) -> bool:
        """Begin a round. Return False if another process was first."""
        poll = self.poll
        if self._shared is None:
            self.poll = Poll(poll.begun + 1, poll.ended, poll.wanted)
            return True
        begun = await self._ask(lambda journal: journal.polls.begin(self._watchlist, poll.begun))
        if begun is not None:
            self.poll = self._shared = begun
        return begun is not None

    async def end(self, begun: int, seen: Mapping[str, Wanted]) -> None:
        """End a round with what was seen in it. If the journal fails, this process knows it nevertheless."""
        ended = await self._ask(lambda journal: journal.polls.end(self._watchlist, begun, seen))
        self._see(ended, self.poll.after(begun, seen))

    async def stop(self) -> None:
        """No longer wait for anything."""
        if self._shared is not None and self._mine:
            self._away_until = 0.0  # also after a failure: what stays would be asked for without a reason
            await self._ask(lambda journal: journal.polls.unwatch(self._watchlist, self._mine))
        self._shared, self._mine, self.poll = None, frozenset(), Poll()

    def _see(self, shared: Poll | None, alone: Poll) -> None:
        if shared is not None:
            self._shared = shared
        self.poll = alone if shared is None else shared

    async def _ask(self, do: Callable[[Journal], R]) -> R | None:
        """Return the result of a call of the journal; None if the journal cannot be used."""
        if self._journal is None or time.monotonic() < self._away_until:
            return None
        try:
            return await self._journal.ask(do, self._journal)
        except JournalError as error:
            self._away_until = time.monotonic() + _AWAY
            logger.warning("Waiting goes on without what other processes know: %s", error)
            return None
