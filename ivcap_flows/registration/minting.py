"""Find or mint datasets for the artifacts in the rows of a spool, while rows are being registered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from math import inf
from typing import Final

from ivcap_flows.durable.outages import through_outages
from ivcap_flows.errors import (
    ForbiddenError,
    InDoubtError,
    InputError,
    NotAuthorizedError,
    PlatformError,
    RegistrationFailedError,
)
from ivcap_flows.http.concurrency_limit import MOST
from ivcap_flows.registration.ledger import artifacts_in
from ivcap_flows.registration.spool import Spool

__all__ = ["Mint", "Minting"]

Mint = Callable[[str], Awaitable[str]]
"""A function from an artifact's URN to the handle of its dataset, which is found or minted once."""

_AT_ONCE: Final = MOST
"""Maximum number of artifacts looked for at once. Fewer are minted at once (`http/concurrency_limit.py`)."""
_QUIET: Final = 1.0
_LONGEST: Final = 5.0
"""Seconds that ready rows wait for others: until no dataset has come for `_QUIET`, at most `_LONGEST`. Fewer, larger
batches mean fewer jobs."""


class Minting:
    """Finds or mints the missing datasets in the order of the rows. So each row can be sent when its datasets exist.

    `troubles` maps artifacts to the reason why they have no dataset.
    """

    def __init__(self, spool: Spool, mint: Mint, stall_timeout: float) -> None:
        self._spool = spool
        self._mint = mint
        self._stall_timeout = stall_timeout
        self._in_hand: set[str] = set()
        self._over = asyncio.Event()
        self._last = -inf
        self._news = asyncio.Condition()
        self._minted = False
        self._forbidden = 0
        self.troubles: dict[str, str] = {}

    async def run(self) -> None:
        """Find or mint all missing datasets. Raises the error of a refusal of all artifacts, such as of the token."""
        self._over.clear()
        self._in_hand.clear()
        artifacts = self._lacked()

        async def worker() -> None:
            for artifact in artifacts:
                self._in_hand.add(artifact)
                try:
                    handle = await through_outages(lambda: self._mint(artifact), self._stall_timeout)  # noqa: B023 - awaited here
                except (InputError, PlatformError, RegistrationFailedError, InDoubtError) as error:
                    if self._is_of_all(error):
                        raise
                    self.troubles[artifact] = str(error)
                    self._spool.lack_no_more([artifact])
                else:
                    self._minted = True
                    self._spool.told_of_datasets([(handle, artifact)])
                self._in_hand.remove(artifact)
                await self._tell()

        workers = [asyncio.create_task(worker()) for _ in range(_AT_ONCE)]
        try:
            await asyncio.gather(*workers)
        finally:
            for each in workers:
                each.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        self._over.set()
        await self._tell()

    async def has_rows(self) -> bool:
        """Wait for rows that can be sent, then briefly for more. Return False if there are none and will be none."""
        async with self._news:
            while not self._spool.page("ready", limit=1, lacking_none=True):
                if self._over.is_set():
                    return False
                await self._news.wait()
        end = time.monotonic() + _LONGEST
        while not self._over.is_set() and (left := min(end, self._last + _QUIET) - time.monotonic()) > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._over.wait(), left)
        return True

    def _is_of_all(self, error: Exception) -> bool:
        """Return whether other artifacts would meet the same error: of the token, the caller's rights, or an outage.

        A mint that is forbidden may be so for its artifact alone. As many as are under way at once, and none that is
        not, mean the caller.
        """
        if isinstance(error, ForbiddenError):
            self._forbidden += 1
            return not self._minted and self._forbidden >= _AT_ONCE
        return isinstance(error, PlatformError) and (error.retryable or isinstance(error, NotAuthorizedError))

    async def _tell(self) -> None:
        self._last = time.monotonic()
        async with self._news:
            self._news.notify_all()

    def _lacked(self) -> Iterator[str]:
        """Yield the artifacts without dataset that rows need, except those that a worker is already looking for."""
        for page in self._spool.pages("ready"):
            for row in page:
                for artifact in artifacts_in(row.body):
                    if artifact not in self._in_hand and self._spool.is_lacked(artifact):
                        yield artifact
