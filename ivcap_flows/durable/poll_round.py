"""A poll round: the pages of the platform's lists that show the status of much work with few requests.

Work of a list with little wanted work, and work that is on no page, is not asked for here: who waits for it reads its
record.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Protocol, TypeVar

from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.errors import PlatformError
from ivcap_flows.handles import TERMINAL
from ivcap_flows.journal.rows import Wanted
from ivcap_flows.secrets import logger_of

__all__ = ["PAGES", "ROUND", "SINGLE_READS", "PollRound", "PollSource", "crowded"]

R = TypeVar("R")

logger = logger_of("ivcap_flows.waiting")

ROUND: Final = 24
"""Maximum number of requests per round, in one process."""
PAGES: Final = 20
"""Maximum number of list pages among them; older work is read one by one."""
SINGLE_READS: Final = 3
"""Up to so many works of one list are read one by one; more are looked for in the list."""


class PollSource(Protocol[R]):
    """One kind of work on a platform, such as orders. Each page that `pages` yields is one request."""

    what: str
    """The plural noun of the work."""

    async def read(self, urn: str, service: str) -> R:
        """Return the whole record of one work."""

    def list_of(self, service: str) -> str:
        """Return the name of the list that contains the work of a service."""

    def pages(self, name: str) -> AsyncGenerator[Sequence[tuple[str, str]], None]:
        """Yield the pages of a list, newest first, as pairs of URN and status."""

    def status(self, record: R) -> str:
        """Return the status in a record."""


def crowded(source: PollSource[R], wanted: Mapping[str, Wanted]) -> dict[str, dict[str, Wanted]]:
    """Return by list the work that has not ended, for lists with more than SINGLE_READS such works."""
    lists: dict[str, dict[str, Wanted]] = {}
    for urn, each in wanted.items():
        if each.status not in TERMINAL:
            lists.setdefault(source.list_of(each.service), {})[urn] = each
    return {name: works for name, works in lists.items() if len(works) > SINGLE_READS}


class PollRound:
    """A round over the crowded lists of a source: `seen` is their work; `lists` are those asked, with their errors."""

    def __init__(self, source: PollSource[R], rate_limiter: RateLimiter) -> None:
        self._source, self._rate_limiter = source, rate_limiter
        self.pages = 0
        self.seen: dict[str, Wanted] = {}
        self.lists: dict[str, Exception | None] = {}

    async def look(self, wanted: Mapping[str, Wanted], number: int) -> None:
        """Read the pages. Each round begins with another list, by its `number`, so that none is left out for long.

        A list that cannot be read, perhaps of a withdrawn service, does not keep the others from being read.
        """
        lists = crowded(self._source, wanted)
        names = sorted(lists)
        first = number % len(names) if names else 0
        for name in [*names[first:], *names[:first]]:
            if self.pages == PAGES or len(self.silent) > SINGLE_READS:
                return
            missing = dict(lists[name])
            self.lists[name] = None
            try:
                await self._go_through(name, missing)
            except Exception as error:  # noqa: BLE001 - also a fault of this package must not end the waits for others
                self.lists[name] = error
            again = name in self.silent
            self.seen |= {u: replace(each, missed=1 if again else each.missed + 1) for u, each in missing.items()}

    @property
    def silent(self) -> list[str]:
        """The lists that a later round may be able to read."""
        return [name for name, error in self.lists.items() if isinstance(error, PlatformError) and error.retryable]

    async def _go_through(self, name: str, missing: dict[str, Wanted]) -> None:
        """Read a list until hardly any work is missing, or no more pages may be read."""
        async with aclosing(self._source.pages(name)) as pages:
            while len(missing) > SINGLE_READS and self.pages < PAGES:
                await self._rate_limiter.take()
                self.pages += 1
                page = await anext(pages, None)
                if page is None:
                    return
                for urn, status in page:
                    if urn in missing:
                        self.seen[urn] = replace(missing.pop(urn), status=status, missed=0)
