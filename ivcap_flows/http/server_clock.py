"""A platform's own time, from the Date headers of its replies, independent of this machine's clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["ServerClock", "ServerTime", "date_of", "elapsed"]

_RESOLUTION: Final = timedelta(seconds=1)
"""A Date header has whole seconds and drops the fraction (RFC 9110, section 5.6.7)."""

# This clock also counts while the machine sleeps, as the platform's does, and nobody can set it.
_STEADY: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def elapsed() -> float:
    """Return the seconds since some fixed moment, by a clock that is never set."""
    return time.monotonic() if _STEADY is None else time.clock_gettime(_STEADY)


def date_of(header: str | None) -> datetime | None:
    """Return the moment of a Date header; None if it is absent, unreadable or impossible."""
    if header is None:
        return None
    try:
        moment = parsedate_to_datetime(header)
        moment = moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    except (TypeError, ValueError, OverflowError):
        return None
    # At the ends of the calendar, nothing can be added to a time.
    return moment if MINYEAR < moment.year < MAXYEAR else None


@dataclass(frozen=True)
class ServerTime:
    """Bounds of a platform's time. The server wrote it, with whole seconds, while a request was in progress."""

    earliest: datetime
    latest: datetime


class ServerClock:
    """The known time of one platform. The sessions of one client share it."""

    def __init__(self) -> None:
        self._noted: dict[str, tuple[datetime, float, float]] = {}
        """Host -> the newest Date, when its request began, and when its reply arrived."""

    def note(self, host: str, date: str | None, began: float) -> None:
        """Record the Date header of a reply that just arrived; `began` is `elapsed()` before its request was sent."""
        moment = date_of(date)
        if moment is not None:
            self._noted[host] = (moment, began, elapsed())

    @property
    def time(self) -> ServerTime | None:
        """The platform's current time; None before the first reply with a Date. Hosts that disagree widen it."""
        if not self._noted:
            return None
        now = elapsed()
        return ServerTime(
            earliest=min(date + timedelta(seconds=now - came) for date, _, came in self._noted.values()),
            latest=max(date + _RESOLUTION + timedelta(seconds=now - began) for date, began, _ in self._noted.values()),
        )
