"""When to look again: what is known of how long work takes, and the interval that follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["LONGEST", "SHORTEST", "WorkDurations", "interval"]

SHORTEST: Final = 1.0
"""Seconds, as the longest rest between two looks at work that may end at any time."""
LONGEST: Final = 60.0
SHARE: Final = 0.05
"""The longest rest as a share of the time that the work has taken, or surely takes."""
PROMPT: Final = 5.0
"""The longest rest where the platform tells of an end by itself; polling is what finds it if it does not."""

_KEPT: Final = 20
_ENOUGH: Final = 3
"""So many durations tell how long work surely takes."""
_SURELY: Final = 0.5
"""The share of the shortest known duration before which work is not expected to end."""


class WorkDurations:
    """How long the work of one service takes, in seconds, by its last ends."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._seconds = list(seconds)[-_KEPT:]

    def learn(self, seconds: float) -> None:
        self._seconds = [*self._seconds, max(0.0, seconds)][-_KEPT:]

    @property
    def surely(self) -> float:
        """Seconds before which no work is expected to end; 0 while too little is known."""
        return _SURELY * min(self._seconds) if len(self._seconds) >= _ENOUGH else 0.0


def interval(age: float, *, surely: float = 0.0, told: bool = False) -> float:
    """The longest rest, in seconds, before the next look at work that is `age` seconds old.

    `surely`: the age before which it is not expected to end. `told`: the platform tells of an end by itself. The rest
    itself is drawn evenly between none and this (full jitter), so that its 95th percentile stays below `SHARE`.
    """
    return min(LONGEST, max(PROMPT if told else SHORTEST, SHARE * max(age, surely)))
