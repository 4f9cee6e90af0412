"""The service `coastal-el-nino-season`: one season of an index by year, and the condition it was in."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from flows.services.job import Job, artifact, number, option
from flows.services.seasons import SEASONS, condition, season_means
from flows.services.tables import SEASONS_HEADER, decimal, read_index, table
from ivcap_flows.local.services.job import ServiceError

__all__ = ["RESULT_SCHEMA", "BreakdownError", "run"]

RESULT_SCHEMA: Final = "urn:ivcap-flows-examples:schema:coastal-el-nino-season.result.1"


class BreakdownError(ServiceError):
    """The machine went away under the job."""


def run(request: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The means and conditions of the `season` in the artifact `index`, the `index.csv` of an index.

    Product: `season.csv` (°C). `breakdowns` is the share of jobs that fail, as on machines that go away now and then.
    """
    index_urn, season = artifact(request, "index"), option(request, "season", SEASONS)
    breakdowns = number(request, "breakdowns", 0.0, least=0.0, most=1.0)
    means = season_means(read_index(job.read_artifact(index_urn)), season)
    job.log(f"Read {len(means)} years of {season} from {index_urn}.")
    if random.random() < breakdowns:  # noqa: S311 - no secret
        raise BreakdownError("The machine that ran this job went away. Order it again.")

    conditions = {year: condition(mean) for year, mean in means.items()}
    rows = [(season, year, decimal(mean), conditions[year]) for year, mean in means.items()]
    job.add_product("season.csv", table(SEASONS_HEADER, rows), "text/csv")
    return {"$schema": RESULT_SCHEMA, "season": season, "conditions": dict(Counter(conditions.values()))}
