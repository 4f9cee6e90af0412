"""The poll interval: when to look again at remote work, by the time for which it has been waited for."""

from __future__ import annotations

from typing import Final

__all__ = ["LONGEST", "SHARE", "SHORTEST", "interval"]

SHORTEST: Final = 1.0
"""Lower limit of the interval between two looks, in seconds: for new work, which may end at any time."""
LONGEST: Final = 60.0
SHARE: Final = 0.05
"""The interval as a share of the work's age."""


def interval(age: float) -> float:
    """Return the seconds until the next look at work that is `age` seconds old."""
    return min(LONGEST, max(SHORTEST, SHARE * age))
