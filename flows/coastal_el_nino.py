"""The coastal El Niño index of a monthly table, computed on IVCAP and registered with Provena: a scheduled ETL.

    ivcap-flows run flows/coastal_el_nino.py:coastal_el_nino --help

The table is extracted from an address or a path, checked, loaded into a collection, and the index of its newest month
is ordered and registered, once for each content. With nothing configured it runs on the embedded platforms; with
`IVCAP_URL`, `IVCAP_JWT` and the Provena settings, on the real ones.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.monthly_source import BUNDLED, Validators, data_file, extract
from flows.monthly_table import MonthlyTable, read_table
from flows.services.icen import BasePeriod
from flows.services.months import Month
from ivcap_flows import flow, task
from ivcap_flows.errors import InputError, NotFoundError
from ivcap_flows.handles import Artifact, Collection, LocalFile, ModelRun, Order, RegistryItem
from ivcap_flows.provena.datasets import DatasetDefaults
from ivcap_flows.provena.models import DatasetTemplate, Model, Organisation, TemplateUse, WorkflowTemplate
from ivcap_flows.tasks import (
    OrderStep,
    add_to_collection,
    attach_aspect,
    create_collection,
    download_products,
    get_artifact,
    list_aspects,
    register_item,
    register_model_run,
    run_orders,
    update_aspect,
    upload_artifact,
    wait_for_orders,
)

__all__ = ["CoastalElNino", "CoastalElNinoEvents", "ElNinoEvent", "Published", "Terms", "coastal_el_nino"]

MonthText = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
"""A month such as 1997-03."""
Year = Annotated[int, Field(ge=1800, le=2199)]


class ElNinoEvent(BaseModel):
    """A warm or cold event: its first, last and strongest month (`1997-03`), and the index (°C) of the strongest."""

    kind: Literal["warm", "cold"]
    category: Literal["weak", "moderate", "strong", "extraordinary"]
    start: str
    end: str
    months: int
    peak: float
    peak_month: str


class CoastalElNinoEvents(BaseModel):
    """The aspect that the events table gets."""

    jschema: Literal["urn:ivcap-flows-examples:schema:coastal-el-nino-events.1"] = Field(
        "urn:ivcap-flows-examples:schema:coastal-el-nino-events.1", alias="$schema"
    )
    base_start: int
    base_end: int
    events: list[ElNinoEvent]


class Terms(BaseModel):
    """What you state about the datasets: who owns and publishes them, under which licence (see `data/terms.yaml`)."""

    model_config = ConfigDict(extra="forbid")

    owner: Organisation | None = None
    datasets: DatasetDefaults


class Published(BaseModel):
    """The aspect that the collection gets: the table that was published last, and what was made of it.

    Whichever worker runs the flow next goes on from here.
    """

    jschema: Literal["urn:ivcap-flows-examples:schema:coastal-el-nino-published.1"] = Field(
        "urn:ivcap-flows-examples:schema:coastal-el-nino-published.1", alias="$schema"
    )
    source: str
    validators: Validators
    month: MonthText
    series: str
    order: str
    model_run: str


class CoastalElNino(BaseModel):
    """What a run leaves behind for a month."""

    month: MonthText
    series: Artifact
    order: Order
    model_run: ModelRun
    index: LocalFile
    plot: LocalFile
    events: CoastalElNinoEvents


@dataclass(frozen=True)
class Workflow:
    """What Provena knows of this kind of run: the forms of series, index and events, and the workflow."""

    series: RegistryItem
    index: RegistryItem
    events: RegistryItem
    template: RegistryItem


@flow(name="coastal-el-nino")
def coastal_el_nino(
    source: str = BUNDLED,
    first_month: MonthText | None = None,
    last_month: MonthText | None = None,
    base_start: Year = 1981,
    base_end: Year = 2010,
    max_resubmits: Annotated[int, Field(ge=0)] = 3,
    output: Path = Path("results"),
    terms: str = "terms.yaml",
    ivcap: str | None = None,
    provena: str | None = None,
) -> list[CoastalElNino]:
    """Publish the index of the newest month of a table, once for each content, and download it to a folder.

    A table that was published before is not paid for again: the run publishes nothing, and ends as Completed with the
    name Unchanged. With a range of months, the index is published as it was when each of them was the newest.

    Args:
        source: Address or path of a monthly table: NOAA's text, or a CSV with the columns YEAR, JAN to DEC, in °C.
        first_month: First month of a range to publish, such as 1997-03. Without a range, it is the newest month.
        last_month: Last month of the range.
        base_start: First year of the climatology's base period.
        base_end: Last year of the climatology's base period.
        max_resubmits: How often an order that failed is placed again, in all runs together.
        output: Folder for the table, with a folder for each month: series, index, events and plot.
        terms: YAML file with what you state about the datasets: owner, licence, approvals.
        ivcap: Name of the saved block whose IVCAP all tasks use; without it, the environment says which.
        provena: Name of the saved block whose Provena all tasks use; without it, the environment says which.
    """
    stated = read_terms(data_file(terms))
    output = output.expanduser()
    output.mkdir(parents=True, exist_ok=True)
    base = base_period(base_start, base_end)
    collection = create_collection(f"Coastal El Niño index against {base}")
    is_range = first_month is not None or last_month is not None
    before = None if is_range else published_before(collection, source)

    extracted = extract(source, output, before.validators if before is not None else None)
    if extracted is None:
        assert before is not None  # Only of a version that is known can a server say that it is still the same.
        return unchanged(before, output)
    table = read_table(extracted.file.read_bytes(), source)
    if before is not None and table.last < parsed(before.month):
        raise InputError(f"{source} ends with {table.last}, but {before.month} was published. Is it half a table?")

    months = months_of(table, first_month, last_month)
    if not min(table.temperatures).year <= base.start <= base.end <= months[0].year:
        reach = f"{min(table.temperatures)} to {months[0]}"
        raise InputError(
            f"The base period {base} should lie in the series, which goes from {reach}. Nothing was ordered."
        )
    folders = [output / str(month) for month in months]
    series = load(extracted.file, months, folders, collection)
    if before is not None and series[0].urn == before.series:
        now = before.model_copy(update={"validators": extracted.validators})
        update_aspect(collection, now)
        return unchanged(before, output)

    steps = [
        OrderStep(
            "coastal-el-nino-index",
            {"series": each, "base_start": base_start, "base_end": base_end},
            name=f"Coastal El Niño index to {month} against {base}",
            collection=collection,
            # Once for each content, whichever run comes to it first.
            scope="account",
        )
        for month, each in zip(months, series, strict=True)
    ]
    orders = run_orders(steps, max_resubmits=max_resubmits)

    workflow, datasets = register_workflow(), dataset_defaults(stated)
    made = [
        publish(each, done, base, workflow, datasets, month=str(month), folder=folder)
        for month, folder, each, done in zip(months, folders, series, orders, strict=True)
    ]
    if not is_range:
        now = published(made[0], source, extracted.validators)
        update_aspect(collection, now)
    return made


def base_period(start: int, end: int) -> BasePeriod:
    if start > end:
        raise InputError(f"The base period ends in {end}, before it begins in {start}.")
    return BasePeriod(start, end)


def published_before(collection: Collection, source: str) -> Published | None:
    """What was published last of this source, unless its series can no longer be read."""
    for aspect in list_aspects(collection, schema=Published, limit=1):
        before = Published.model_validate(aspect.content)
        if before.source == source and is_readable(before.series):
            return before
    return None


def published(made: CoastalElNino, source: str, validators: Validators) -> Published:
    return Published(
        source=source,
        validators=validators,
        month=made.month,
        series=made.series.urn,
        order=made.order.urn,
        model_run=made.model_run.urn,
    )


def is_readable(artifact: str) -> bool:
    try:
        get_artifact(artifact)
    except NotFoundError:
        return False
    return True


def unchanged(before: Published, output: Path) -> list[CoastalElNino]:
    """End a run for which there is nothing to publish. The results are in the folder all the same."""
    [done] = wait_for_orders([before.order])
    download_products(done, output / before.month)
    said = f"{before.source} still ends with {before.month}, published by {before.order} as {before.model_run}."
    return Completed(name="Unchanged", message=said, data=[])  # type: ignore[return-value] # the flow returns the data


def months_of(table: MonthlyTable, first: str | None, last: str | None) -> list[Month]:
    """The months to publish: those of the range, else the newest. Raises InputError where the table has none."""
    end = parsed(last) if last is not None else table.last
    begin = parsed(first) if first is not None else end
    months = [month for month in table.temperatures if begin <= month <= end]
    if not months:
        raise InputError(f"The series has no month from {begin} to {end}; its last is {table.last}.")
    return months


def parsed(month: str) -> Month:
    year, _, number = month.partition("-")
    return Month(int(year), int(number))


def load(table: Path, months: list[Month], folders: list[Path], collection: Collection) -> list[Artifact]:
    """The table as it was in each month, as an artifact of the collection."""
    files = [cut(table, month, folder / "series.csv") for month, folder in zip(months, folders, strict=True)]
    names = [f"Monthly sea surface temperature to {month}" for month in months]
    series = upload_artifact.map(files, name=names).result()
    add_to_collection(collection, series)
    return series


@task(name="Cut the series", task_run_name="series to {month}", tags=["replay-safe"])
def cut(table: Path, month: Month, target: Path) -> Path:
    """The table up to this month, in a file as the services take it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(read_table(table.read_bytes(), table.name).until(month).csv(), encoding="utf-8")
    return target


