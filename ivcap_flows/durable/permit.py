"""The leave to send on a claim. It is good for a moment: a process that was suspended asks the journal anew."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

from ivcap_flows.errors import JournalError
from ivcap_flows.journal.rows import LEAVES_WITHIN

__all__ = ["Permit"]

FRESH_SECONDS: Final = 5.0
"""So long a claim counts as confirmed; far less than it takes until another process may take it over."""
_TRIES: Final = 10


class Permit:
    """Call it right before a request leaves, with the seconds within which it will have left (see `AskLeave`).

    `confirm` writes down in the journal, on the claim alone, that something leaves within so many seconds. It raises
    FencedError where another process has taken over, and the request then does not leave.
    """

    def __init__(self, confirm: Callable[[float], Awaitable[None]]) -> None:
        self._confirm = confirm
        self._confirmed_at = -inf
        self._covered = 0.0
        self._turn = asyncio.Lock()

    async def renew(self, leaves_within: float = LEAVES_WITHIN) -> None:
        """Confirm the claim now."""
        began = _seconds()
        await self._confirm(leaves_within)
        self._confirmed_at, self._covered = began, leaves_within

    async def __call__(self, leaves_within: float) -> None:
        needed = FRESH_SECONDS + leaves_within
        async with self._turn:
            for _ in range(_TRIES):
                if _seconds() - self._confirmed_at < FRESH_SECONDS and needed <= self._covered:
                    return
                await self.renew(max(needed, LEAVES_WITHIN))
        raise JournalError(
            f"The journal takes longer than {FRESH_SECONDS:g} s to confirm a claim, so that nothing was sent. Find out "
            "what keeps it so busy, then try again."
        )


def _seconds() -> float:
    """A clock that goes on while the machine sleeps, where there is one; no user sets it."""
    if not hasattr(time, "clock_gettime"):
        return time.monotonic()
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
