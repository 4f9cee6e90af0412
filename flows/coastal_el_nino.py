"""The coastal El Niño index of a monthly series, computed on IVCAP and registered with Provena.

    python -m flows.coastal_el_nino --help

With nothing configured it runs on the embedded platforms; with `IVCAP_URL`, `IVCAP_JWT` and the Provena settings, on
the real ones.
"""

import csv
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
import yaml
from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ivcap_flows import flow, task
from ivcap_flows.errors import InputError, IvcapFlowsError
from ivcap_flows.handles import Artifact, LocalFile, ModelRun, Order, RegistryItem
from ivcap_flows.provena.datasets import DatasetDefaults
from ivcap_flows.provena.models import DatasetTemplate, Model, Organisation, TemplateUse, WorkflowTemplate
from ivcap_flows.tasks import (
    add_aspect,
    download_artifact,
    place_order,
    register_item,
    register_model_run,
    upload_artifact,
    wait_for_orders,
)

__all__ = ["CoastalElNino", "CoastalElNinoEvents", "ElNinoEvent", "Terms", "coastal_el_nino"]

DATA = Path(__file__).parent / "data"


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


class CoastalElNino(BaseModel):
    """What a run leaves behind."""

    series: Artifact
    order: Order
    model_run: ModelRun
    index: LocalFile
    plot: LocalFile
    events: CoastalElNinoEvents


@flow(name="coastal-el-nino")
def coastal_el_nino(
    source: Path = DATA / "ersst_nino12_monthly.csv",
    base_start: int = 1981,
    base_end: int = 2010,
    output: Path = Path("results"),
    terms: Path = DATA / "terms.yaml",
) -> CoastalElNino:
    """Compute the index of `source` against a base period, download it to `output`, and register the run."""
    stated = read_terms(terms)
    series = upload_artifact(source, name="Monthly sea surface temperature")
    order = place_order("coastal-el-nino-index", {"series": series, "base_start": base_start, "base_end": base_end})
    [done] = wait_for_orders([order])

    index, table, plot = (download(done.products[name], output) for name in ("index.csv", "events.csv", "plot.png"))
    events = read_events(table, base_start, base_end)
    add_aspect(done.products["events.csv"], events)

    series_form, index_form, events_form, workflow = register_workflow()
    model_run = register_model_run(
        done,
        workflow_template=workflow,
        inputs={series_form: series},
        outputs={index_form: done.products["index.csv"], events_form: done.products["events.csv"]},
        display_name=f"Coastal El Niño index against {base_start}-{base_end}",
        description=f"ICEN (ENFEN 2012) of {source.name}: {len(events.events)} events.",
        datasets=dataset_defaults(stated),
    )
    return CoastalElNino(series=series, order=done, model_run=model_run, index=index, plot=plot, events=events)


def download(product: Artifact, folder: Path) -> LocalFile:
    folder = folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return download_artifact(product, folder / str(product.name))


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


def register_workflow() -> tuple[RegistryItem, RegistryItem, RegistryItem, RegistryItem]:
    """What Provena knows of this kind of run: the forms of series, index and events, and the workflow. Made once."""
    model = register_item(
        Model(
            display_name="Índice Costero El Niño (ICEN)",
            name="Índice Costero El Niño",
            description="Centred 3-month running mean of the anomalies of sea surface temperature in Niño 1+2.",
            documentation_url="http://met.igp.gob.pe/elnino/indices.html",
            source_url="http://hdl.handle.net/20.500.12816/4639",
        )
    )
    series = register_item(DatasetTemplate(display_name="Monthly sea surface temperature, one row a year"))
    index = register_item(DatasetTemplate(display_name="Coastal El Niño index by month"))
    events = register_item(DatasetTemplate(display_name="Coastal El Niño events"))
    workflow = register_item(
        WorkflowTemplate(
            display_name="Coastal El Niño index on IVCAP",
            software_id=model.urn,
            input_templates=[TemplateUse(template_id=series.urn)],
            output_templates=[TemplateUse(template_id=index.urn), TemplateUse(template_id=events.urn)],
        )
    )
    return series, index, events, workflow


app = cyclopts.App(version_flags=())


@app.default
def main(
    *,
    source: Path = DATA / "ersst_nino12_monthly.csv",
    base_start: int = 1981,
    base_end: int = 2010,
    output: Path = Path("results"),
    terms: Path = DATA / "terms.yaml",
    fresh: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Compute the coastal El Niño index and its events, and register the run.

    Args:
        source: CSV with the columns YEAR, JAN to DEC, in °C.
        base_start: First year of the climatology's base period.
        base_end: Last year of the climatology's base period.
        output: Folder for the index, the events and the plot.
        terms: YAML file with what you state about the datasets: owner, licence, approvals.
        fresh: Begin anew instead of continuing an unfinished run.
    """
    if fresh:
        os.environ["IVCAP_FLOWS_FRESH"] = "1"
    try:
        run = coastal_el_nino(source, base_start, base_end, output, terms)
    except IvcapFlowsError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    show(run)


def show(run: CoastalElNino) -> None:
    """Print the events found, the identifiers and where the files are."""
    print(f"\n{'event':<20} {'from':<8} {'to':<8} {'months':>6} {'peak °C':>8}")
    for event in run.events.events:
        kind = f"{event.category} {event.kind}"
        print(f"{kind:<20} {event.start:<8} {event.end:<8} {event.months:>6} {event.peak:>+8.2f}")
    print(f"\nseries     {run.series.urn}")
    print(f"order      {run.order.urn}")
    for product in run.order.products:
        print(f"product    {product.urn}  {product.name}")
    print(f"model run  {run.model_run.urn}")
    print(f"plot       {run.plot.path}")


if __name__ == "__main__":
    app()