def publish(
    series: Artifact,
    done: Order,
    base: BasePeriod,
    workflow: Workflow,
    datasets: DatasetDefaults,
    *,
    month: str,
    folder: Path,
) -> CoastalElNino:
    """Download what an order made, say what events are in it, and register the run, once."""
    files = download_products(done, folder)
    events = read_events(files["events.csv"], base.start, base.end)
    attach_aspect(done.products["events.csv"], events, scope="account")
    model_run = register_model_run(
        done,
        workflow_template=workflow.template,
        inputs={workflow.series: series},
        outputs={workflow.index: done.products["index.csv"], workflow.events: done.products["events.csv"]},
        display_name=f"Coastal El Niño index to {month} against {base}",
        description=f"ICEN (ENFEN 2012) of the months to {month}: {len(events.events)} events.",
        datasets=datasets,
    )
    return CoastalElNino(
        month=month,
        series=series,
        order=done,
        model_run=model_run,
        index=files["index.csv"],
        plot=files["plot.png"],
        events=events,
    )


@task(name="Read the events")
def read_events(table: LocalFile, base_start: int, base_end: int) -> CoastalElNinoEvents:
    """The rows of the events table, typed."""
    with Path(table).open(encoding="utf-8", newline="") as file:
        rows = [ElNinoEvent.model_validate(row) for row in csv.DictReader(file)]
    return CoastalElNinoEvents(base_start=base_start, base_end=base_end, events=rows)


