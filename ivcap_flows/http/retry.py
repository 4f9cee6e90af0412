"""Decide whether and when a request is sent again. Pure.

Three questions: may it be repeated, is the failure transient, how long to wait. Sources: RFC 9110 (safe and idempotent
methods, Retry-After), RFC 4918 (423), RFC 6585 (429), RFC 8470 (425).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from ivcap_flows.errors import IvcapFlowsError, MisfitReplyError, UnavailableError, UnreachableError
from ivcap_flows.http.server_clock import date_of

__all__ = ["Backoff", "Repeat", "is_transient", "may_repeat", "retry_after"]

Repeat = Literal["idempotent", "keyed", "unsafe"]
"""The result of sending a request twice: nothing more; an effect that its key finds; an effect that nothing finds."""


def may_repeat(repeat: Repeat, error: BaseException) -> bool:
    """Return whether a request of this kind may be sent again after this failure.

    An idempotent request may always be sent again. Any other may be only if it was surely not processed: `sent` is
    False after a failed connection, and after 423, 425 and 429, with which a server refuses to process it.
    """
    if repeat == "idempotent":
        return True
    return isinstance(error, IvcapFlowsError) and error.data.get("sent") is False


def is_transient(error: BaseException) -> bool:
    """Return whether the same request can succeed later.

    That is so if there was no reply, half of one or that of another request, and for 408, 423, 425, 429 and any 5xx but
    501.
    """
    return isinstance(error, UnreachableError | UnavailableError | MisfitReplyError)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds of a Retry-After header, given as seconds or as a date; None if it is absent or unreadable."""
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        moment = date_of(text)
        if moment is None:
            return None
        seconds = (moment - (now or datetime.now(timezone.utc))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


@dataclass(frozen=True)
class Backoff:
    """Waits between attempts, in seconds. `first` doubles up to `cap`; the last attempt begins within `budget` of the
    first failure."""

    first: float = 0.5
    cap: float = 20.0
    budget: float = 60.0

    def ceiling(self, attempt: int) -> float:
        """Return the longest wait after attempt 1, 2, …"""
        return min(self.cap, self.first * 2.0 ** min(attempt - 1, 60))

    def delay(
        self, attempt: int, asked: float | None = None, uniform: Callable[[float, float], float] = random.uniform
    ) -> float:
        """Return the wait after attempt 1, 2, …

        It is the server's own value, or else a random wait up to the ceiling (full jitter). If the server asks for less
        than `first` seconds (for instance `Retry-After: 0`), its value is only the minimum, so that it is not flooded
        with requests.
        """
        if asked is not None and asked >= self.first:
            return asked
        return max(asked or 0.0, uniform(0.0, self.ceiling(attempt)))

    def exhausted(self, elapsed: float, wait: float) -> bool:
        """Return whether another attempt after this wait would start beyond the budget."""
        return elapsed + wait > self.budget
