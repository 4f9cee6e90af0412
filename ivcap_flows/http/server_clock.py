"""A platform's own time, from the Date headers of its replies. This machine's clock has no part in it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["ServerClock", "ServerTime", "date_of", "elapsed"]

_RESOLUTION: Final = timedelta(seconds=1)
"""A Date header has whole seconds, and leaves out the rest (RFC 9110, section 5.6.7)."""

# Also counts while the machine sleeps, as the platform's clock does; nobody sets it.
_STEADY: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def elapsed() -> float:
    """Seconds since some moment, by a clock that is never set."""
    return time.monotonic() if _STEADY is None else time.clock_gettime(_STEADY)


def date_of(header: str | None) -> datetime | None:
    """The moment of a Date header; None where it is absent or unreadable."""
    if header is None:
        return None
    try:
        moment = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)


@dataclass(frozen=True)
class ServerTime:
    """A platform's time lies between these: the server wrote it, to the second, while a request was under way."""

    earliest: datetime
    latest: datetime


class ServerClock:
    """What is known of one platform's time. The sessions of one client share it."""

    def __init__(self) -> None:
        self._noted: dict[str, tuple[datetime, float, float]] = {}
        """By host: the newest Date, and when its request began and its reply came."""

    def note(self, host: str, date: str | None, began: float) -> None:
        """Take in the Date header of a reply that has just come; `began` is `elapsed()` before its request left."""
        moment = date_of(date)
        if moment is not None:
            self._noted[host] = (moment, began, elapsed())

    @property
    def time(self) -> ServerTime | None:
        """The platform's time now; None before the first reply with a Date. Hosts that disagree widen it."""
        if not self._noted:
            return None
        now = elapsed()
        return ServerTime(
            earliest=min(date + timedelta(seconds=now - came) for date, _, came in self._noted.values()),
            latest=max(date + _RESOLUTION + timedelta(seconds=now - began) for date, began, _ in self._noted.values()),
        )
