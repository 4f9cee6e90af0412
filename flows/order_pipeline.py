"""A chain of orders over many inputs: the seasons of the coastal El Niño index against several base periods.

    ivcap-flows local register flows/services/*.yaml
    python -m flows.order_pipeline --help

An index for each base period; of each index its seasons, ordered one by one from a service that may fail now and then,
and its return periods, from a service that takes long; one report on all. Deployed, the run leaves its worker while it
waits long. With nothing configured it runs on the embedded platforms; with `IVCAP_URL` and `IVCAP_JWT`, on a real one.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import cyclopts
from cyclopts import Parameter
from pydantic import BaseModel

from flows.services.coastal_el_nino_report import BASE
from ivcap_flows import flow, task
from ivcap_flows.errors import InputError, IvcapFlowsError
from ivcap_flows.handles import LocalFile, Order
from ivcap_flows.tasks import OrderStep, download_artifact, run_orders, upload_artifact

__all__ = ["OrderPipeline", "order_pipeline"]

DATA: Final = Path(__file__).parent / "data"
BASES: Final = ("1951-1980", "1961-1990", "1971-2000", "1981-2010")
SEASONS: Final = ("DJF", "MAM", "JJA", "SON")
REPEATS: Final = 5
"""So often an order that failed is placed again."""


class OrderPipeline(BaseModel):
    """What a run leaves behind."""

    orders: list[Order]
    report: LocalFile
    plot: LocalFile


@flow(name="order-pipeline")
def order_pipeline(
    source: Path = DATA / "ersst_nino12_monthly.csv",
    bases: tuple[str, ...] = BASES,
    seasons: tuple[str, ...] = SEASONS,
    resamples: int = 2000,
    breakdowns: float = 0.0,
    output: Path = Path("results"),
) -> OrderPipeline:
    """Order what each base period (`1981-2010`) makes of the series, and a report on all of them.

    `breakdowns` is the share of the orders of single seasons that fail on purpose, and `resamples` how thorough the
    return periods are, which then take longer. Started again after whatever happened, it goes on with the orders that
    there are.
    """
    output = output.expanduser()
    output.mkdir(parents=True, exist_ok=True)
    series = upload_artifact(source, name="Monthly sea surface temperature")

    indices = [
        OrderStep("coastal-el-nino-index", {"series": series, **years(base)}, name=f"Index against {base}")
        for base in bases
    ]
    indexed = run_orders(indices, max_resubmits=REPEATS)
    index_of = {base: done.products["index.csv"] for base, done in zip(bases, indexed, strict=True)}

    cases = [(base, season) for base in bases for season in seasons]
    seasonal = [
        OrderStep(
            "coastal-el-nino-season",
            {"index": index_of[base], "season": season, "breakdowns": breakdowns},
            name=f"{season} against {base}",
        )
        for base, season in cases
    ]
    returns = [
        OrderStep(
            "coastal-el-nino-returns",
            {"index": index_of[base], "resamples": resamples},
            name=f"Return periods against {base}",
        )
        for base in bases
    ]
    ordered = run_orders([*seasonal, *returns], max_resubmits=REPEATS)
    split = len(seasonal)
    tables = [
        put_together("seasons", "season.csv", seasonal, ordered[:split], [base for base, _ in cases], output),
        put_together("returns", "returns.csv", returns, ordered[split:], bases, output),
    ]

    parameters = {table.stem: upload_artifact(table) for table in tables}
    step = OrderStep("coastal-el-nino-report", parameters, name="Report on all seasons")
    [reported] = run_orders([step], max_resubmits=REPEATS)
    report, plot = (download_artifact(reported.products[name], output / name) for name in ("report.md", "plot.png"))
    return OrderPipeline(orders=[*indexed, *ordered, reported], report=report, plot=plot)


def years(base: str) -> dict[str, int]:
    """The first and the last year of a base period such as `1981-2010`."""
    first, _, last = base.partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        raise InputError(f"The base period {base!r} should be two years, such as 1981-2010.")
    return {"base_start": int(first), "base_end": int(last)}


def put_together(
    name: str, product: str, steps: Sequence[OrderStep], orders: Sequence[Order], bases: Sequence[str], output: Path
) -> Path:
    """The tables that the steps were after as one, in a file of this name."""
    parts = output / name
    parts.mkdir(exist_ok=True)
    files = [
        download_artifact(done.products[product], parts / f"{step.name}.csv")
        for step, done in zip(steps, orders, strict=True)
    ]
    return join_tables(files, list(bases), output / f"{name}.csv")


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


app = cyclopts.App(version_flags=())


@app.default
def main(
    *,
    source: Path = DATA / "ersst_nino12_monthly.csv",
    bases: tuple[str, ...] = BASES,
    seasons: tuple[str, ...] = SEASONS,
    resamples: int = 2000,
    breakdowns: float = 0.0,
    output: Path = Path("results"),
    fresh: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Order the seasons of the coastal El Niño index against several base periods, and a report on all of them.

    Args:
        source: CSV with the columns YEAR, JAN to DEC, in °C.
        bases: Base periods of the climatology, such as 1981-2010.
        seasons: Seasons by the initials of their months: DJF, MAM, JJA, SON.
        resamples: Resamples of each return period; two million take about two minutes.
        breakdowns: The share of the orders of single seasons that fail on purpose.
        output: Folder for the tables, the report and its plot.
        fresh: Begin anew instead of continuing an unfinished run.
    """
    if fresh:
        os.environ["IVCAP_FLOWS_FRESH"] = "1"
    try:
        made = order_pipeline(source, bases, seasons, resamples, breakdowns, output)
    except IvcapFlowsError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    show(made)


def show(made: OrderPipeline) -> None:
    """Print the orders by service, how many were placed again, and where the report is."""
    print()
    for service in dict.fromkeys(order.service_name for order in made.orders):
        count = sum(order.service_name == service for order in made.orders)
        print(f"{count:>4} x {service}")
    print(f"\nreport  {made.report.path}")
    print(f"plot    {made.plot.path}")


if __name__ == "__main__":
    app()
