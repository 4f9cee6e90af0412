"""The time of both platforms: whole milliseconds since 1970 inside, RFC 3339 with whole seconds outside.

Published replies of IVCAP show whole seconds in resource bodies; events have finer timestamps. Tests can set, advance
and stop the clock: all timestamps and the expiry of all tokens follow it.
"""

from __future__ import annotations

import json
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

__all__ = [
    "CLOCK",
    "LATE",
    "LATE_IN_LISTS",
    "Clock",
    "event_stamp",
    "machine",
    "now",
    "parse",
    "seconds",
    "stamp",
    "visible_from",
]

LATE: Final[ContextVar[float]] = ContextVar("LATE", default=0.0)
"""Seconds for which records of the current request stay hidden from every read and list (a fault)."""
LATE_IN_LISTS: Final[ContextVar[float]] = ContextVar("LATE_IN_LISTS", default=0.0)
"""Seconds for which records of the current request stay hidden from lists, while a read by id finds them."""

_WHOLE = re.compile(r"[^.]*:\d\d(Z|[+-]\d\d:?\d\d)?")
_LATEST: Final = 4102444800000
"""2100-01-01. With a later time, the expiry of a token would soon exceed the range of dates."""


@dataclass
class Clock:
    """The machine's time plus `offset` (ms), or the moment (ms) at which it is `frozen`."""

    offset: int = 0
    frozen: int | None = None

    def now(self) -> int:
        return _machine_ms() + self.offset if self.frozen is None else self.frozen

    def set(self, moment: int, *, freeze: bool | None = None) -> None:
        """Set the clock to this moment, stopped or running; by default it stays stopped or running as before.

        Raises ValueError for a moment before 1970 or after 2099, and then changes nothing.
        """
        if not 0 <= moment < _LATEST:
            raise ValueError("The clock can be set only to times from 1970 to 2099.")
        stopped = self.frozen is not None if freeze is None else freeze
        self.offset = moment - _machine_ms()
        self.frozen = moment if stopped else None

    def reset(self) -> None:
        """Return to the machine's time."""
        self.offset, self.frozen = 0, None

    def as_json(self) -> dict[str, Any]:
        """Return `now`, `rate` (seconds that pass here per machine second) and `offset` (s) from the machine's time."""
        here = self.now()
        return {
            "now": event_stamp(here),
            "rate": 1 if self.frozen is None else 0,
            "offset": (here - _machine_ms()) / 1000,
        }

    def kept(self) -> str:
        """Return the state for `restore`."""
        return json.dumps([self.offset, self.frozen])

    def restore(self, text: str) -> None:
        self.offset, self.frozen = json.loads(text)


CLOCK: Final = Clock()
"""The clock of this process, which serves one directory."""


def _machine_ms() -> int:
    return time.time_ns() // 1_000_000


def machine() -> float:
    """Return the machine's own time in seconds since 1970, for pacing, which the clock's changes must not affect."""
    return time.time()


def now() -> int:
    return CLOCK.now()


def seconds() -> float:
    """Return the current time in seconds since 1970."""
    return CLOCK.now() / 1000


def visible_from() -> int:
    """Return the moment from which a new record is visible: 0, which means at once, unless a fault hides it.

    A negative value hides it from lists only, until the moment of its absolute value; a read by id finds it at once.
    """
    late, in_lists = LATE.get(), LATE_IN_LISTS.get()
    if late:
        return now() + round(late * 1000)
    return -(now() + round(in_lists * 1000)) if in_lists else 0


def stamp(moment: int) -> str:
    return datetime.fromtimestamp(moment // 1000, timezone.utc).isoformat().replace("+00:00", "Z")


def event_stamp(moment: int) -> str:
    """Format a moment as in events: with fractions of a second."""
    return datetime.fromtimestamp(moment / 1000, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse(text: str, *, end_of_second: bool = True) -> int:
    """Return the milliseconds of an RFC 3339 time; without an offset it is UTC.

    A text with whole seconds means the end of that second, so that a time read from a record finds that record. Raises
    ValueError.
    """
    if "T" not in text and "t" not in text and " " not in text:
        raise ValueError(f"{text!r} has no time of day")
    # A `+` that was not escaped in a URL arrives as a blank.
    plain = re.sub(r" (?=\d\d:?\d\d$)", "+", text.strip()).upper().replace("Z", "+00:00")
    plain = re.sub(r"\.(\d{1,9})", lambda found: "." + (found[1] + "000000")[:6], plain)
    value = datetime.fromisoformat(plain)
    if value.tzinfo is None:
        value = value.replace(tzinfo=timezone.utc)
    try:
        value = value.astimezone(timezone.utc)
    except OverflowError as error:
        # The first or the last day of the calendar, in another time zone.
        raise ValueError(f"{text!r} is not a time in UTC") from error
    whole = end_of_second and _WHOLE.fullmatch(text.strip())
    return int(value.timestamp() * 1000) + (999 if whole else 0)
