"""Datasets for the artifacts in the rows of a spool, beside the rows' own registration."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from math import inf
from typing import Final

from ivcap_flows.errors import BadRequestError, InDoubtError, InputError, RegistrationFailedError
from ivcap_flows.http.concurrency_limit import MOST
from ivcap_flows.registration.ledger import artifacts_in
from ivcap_flows.registration.outages import through_outages
from ivcap_flows.registration.spool import Spool

__all__ = ["Mint", "Minting"]

Mint = Callable[[str], Awaitable[str]]
"""From an artifact's URN to the handle of its dataset, which is found or minted once."""

_AT_ONCE: Final = MOST
"""Artifacts that are looked for together; fewer of them are minted for (`http/concurrency_limit.py`)."""
_QUIET: Final = 1.0
_LONGEST: Final = 5.0
"""Rows wait for each other until no dataset has come for a second, and for five at most: each batch is a job more."""


class Minting:
    """Finds or mints what rows lack, in the rows' order, so that each can be sent as soon as its own datasets exist.

    `troubles` says of artifacts why they have no dataset.
    """

    def __init__(self, spool: Spool, mint: Mint, stall_timeout: float) -> None:
        self._spool = spool
        self._mint = mint
        self._stall_timeout = stall_timeout
        self._in_hand: set[str] = set()
        self._over = asyncio.Event()
        self._last = -inf
        self._news = asyncio.Condition()
        self.troubles: dict[str, str] = {}

    async def run(self) -> None:
        """Raises the error of a refusal that concerns all artifacts, such as of the token."""
        self._over.clear()
        self._in_hand.clear()
        artifacts = self._lacked()

        async def worker() -> None:
            for artifact in artifacts:
                self._in_hand.add(artifact)
                try:
                    handle = await through_outages(lambda: self._mint(artifact), self._stall_timeout)  # noqa: B023 - awaited here
                except (InputError, BadRequestError, RegistrationFailedError, InDoubtError) as error:
                    self.troubles[artifact] = str(error)
                    self._spool.lack_no_more([artifact])
                else:
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
        """Wait for rows that can be sent, and a moment for more. False when there are none and will be none."""
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

    async def _tell(self) -> None:
        self._last = time.monotonic()
        async with self._news:
            self._news.notify_all()

    def _lacked(self) -> Iterator[str]:
        """The artifacts that rows lack, none while it is looked for."""
        for page in self._spool.pages("ready"):
            for row in page:
                for artifact in artifacts_in(row.body):
                    if artifact not in self._in_hand and self._spool.is_lacked(artifact):
                        yield artifact
