"""The Índice Costero El Niño (ICEN) of Peru's ENFEN, and the warm and cold events that follow from it.

ENFEN, the commission of Peruvian institutes that watches El Niño, defined the index in its technical note of 9 April
2012, "Definición operacional de los eventos El Niño y La Niña y sus magnitudes en la costa del Perú": the running mean
over three months of the monthly anomalies of the sea surface temperature in the region Niño 1+2 (90°-80°W, 10°S-0°).
The climatology is that of 1981-2010 since Takahashi, Mosquera and Reupo, "El Índice Costero El Niño (ICEN): historia y
actualización", Instituto Geofísico del Perú, 2014 (http://hdl.handle.net/20.500.12816/4639).

The mean is centred: the value of a month is the mean of the month before, the month and the month after, so that the
published index begins in February 1950 for data from January 1950 on. The Instituto Geofísico del Perú publishes it
with two decimals (http://met.igp.gob.pe/elnino/indices.html); conditions are judged here before that rounding, which
would cut months just beyond a threshold off an event.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from flows.services.months import Month, Series
from ivcap_flows.local.services.job import ServiceError

__all__ = [
    "DECIMALS",
    "LEAST_MONTHS",
    "THRESHOLDS",
    "BasePeriod",
    "BasePeriodError",
    "Category",
    "Event",
    "Kind",
    "anomalies",
    "climatology",
    "events",
    "icen",
]

Kind = Literal["warm", "cold"]
Category = Literal["weak", "moderate", "strong", "extraordinary"]

THRESHOLDS: Final[dict[Kind, tuple[tuple[Category, float], ...]]] = {
    "warm": (("weak", 0.4), ("moderate", 1.0), ("strong", 1.7), ("extraordinary", 3.0)),
    "cold": (("weak", -1.0), ("moderate", -1.2), ("strong", -1.4)),
}
"""The index (°C) beyond which a month is of a category, in ascending strength; the threshold itself is not beyond."""

LEAST_MONTHS: Final = 3
"""The months an event lasts at least, and that reach the category it is given at least."""

DECIMALS: Final = 4
"""The index is kept to 0.0001 °C: what the data cannot resolve, such as binary noise, decides no category."""

LEAST_SHARE: Final = 0.8
"""The share of the base period's years that each calendar month must have (WMO-No. 1203, climate normals, 2017)."""


class BasePeriodError(ServiceError, ValueError):
    """A base period that the data cannot give a climatology for."""


@dataclass(frozen=True)
class BasePeriod:
    """The years, both included, whose mean is the climatology."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.start > self.end:
            raise BasePeriodError(f"the base period is reversed: base_start {self.start} is after base_end {self.end}")

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    def __contains__(self, year: int) -> bool:
        return self.start <= year <= self.end

    def __len__(self) -> int:
        return self.end - self.start + 1


@dataclass(frozen=True)
class Event:
    """Consecutive months of warm or cold conditions; `peak` is the index (°C) of its strongest month."""

    kind: Kind
    category: Category
    start: Month
    end: Month
    months: int
    peak: float
    peak_month: Month


def climatology(series: Series, base: BasePeriod) -> tuple[float, ...]:
    """The mean of each calendar month, January first, over the years of the base period that have it (°C).

    Raises `BasePeriodError` where the period reaches beyond the data or a calendar month has fewer than 80 % of its
    years.
    """
    first, last = min(series).year, max(series).year
    for name, year in (("base_start", base.start), ("base_end", base.end)):
        if not first <= year <= last:
            raise BasePeriodError(
                f"the base period {base} reaches beyond the data: {name} is {year}, the data have {first} to {last}"
            )
    normals = []
    for month in range(1, 13):
        values = [value for at, value in series.items() if at.month == month and at.year in base]
        needed = math.ceil(LEAST_SHARE * len(base))
        if len(values) < needed:
            raise BasePeriodError(
                f"the base period {base} has month {month:02d} in {len(values)} of {len(base)} years; "
                f"a climatology needs {needed}"
            )
        normals.append(statistics.fmean(values))
    return tuple(normals)


def anomalies(series: Series, normals: tuple[float, ...]) -> dict[Month, float]:
    """What each month departs from the climatology by (°C)."""
    return {at: value - normals[at.month - 1] for at, value in series.items()}


def icen(departures: Series) -> dict[Month, float]:
    """The centred running mean over three months of anomalies (°C), where all three are there."""
    index = {}
    for at in sorted(departures):
        window = [departures.get(at.plus(step)) for step in (-1, 0, 1)]
        present = [value for value in window if value is not None]
        if len(present) == len(window):
            index[at] = round(statistics.fmean(present), DECIMALS)
    return index


def events(index: Series) -> list[Event]:
    """The warm and cold events in order of time.

    An event is a run of at least three consecutive months beyond the weakest threshold of its kind; a month without
    index ends it. Its category is the highest that at least three of its months reach.
    """
    found = []
    for kind in THRESHOLDS:
        for run in _runs(index, kind):
            if len(run) >= LEAST_MONTHS:
                peak = max(run, key=lambda at: abs(index[at]))
                category = _category(kind, [index[at] for at in run])
                found.append(Event(kind, category, run[0], run[-1], len(run), index[peak], peak))
    return sorted(found, key=lambda event: event.start)


def _runs(index: Series, kind: Kind) -> Iterator[list[Month]]:
    """Every longest run of consecutive months whose condition is of the kind."""
    weakest = THRESHOLDS[kind][0][1]
    run: list[Month] = []
    for at in sorted(index):
        if run and at != run[-1].plus(1):
            yield run
            run = []
        if _beyond(index[at], weakest):
            run.append(at)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _category(kind: Kind, values: list[float]) -> Category:
    weakest, *stronger = THRESHOLDS[kind]
    category = weakest[0]
    for name, threshold in stronger:
        if sum(_beyond(value, threshold) for value in values) >= LEAST_MONTHS:
            category = name
    return category


def _beyond(value: float, threshold: float) -> bool:
    return value > threshold if threshold > 0 else value < threshold
