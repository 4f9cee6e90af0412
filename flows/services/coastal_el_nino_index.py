"""The service `coastal-el-nino-index`: the ICEN of a monthly series, its events and a plot, each as a product.

It needs nothing but the series; `flows.services.icen` says what is computed and from which sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from flows.services.icen import BasePeriod, BasePeriodError, Event, anomalies, climatology, events, icen
from flows.services.job import Job, artifact
from flows.services.months import Month, Series, read_series
from flows.services.plot import plot
from flows.services.tables import EVENTS_HEADER, INDEX_HEADER, decimal, table

__all__ = ["RESULT_SCHEMA", "run"]

RESULT_SCHEMA: Final = "urn:ivcap-flows-examples:schema:coastal-el-nino-index.result.1"


def run(request: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Compute the index of the artifact `series` against the base period `base_start` to `base_end`.

    Products: `index.csv` and `events.csv` (°C), `plot.png`. They are stored together, after all three are made, so
    that a faulty series or base period leaves none behind: `SeriesError` names line and column, `BasePeriodError` the
    years.
    """
    series_urn = artifact(request, "series")
    base = BasePeriod(_year(request, "base_start", 1981), _year(request, "base_end", 2010))
    series = read_series(job.read_artifact(series_urn))
    job.log(f"Read {len(series)} months, {min(series)} to {max(series)}, of {series_urn}.")

    normals = climatology(series, base)
    departures = anomalies(series, normals)
    index = icen(departures)
    found = events(index)
    job.log(f"Found {len(found)} events in {len(index)} months of the index against {base}.")

    products = {
        "index.csv": (_index_csv(series, normals, departures, index), "text/csv"),
        "events.csv": (_events_csv(found), "text/csv"),
        "plot.png": (plot(index, found, base=base, source=series_urn), "image/png"),
    }
    for name, (data, media_type) in products.items():
        job.add_product(name, data, media_type)
    return {
        "$schema": RESULT_SCHEMA,
        "series": series_urn,
        "base_start": base.start,
        "base_end": base.end,
        "events": [_plain(event) for event in found],
        "products": list(products),
    }


def _year(request: Mapping[str, Any], name: str, default: int) -> int:
    """A year among the parameters; an order carries it as text, a job as a number."""
    value = request.get(name, default)
    if isinstance(value, bool) or not str(value).strip().isdecimal():
        raise BasePeriodError(f"{name} is {value!r}; it should be a year such as {default}")
    return int(value)


def _plain(event: Event) -> dict[str, Any]:
    """The event as JSON and CSV have it: months as `1997-03`."""
    return {name: str(value) if isinstance(value, Month) else value for name, value in asdict(event).items()}


def _index_csv(series: Series, normals: tuple[float, ...], departures: Series, index: Series) -> bytes:
    return table(
        INDEX_HEADER,
        (
            (at, value, *(decimal(part) for part in (normals[at.month - 1], departures[at], index.get(at))))
            for at, value in series.items()
        ),
    )


def _events_csv(found: Iterable[Event]) -> bytes:
    rows = (_plain(event) | {"peak": decimal(event.peak)} for event in found)
    return table(EVENTS_HEADER, ([row[name] for name in EVENTS_HEADER] for row in rows))
