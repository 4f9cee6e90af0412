"""Permission to send on a claim. It is valid for seconds, so a process that was suspended asks the journal again."""

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
"""How long a claim counts as confirmed: far less than the time until another process may take it over."""
_TRIES: Final = 10


class Permit:
    """The permission to send. Call it right before a request leaves, with the seconds within which the request leaves.

    See `AskLeave`. `confirm` writes to the journal, if the claim is still held, that a request leaves within so many
    seconds. It raises FencedError if another process has taken over, and then the request is not sent.
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
    """Return the seconds of a clock that nobody can set. Where possible, it also runs while the machine sleeps."""
    if not hasattr(time, "clock_gettime"):
        return time.monotonic()
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
