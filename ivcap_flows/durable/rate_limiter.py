"""How many requests waiting may make: a bucket of tokens that no number of jobs empties faster than it fills."""

from __future__ import annotations

import asyncio
import time
from typing import Final

__all__ = ["RateLimiter"]

_BURST: Final = 0.25
"""The share of a minute's requests that may be made at once."""


class RateLimiter:
    """In no minute are there more than `per_minute` requests. Lives on one loop; who asks first is served first."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._most = max(1.0, _BURST * per_minute)
        self._left = self._most
        self.rate = max(per_minute - self._most, _BURST * per_minute) / 60
        """Requests a second that may be made on and on."""
        self._filled_at = time.monotonic()
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Return when one request may be made."""
        async with self._turn:
            if not self.take_now():
                await asyncio.sleep((1 - self._left) / self.rate)
                self._fill()
                self._left -= 1

    def take_now(self) -> bool:
        """Whether one request may be made at once; then it counts as made."""
        self._fill()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _fill(self) -> None:
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._filled_at) * self.rate)
        self._filled_at = now