def read_terms(path: Path) -> Terms:
    """The statements of a terms file. Raises `InputError` where it cannot be read or states something unknown."""
    try:
        return Terms.model_validate(yaml.safe_load(path.expanduser().read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as fault:
        raise InputError(f"The terms file {path} cannot be used: {fault}") from fault


def dataset_defaults(terms: Terms) -> DatasetDefaults:
    """The statements about datasets; an owner that has no id yet is registered with Provena."""
    if terms.owner is None:
        return terms.datasets
    owner = register_item(terms.owner)
    return terms.datasets.model_copy(update={"organisation_id": owner.urn, "publisher_id": owner.urn})


def register_workflow() -> Workflow:
    """Tell Provena of this kind of run, once."""
    model = register_item(
        Model(
            display_name="Índice Costero El Niño (ICEN)",
            name="Índice Costero El Niño",
            description="Centred 3-month running mean of the anomalies of sea surface temperature in Niño 1+2.",
            documentation_url="http://met.igp.gob.pe/elnino/indices.html",
            source_url="http://hdl.handle.net/20.500.12816/4639",
        ),
    )
    forms = [
        DatasetTemplate(display_name="Monthly sea surface temperature, one row a year"),
        DatasetTemplate(display_name="Coastal El Niño index by month"),
        DatasetTemplate(display_name="Coastal El Niño events"),
    ]
    series, index, events = register_item.map(forms).result()
    template = register_item(
        WorkflowTemplate(
            display_name="Coastal El Niño index on IVCAP",
            software_id=model.urn,
            input_templates=[TemplateUse(template_id=series.urn)],
            output_templates=[TemplateUse(template_id=index.urn), TemplateUse(template_id=events.urn)],
        ),
    )
    return Workflow(series, index, events, template)
