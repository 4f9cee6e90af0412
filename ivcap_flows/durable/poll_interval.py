"""The poll interval: when to look again at remote work, by its age and by how long such work takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["LONGEST", "SHORTEST", "WorkDurations", "interval"]

SHORTEST: Final = 1.0
"""Lower limit of the interval between two looks, in seconds: for new work, which may end at any time."""
LONGEST: Final = 60.0
SHARE: Final = 0.05
"""The interval as a share of the work's age, or of the time that the work certainly takes."""
PROMPT: Final = 5.0
"""Lower limit of the interval, in seconds, for work whose end the platform announces. Polling finds an end that is not
announced."""

_KEPT: Final = 20
_ENOUGH: Final = 3
"""Number of durations from which to conclude how long work takes at least."""
_SURELY: Final = 0.5
"""Share of the shortest known duration before which work is not expected to end."""


class WorkDurations:
    """The last durations of one service's work, in seconds."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._seconds = list(seconds)[-_KEPT:]

    def learn(self, seconds: float) -> None:
        self._seconds = [*self._seconds, max(0.0, seconds)][-_KEPT:]

    @property
    def surely(self) -> float:
        """The age in seconds before which no work is expected to end; 0 while too few durations are known."""
        return _SURELY * min(self._seconds) if len(self._seconds) >= _ENOUGH else 0.0


def interval(age: float, *, surely: float = 0.0, told: bool = False) -> float:
    """Return the longest pause, in seconds, before the next look at work that is `age` seconds old.

    `surely` is the age before which the work is not expected to end. `told` means that the platform announces the end.
    The pause itself is drawn evenly between 0 and this value (full jitter), so that its 95th percentile stays below
    `SHARE`.
    """
    return min(LONGEST, max(PROMPT if told else SHORTEST, SHARE * max(age, surely)))
