"""The coastal El Niño index of a monthly table, computed on IVCAP and registered with Provena: a scheduled ETL.

ivcap-flows run flows/coastal_el_nino.py:coastal_el_nino --help
"""

from pathlib import Path

from prefect import unmapped
from prefect.states import Completed

from flows.monthly_table import BUNDLED, Folder, MonthText, data_file, months_of, read_events, read_table
from ivcap_flows import flow, task
from ivcap_flows.handles import LocalFile, ModelRun, Order
from ivcap_flows.tasks import (
    OrderStep,
    add_to_collection,
    attach_aspect,
    create_collection,
    download_products,
    fetch_url,
    register_model_run,
    run_orders,
    upload_artifact,
)


@flow(name="coastal-el-nino")
def coastal_el_nino(
    source: str = BUNDLED,
    first_month: MonthText | None = None,
    last_month: MonthText | None = None,
    base_start: int = 1981,
    base_end: int = 2010,
    output: Folder = Path("results"),
    terms: str | None = None,
    ivcap: str | None = None,
    provena: str | None = None,
) -> dict[str, tuple[Order, ModelRun, dict[str, LocalFile]]]:
    """Publish the index of a table's newest month, or of a range of months, once for each content.

    A run without anything new ends as Completed with the name Unchanged.

    Args:
        source: Address or path of a monthly table: NOAA's text, or a CSV with the columns YEAR, JAN to DEC, in °C.
        first_month: First month of a range to publish, such as 1997-03. Without a range, it is the newest month.
        last_month: Last month of the range.
        base_start: First year of the climatology's base period.
        base_end: Last year of the climatology's base period.
        output: Folder for the table, with a folder for each month: series, index, events and plot.
        terms: Name of a saved block Provena Terms, or path of a YAML file; without it, those of the example.
        ivcap: Name of the saved block whose IVCAP all tasks use; without it, the environment says which.
        provena: Name of the saved block whose Provena all tasks use; without it, the environment says which.
    """
    table = Path(fetch_url(source, output / "table.txt")) if "://" in source else data_file(source)
    months = months_of(table, first_month, last_month, (base_start, base_end))
    cuts = cut.map(unmapped(table), months, [output / month / "series.csv" for month in months])
    series = upload_artifact.map(cuts, name=[f"Monthly sea surface temperature to {each}" for each in months]).result()
    collection = add_to_collection(create_collection(f"Coastal El Niño index against {base_start}-{base_end}"), series)
    steps = {}
    for month, each in zip(months, series, strict=True):
        parameters = {"series": each, "base_start": base_start, "base_end": base_end}
        name = f"Coastal El Niño index to {month} against {base_start}-{base_end}"
        steps[month] = OrderStep("coastal-el-nino-index", parameters, name, collection=collection, once_per="account")
    made = {}
    for month, done in run_orders(steps, max_resubmits=3).items():
        files = download_products(done, output / month)
        attach_aspect(done.products["events.csv"], read_events(files["events.csv"]), once_per="account")
        run = register_model_run(done, workflow=Path(__file__).with_suffix(".yaml"), terms=terms)
        made[month] = done, run, files
    if all(each.how != "sent" for done, run, _ in made.values() for each in (done, run)):
        return Completed(name="Unchanged", message=f"As before, to {months[-1]}.", data=made)  # type: ignore[return-value]
    return made


@task(name="Cut the series", task_run_name="series to {month}", tags=["replay-safe"])
def cut(table: Path, month: str, target: Path) -> Path:
    """The table as it was when this month was the newest, in a file as the services take it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(read_table(table).until(month).csv(), encoding="utf-8")
    return target
