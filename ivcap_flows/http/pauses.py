"""Pauses for loops that tenacity cannot run for their callers: looks at a state, and transfers that break off."""

from __future__ import annotations

import asyncio
import math
import time

from ivcap_flows.errors import PlatformError
from ivcap_flows.http.retry import Backoff
from ivcap_flows.secrets import logger_of

__all__ = ["Breaks", "Pauses"]

_log = logger_of("ivcap_flows.http")


class Pauses:
    """The pauses between looks at a state: from `first` seconds, each twice as long as the one before, to `longest`;
    with a jitter of up to a quarter of the first."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._number = 0

    async def sleep(self, most: float = math.inf) -> None:
        """Sleep for the next pause, or for `most` seconds where that is less."""
        from tenacity import AsyncRetrying, RetryCallState, wait_exponential, wait_random

        looks = RetryCallState(AsyncRetrying(), None, (), {})
        self._number += 1
        looks.attempt_number = self._number
        wait = wait_exponential(multiplier=self._first, max=self._longest) + wait_random(0, self._first / 4)
        await asyncio.sleep(min(wait(looks), max(most, 0.0)))


class Breaks:
    """The waits of a transfer that breaks off and goes on, by the back-off of its session."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget the breaks so far: the transfer has got further."""
        self._number, self._since = 0, time.monotonic()

    async def wait(self, error: PlatformError, what: str) -> None:
        """Wait as the failure demands; raise it where that would take longer than the budget."""
        self._number += 1
        wait = self._backoff.delay(self._number, error.data.get("retry_after"))
        if self._backoff.exhausted(time.monotonic() - self._since, wait):
            raise error
        _log.info("The %s broke off: %s Going on in %.1f s.", what, error, wait)
        await asyncio.sleep(wait)
