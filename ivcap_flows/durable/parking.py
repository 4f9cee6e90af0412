"""When a parked run wakes by itself. Pure: times in, a time out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

__all__ = ["LONGEST", "SHORTEST", "WATCHED", "WATCHER", "Pending", "rest"]

WATCHER: Final = "watcher"
"""The lease of the process that wakes parked runs."""
SHORTEST: Final = 30.0
"""Seconds that a run parks for at least: leaving a process and coming back takes some ten."""
LONGEST: Final = 900.0
WATCHED: Final = 3600.0
"""While a watcher is there to wake it, a run wakes by itself only in case the watcher is not."""

_ENOUGH: Final = 3
"""So many durations tell what to expect of a service."""
_SHARE: Final = 0.25
"""Otherwise work is looked at again after this share of its age."""


@dataclass(frozen=True)
class Pending:
    """Work that has not ended: its age, and how long such work took before, in seconds."""

    age: float
    took: Sequence[float] = ()


def rest(pending: Iterable[Pending], *, watched: bool = False) -> float:
    """Seconds until a run that waits for all of this should look again."""
    if watched:
        return WATCHED
    return min(LONGEST, max([SHORTEST, *(_left(each) for each in pending)]))


def _left(work: Pending) -> float:
    usual = median(work.took) if len(work.took) >= _ENOUGH else 0.0
    return usual - work.age if usual > work.age else _SHARE * work.age
