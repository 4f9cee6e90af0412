"""When Prefect wakes a parked run, a pure function from times to a time; and what it waits for, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from ivcap_flows.durable.wording import counted, listed
from ivcap_flows.journal.rows import Wait

__all__ = ["LONGEST", "SHORTEST", "WATCHED", "WATCHER", "Pending", "in_words", "rest"]

WATCHER: Final = "watcher"
"""The lease of the process that wakes parked runs."""
SHORTEST: Final = 30.0
"""Minimum seconds for which a run parks: leaving a process and coming back takes about ten."""
LONGEST: Final = 900.0
WATCHED: Final = 3600.0
"""Seconds until Prefect wakes a run that a watcher is to wake, in case the watcher dies."""

_ENOUGH: Final = 3
"""Number of durations from which the next duration of a service is estimated."""
_SHARE: Final = 0.25
"""Without an estimate, look again after this share of the work's age."""


@dataclass(frozen=True)
class Pending:
    """Work that has not ended: its age, and the earlier durations of such work, in seconds."""

    age: float
    took: Sequence[float] = ()


def in_words(waits: Iterable[Wait]) -> str:
    """Return what these are: "2 jobs and 1 order (north, south, echo)"."""
    known = list(waits)
    counts = Counter(f"{wait.noun}s" for wait in known)
    count = " and ".join(counted(count, nouns) for nouns, count in sorted(counts.items()))
    return f"{count} ({listed(wait.name or wait.urn for wait in known)})"


def rest(pending: Iterable[Pending], *, watched: bool = False) -> float:
    """Return the seconds until a run that waits for all of this work should look again."""
    if watched:
        return WATCHED
    return min(LONGEST, max([SHORTEST, *(_left(each) for each in pending)]))


def _left(work: Pending) -> float:
    usual = median(work.took) if len(work.took) >= _ENOUGH else 0.0
    return usual - work.age if usual > work.age else _SHARE * work.age
