"""A rate limiter for the requests of waiting: a token bucket, however many orders and jobs are waited for."""

from __future__ import annotations

import asyncio
import time
from typing import Final

__all__ = ["RateLimiter"]

_BURST: Final = 0.25
"""Share of a minute's requests that may be made at once."""


class RateLimiter:
    """Allows at most `per_minute` requests in any minute, in the order of the callers. Use it on one loop only."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._most = max(1.0, _BURST * per_minute)
        self._left = self._most
        self.rate = max(per_minute - self._most, _BURST * per_minute) / 60
        """The number of requests per second that may be made continuously."""
        self._filled_at = time.monotonic()
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Wait until one request may be made, and count it."""
        async with self._turn:
            if not self.take_now():
                await asyncio.sleep((1 - self._left) / self.rate)
                self._fill()
                self._left -= 1

    def take_now(self) -> bool:
        """Return whether one request may be made at once; if so, count it."""
        self._fill()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _fill(self) -> None:
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._filled_at) * self.rate)
        self._filled_at = now
