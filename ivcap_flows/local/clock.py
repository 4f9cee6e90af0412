"""Time as the platform keeps it: whole milliseconds since 1970 inside, RFC 3339 with whole seconds outside.

Whole seconds are what published replies of IVCAP show in resource bodies; events have finer stamps.
"""

from __future__ import annotations

import re
import time
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Final

__all__ = ["LATE", "event_stamp", "now", "parse", "stamp", "visible_from"]

LATE: Final[ContextVar[float]] = ContextVar("LATE", default=0.0)
"""Seconds for which what the current request makes stays hidden from every read and list (a fault)."""

_WHOLE = re.compile(r"[^.]*:\d\d(Z|[+-]\d\d:?\d\d)?")


def now() -> int:
    return time.time_ns() // 1_000_000


def visible_from() -> int:
    """The moment from which a thing made now may be seen."""
    return now() + round(LATE.get() * 1000)


def stamp(moment: int) -> str:
    return datetime.fromtimestamp(moment // 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def event_stamp(moment: int) -> str:
    """The form of stamps in events: with fractions of a second."""
    return datetime.fromtimestamp(moment / 1000, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(text: str) -> int:
    """Milliseconds of an RFC 3339 instant; without an offset it is UTC.

    A text with whole seconds means the end of that second, so that a time that was read from a record finds the record.
    Raises ValueError.
    """
    if "T" not in text and "t" not in text and " " not in text:
        raise ValueError(f"{text!r} has no time of day")
    # A `+` that was not escaped arrives as a blank.
    plain = re.sub(r" (?=\d\d:?\d\d$)", "+", text.strip()).upper().replace("Z", "+00:00")
    plain = re.sub(r"\.(\d{1,9})", lambda found: "." + (found[1] + "000000")[:6], plain)
    value = datetime.fromisoformat(plain)
    if value.tzinfo is None:
        value = value.replace(tzinfo=timezone.utc)
    return int(value.timestamp() * 1000) + (999 if _WHOLE.fullmatch(text.strip()) else 0)
