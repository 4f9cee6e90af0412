"""A chain of orders over many inputs: the seasons of the coastal El Niño index against several base periods.

    ivcap-flows local register flows/services/*.yaml
    ivcap-flows run flows/order_pipeline.py:order_pipeline --help

An index for each base period; of each index its seasons, ordered one by one from a service that may fail now and then,
and its return periods, from a service that takes long; one report on all. Deployed, the run leaves its worker while it
waits long. The flow is asynchronous. With nothing configured it runs on the embedded platforms; with `IVCAP_URL` and
`IVCAP_JWT`, or the name of a saved block, on a real one.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import BaseModel

from flows.monthly_source import BUNDLED, data_file
from flows.services.coastal_el_nino_report import BASE
from ivcap_flows import flow, task
from ivcap_flows.errors import InputError
from ivcap_flows.handles import LocalFile, Order
from ivcap_flows.tasks import (
    OrderStep,
    adownload_artifact,
    adownload_products,
    arun_order,
    arun_orders,
    aupload_artifact,
)

__all__ = ["OrderPipeline", "order_pipeline"]

BASES: Final = ("1951-1980", "1961-1990", "1971-2000", "1981-2010")
SEASONS: Final = ("DJF", "MAM", "JJA", "SON")
REPEATS: Final = 5
"""So often an order that failed is placed again."""


class OrderPipeline(BaseModel):
    """What a run leaves behind."""

    orders: list[Order]
    report: LocalFile
    plot: LocalFile


class Case(NamedTuple):
    """What an order makes of an index: its product, what that is about, and the base period of the index."""

    product: str
    about: str
    base: str

    def __str__(self) -> str:
        return f"{self.about} against {self.base}"


@flow(name="order-pipeline")
async def order_pipeline(
    source: str = BUNDLED,
    bases: tuple[str, ...] = BASES,
    seasons: tuple[str, ...] = SEASONS,
    resamples: int = 2000,
    breakdowns: float = 0.0,
    output: Path = Path("results"),
    ivcap: str | None = None,
) -> OrderPipeline:
    """Order what each base period makes of the series, and a report on all of them.

    Started again after whatever happened, it goes on with the orders that there are.

    Args:
        source: Path of a CSV with the columns YEAR, JAN to DEC, in °C.
        bases: Base periods of the climatology, such as 1981-2010.
        seasons: Seasons by the initials of their months: DJF, MAM, JJA, SON.
        resamples: Resamples of each return period; two million take about two minutes.
        breakdowns: The share of the orders of single seasons that fail on purpose.
        output: Folder for the tables, the report and its plot.
        ivcap: Name of the saved block whose IVCAP all tasks use; without it, the environment says which.
    """
    series = await aupload_artifact(data_file(source), name="Monthly sea surface temperature")
    indices = {
        base: OrderStep("coastal-el-nino-index", {"series": series, **years(base)}, name=f"Index against {base}")
        for base in bases
    }
    indexed = await arun_orders(indices, max_resubmits=REPEATS)

    steps: dict[Case, OrderStep] = {}
    for base, done in indexed.items():
        index = done.products["index.csv"]
        for season in seasons:
            parameters = {"index": index, "season": season, "breakdowns": breakdowns}
            case = Case("season.csv", season, base)
            steps[case] = OrderStep("coastal-el-nino-season", parameters, name=str(case))
        case = Case("returns.csv", "Return periods", base)
        steps[case] = OrderStep("coastal-el-nino-returns", {"index": index, "resamples": resamples}, name=str(case))
    ordered = await arun_orders(steps, max_resubmits=REPEATS)

    tables = await asyncio.gather(
        put_together("seasons", "season.csv", ordered, output), put_together("returns", "returns.csv", ordered, output)
    )
    parameters = {table.stem: await aupload_artifact(table) for table in tables}
    reported = await arun_order(
        "coastal-el-nino-report", parameters, name="Report on all seasons", max_resubmits=REPEATS
    )
    files = await adownload_products(reported, output)
    orders = [*indexed.values(), *ordered.values(), reported]
    return OrderPipeline(orders=orders, report=files["report.md"], plot=files["plot.png"])


def years(base: str) -> dict[str, int]:
    """The first and the last year of a base period such as `1981-2010`."""
    first, _, last = base.partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        raise InputError(f"The base period {base!r} should be two years, such as 1981-2010.")
    return {"base_start": int(first), "base_end": int(last)}


async def put_together(name: str, product: str, orders: Mapping[Case, Order], output: Path) -> Path:
    """The products of this name as one table, in a file of another."""
    cases = [case for case in orders if case.product == product]
    files = await asyncio.gather(
        *(adownload_artifact(orders[case].products[product], output / name / f"{case}.csv") for case in cases)
    )
    return join_tables(files, [case.base for case in cases], output / f"{name}.csv")


# Kept by Prefect, so that a run that parks and wakes need not do it again.
@task(name="Join tables", persist_result=True)
def join_tables(files: list[LocalFile], bases: list[str], target: Path) -> Path:
    """The rows of all files, each after the base period that it is of."""
    rows: list[str] = []
    for file, base in zip(files, bases, strict=True):
        header, *lines = Path(file).read_text(encoding="utf-8").splitlines()
        rows += [*([] if rows else [f"{BASE},{header}"]), *(f"{base},{line}" for line in lines)]
    target.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return target
