"""When Prefect wakes a parked run, a pure function from times to a time; and what it waits for, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from ivcap_flows.durable.wording import counted, listed
from ivcap_flows.journal.rows import Wait

__all__ = ["LONGEST", "SHORTEST", "WATCHED", "in_words", "rest", "watcher_of"]

SHORTEST: Final = 30.0
"""Minimum seconds for which a run parks: leaving a process and coming back takes about ten."""
LONGEST: Final = 900.0
WATCHED: Final = 3600.0
"""Seconds until Prefect wakes a run that a watcher is to wake, in case the watcher dies."""

_SHARE: Final = 0.25
"""A run looks again after this share of the age of its oldest work."""


def watcher_of(platform: str, account: str, credentials: str | None) -> str:
    """Return the lease of the process that wakes the runs which ask so. Only its holder is sure to be able to."""
    return f"watcher {platform} {account} {credentials or ''}"


def in_words(waits: Iterable[Wait]) -> str:
    """Return what these are: "2 jobs and 1 order (north, south, echo)"."""
    known = list(waits)
    counts = Counter(f"{wait.noun}s" for wait in known)
    count = " and ".join(counted(count, nouns) for nouns, count in sorted(counts.items()))
    return f"{count} ({listed(wait.name or wait.urn for wait in known)})"


def rest(ages: Iterable[float], *, watched: bool = False) -> float:
    """Return the seconds until a run should look again at all that it waits for, by the ages of the work in seconds."""
    return WATCHED if watched else min(LONGEST, max([SHORTEST, *(_SHARE * age for age in ages)]))
