"""Seasons of the coastal El Niño index: their mean by year, their condition, and how rarely a condition comes back.

A season is three calendar months, named by their initials; its year is that of its last month. Its condition is judged
as ENFEN judges a month's: by the thresholds of the index (`flows.services.icen`), here on the mean of the three months.

The return period of a condition is the years of the record by the seasons that reached it. Its interval comes from the
circular block bootstrap (Politis and Romano, "A circular block-resampling procedure for stationary data", in Exploring
the Limits of Bootstrap, 1992): blocks of consecutive years are drawn, since one El Niño is not independent of the last.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from flows.services.icen import THRESHOLDS, Kind
from flows.services.months import Series

__all__ = ["CONDITIONS", "SEASONS", "ReturnPeriod", "condition", "return_periods", "season_means"]

SEASONS: Final[Mapping[str, tuple[int, int, int]]] = {
    "DJF": (12, 1, 2),
    "MAM": (3, 4, 5),
    "JJA": (6, 7, 8),
    "SON": (9, 10, 11),
}

CONDITIONS: Final[Mapping[str, tuple[Kind, float]]] = {
    f"{category} {kind}": (kind, level) for kind, levels in THRESHOLDS.items() for category, level in levels
}
"""The kind and the threshold (°C) of each condition, in ascending strength of each kind."""

BLOCK_YEARS: Final = 5
"""Years of a block: longer than an El Niño and the La Niña after it."""

INTERVAL: Final = (0.05, 0.95)


@dataclass(frozen=True)
class ReturnPeriod:
    """Years from one season of a condition or a stronger one to the next on average, with a 90 % interval.

    Infinite where no season of the record, or of a resample, reached the condition.
    """

    condition: str
    seasons: int
    years: float
    low: float
    high: float


def season_means(index: Series, season: str) -> dict[int, float]:
    """The mean index (°C) of a season by year, where all three months have one."""
    means = {}
    *_, last = SEASONS[season]
    for at in sorted(index):
        if at.month == last:
            months = [at.plus(step) for step in (-2, -1, 0)]
            if all(month in index for month in months):
                means[at.year] = statistics.fmean(index[month] for month in months)
    return means


def condition(mean: float) -> str:
    """The strongest condition that a mean (°C) is beyond the threshold of, or `neutral`."""
    reached = [name for name in CONDITIONS if _reaches(mean, name)]
    return reached[-1] if reached else "neutral"


def return_periods(means: Mapping[int, float], resamples: int, *, seed: str) -> Iterator[ReturnPeriod]:
    """The return period of every condition that the record has; equal seeds give equal intervals."""
    for name in CONDITIONS:
        reached = [_reaches(means[year], name) for year in sorted(means)]
        count = sum(reached)
        if count:
            low, high = _interval(reached, resamples, random.Random(f"{seed} {name}"))  # noqa: S311 - no secret
            yield ReturnPeriod(name, count, len(reached) / count, low, high)


def _reaches(mean: float, name: str) -> bool:
    kind, level = CONDITIONS[name]
    return mean > level if kind == "warm" else mean < level


def _interval(reached: Sequence[bool], resamples: int, draw: random.Random) -> tuple[float, float]:
    years = len(reached)
    length = min(BLOCK_YEARS, years)
    sums = [0, *accumulate([*reached, *reached[:length]])]
    blocks = [sums[start + length] - sums[start] for start in range(years)]
    full, rest = divmod(years, length)
    remains = [sums[start + rest] - sums[start] for start in range(years)]
    periods = []
    for _ in range(resamples):
        count = sum(draw.choices(blocks, k=full)) + draw.choice(remains)
        periods.append(years / count if count else math.inf)
    periods.sort()
    low, high = (periods[min(resamples - 1, int(share * resamples))] for share in INTERVAL)
    return low, high
