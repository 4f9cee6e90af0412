"""A chain of orders over many inputs: the seasons of the coastal El Niño index against several base periods.

ivcap-flows run flows/order_pipeline.py:order_pipeline --help

The seasons of each index are ordered one by one from a service that may fail now and then, and its return periods from
one that takes long. Deployed, the run leaves its worker while it waits long. The flow is asynchronous.
"""

import asyncio
from pathlib import Path

from flows.monthly_table import BUNDLED, Folder, YearsText, data_file
from flows.services.coastal_el_nino_report import BASE
from ivcap_flows import flow, task
from ivcap_flows.handles import LocalFile, Order
from ivcap_flows.tasks import OrderStep, adownload_products, arun_order, arun_orders, aupload_artifact


@flow(name="order-pipeline")
async def order_pipeline(
    source: str = BUNDLED,
    bases: tuple[YearsText, ...] = ("1951-1980", "1961-1990", "1971-2000", "1981-2010"),
    seasons: tuple[str, ...] = ("DJF", "MAM", "JJA", "SON"),
    resamples: int = 2000,
    breakdowns: float = 0.0,
    output: Folder = Path("results"),
    ivcap: str | None = None,
) -> dict[str, LocalFile]:
    """Order what each base period makes of the series, and a report on all of them, which is returned.

    Started again after whatever happened, it goes on with the orders that there are.

    Args:
        source: Path of a CSV with the columns YEAR, JAN to DEC, in °C.
        bases: Base periods of the climatology, such as 1981-2010.
        seasons: Seasons by the initials of their months: DJF, MAM, JJA, SON.
        resamples: Resamples of each return period; two million take about two minutes.
        breakdowns: The share of the orders of single seasons that fail on purpose; each is placed up to six times.
        output: Folder for the tables, the report and its plot.
        ivcap: Name of the saved block whose IVCAP all tasks use; without it, the environment says which.
    """
    series = await aupload_artifact(data_file(source), name="Monthly sea surface temperature")
    steps = {}
    for base in bases:
        parameters = {"series": series, "base_start": int(base[:4]), "base_end": int(base[5:])}
        steps[base] = OrderStep("coastal-el-nino-index", parameters, f"Index against {base}")
    indices = await arun_orders(steps, max_resubmits=5)
    chain = {}
    for base, order in indices.items():
        parameters = {"index": order.products["index.csv"], "resamples": resamples}
        chain["returns", base, "all"] = OrderStep(
            "coastal-el-nino-returns", parameters, f"Return periods against {base}"
        )
        for season in seasons:
            parameters = {"index": order.products["index.csv"], "season": season, "breakdowns": breakdowns}
            chain["seasons", base, season] = OrderStep("coastal-el-nino-season", parameters, f"{season} against {base}")
    orders = await arun_orders(chain, max_resubmits=5)
    tables = await asyncio.gather(*(download_table(kind, orders, output) for kind in ("seasons", "returns")))
    parameters = {table.stem: await aupload_artifact(table) for table in tables}
    report = await arun_order("coastal-el-nino-report", parameters, name="Report on all seasons", max_resubmits=5)
    return await adownload_products(report, output)


async def download_table(kind: str, orders: dict[tuple[str, str, str], Order], output: Path) -> Path:
    """The products of the orders of a kind, as one table."""
    names = [name for name in orders if name[0] == kind]
    products = await asyncio.gather(*(adownload_products(orders[name], output / Path(*name)) for name in names))
    files = [file for each in products for file in each.values()]
    return join_tables(files, [base for _, base, _ in names], output / f"{kind}.csv")


# Kept by Prefect, so that a run that parks and wakes need not do it again.
@task(name="Join tables", persist_result=True)
def join_tables(files: list[LocalFile], bases: list[str], target: Path) -> Path:
    """The rows of all files, each after the base period that it is of."""
    tables = [Path(file).read_text(encoding="utf-8").splitlines(keepends=True) for file in files]
    rows = [f"{base},{row}" for base, (_, *rows) in zip(bases, tables, strict=True) for row in rows]
    target.write_text("".join([f"{BASE},{tables[0][0]}", *rows]), encoding="utf-8")
    return target
