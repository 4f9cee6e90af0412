"""The service `coastal-el-nino-report`: what seasons and return periods say against several base periods, in one page.

Its tables are those of `coastal-el-nino-season` and `coastal-el-nino-returns`, put together with the base period as
their first column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from flows.services.job import Job, artifact
from flows.services.report_plot import report_plot
from flows.services.seasons import CONDITIONS, SEASONS
from flows.services.tables import RETURNS_HEADER, SEASONS_HEADER, TableError, read_table

__all__ = ["BASE", "RESULT_SCHEMA", "run"]

RESULT_SCHEMA: Final = "urn:ivcap-flows-examples:schema:coastal-el-nino-report.result.1"
BASE: Final = "base"
"""The column that tells the base period of a row, such as `1981-2010`."""


def run(request: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The report on the artifacts `seasons` and `returns`. Products: `report.md` and `plot.png`."""
    seasons_urn, returns_urn = artifact(request, "seasons"), artifact(request, "returns")
    seasons = read_table(job.read_artifact(seasons_urn), (BASE, *SEASONS_HEADER))
    returns = read_table(job.read_artifact(returns_urn), (BASE, *RETURNS_HEADER))
    means = _means(seasons)
    bases = list(means)
    job.log(f"Read {len(seasons)} seasons and {len(returns)} return periods against {len(bases)} base periods.")
    products = {
        "report.md": ("\n".join(_report(means, returns)).encode(), "text/markdown"),
        "plot.png": (report_plot(means, source=seasons_urn), "image/png"),
    }
    for name, (data, media_type) in products.items():
        job.add_product(name, data, media_type)
    return {"$schema": RESULT_SCHEMA, "bases": bases, "products": list(products)}


def _means(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[str, dict[int, float]]]:
    """The mean index by base period, season and year."""
    means: dict[str, dict[str, dict[int, float]]] = {}
    for number, row in enumerate(rows, start=2):
        try:
            of_base = means.setdefault(row[BASE], {name: {} for name in SEASONS})
            of_base[row["season"]][int(row["year"])] = float(row["icen"])
        except (KeyError, ValueError) as fault:
            raise TableError(f"row {number} is no season: {fault}") from fault
    if not means:
        raise TableError("there is no season to report on")
    return means


def _report(
    means: Mapping[str, Mapping[str, Mapping[int, float]]], returns: Sequence[Mapping[str, str]]
) -> Iterator[str]:
    bases = list(means)
    yield "# Seasons of the coastal El Niño index\n"
    yield "The strongest warm and cold season of each kind, by base period (°C, and its year):\n"
    yield f"| season | {' | '.join(bases)} |"
    yield f"|---|{'---|' * len(bases)}"
    for season in SEASONS:
        for name, pick in (("warmest", max), ("coldest", min)):
            cells = []
            for base in bases:
                of_season = means[base][season]
                year = pick(of_season, key=of_season.__getitem__) if of_season else None
                cells.append("" if year is None else f"{of_season[year]:+.2f} ({year})")
            yield f"| {season} {name} | {' | '.join(cells)} |"
    yield "\nYears from one season of a condition, or a stronger one, to the next (90 % interval, block bootstrap):\n"
    yield f"| season | condition | {' | '.join(bases)} |"
    yield f"|---|---|{'---|' * len(bases)}"
    by_place = {(row["season"], row["condition"], row[BASE]): row for row in returns}
    for season in SEASONS:
        for name in CONDITIONS:
            found = [by_place.get((season, name, base)) for base in bases]
            if any(found):
                yield f"| {season} | {name} | {' | '.join(_years(row) for row in found)} |"
    yield ""


def _years(row: Mapping[str, str] | None) -> str:
    """A return period as `8.7 (5.1 to 20.3)`; a bound that no resample gave is `∞`."""
    if row is None:
        return "never"
    years, low, high = (_short(row[name]) for name in ("years", "low", "high"))
    return f"{years} ({low} to {high})"


def _short(years: str) -> str:
    return "∞" if years == "inf" else f"{float(years):.1f}"
