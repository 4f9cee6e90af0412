"""The service `coastal-el-nino-returns`: how rarely each condition of each season comes back, with its interval.

The more resamples, the longer it takes: two million about two minutes on one core.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flows.services.job import Job, artifact, number
from flows.services.seasons import SEASONS, return_periods, season_means
from flows.services.tables import RETURNS_HEADER, decimal, read_index, table

__all__ = ["RESULT_SCHEMA", "run"]

RESULT_SCHEMA: Final = "urn:ivcap-flows-examples:schema:coastal-el-nino-returns.result.1"
MOST_RESAMPLES: Final = 10_000_000


def run(request: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The return periods in the artifact `index`, an `index.csv`, each with an interval of `resamples` resamples.

    Product: `returns.csv` (years). The same index and number of resamples give the same table.
    """
    index_urn = artifact(request, "index")
    resamples = int(number(request, "resamples", 2000, least=100, most=MOST_RESAMPLES))
    index = read_index(job.read_artifact(index_urn))
    rows = []
    for season in SEASONS:
        for period in return_periods(season_means(index, season), resamples, seed=season):
            years = (decimal(each) for each in (period.years, period.low, period.high))
            rows.append((season, period.condition, period.seasons, *years))
        job.log(f"Resampled {season} {resamples} times.")
    job.add_product("returns.csv", table(RETURNS_HEADER, rows), "text/csv")
    return {"$schema": RESULT_SCHEMA, "index": index_urn, "resamples": resamples, "rows": len(rows)}
