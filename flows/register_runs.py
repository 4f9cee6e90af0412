"""How the coastal El Niño index depends on its base period: hundreds of runs on IVCAP, all registered with Provena.

    ivcap-flows local register flows/services/coastal_el_nino_index.yaml
    ivcap-flows run flows/register_runs.py:register_runs --help

The series is cut to windows of years, and the index of each window is ordered against every base period that lies in
it. With nothing configured it runs on the embedded platforms; with `IVCAP_URL`, `IVCAP_JWT` and the Provena settings,
on the real ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from flows.coastal_el_nino import dataset_defaults, read_terms, register_workflow
from flows.monthly_source import BUNDLED, data_file
from flows.services.icen import BasePeriod
from flows.services.months import read_series
from ivcap_flows import flow, task
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact, ModelRuns, Order
from ivcap_flows.provena.models import ModelRunRecord, TemplatedDataset
from ivcap_flows.registration import model_run_record
from ivcap_flows.tasks import (
    OrderStep,
    explore_lineage,
    linked_person,
    register_model_runs,
    run_orders,
    upload_artifact,
)

__all__ = ["Case", "Explored", "RegisterRuns", "grid", "register_runs"]

WINDOW_YEARS = (40, 50, 60)
BASE_YEARS = (15, 20, 25, 30)


@dataclass(frozen=True)
class Case:
    """One run: the years of the series that it sees, and those that its climatology is the mean of."""

    window: BasePeriod
    base: BasePeriod

    def __str__(self) -> str:
        return f"{self.window} against {self.base}"


class Explored(BaseModel):
    """What Provena's lineage leads to from an item, counted by subtype."""

    start: str
    direction: Literal["upstream", "downstream"]
    items: dict[str, int]


class RegisterRuns(BaseModel):
    """What a run leaves behind."""

    runs: ModelRuns
    explored: list[Explored]


def grid(
    years: BasePeriod, window_years: Sequence[int] = WINDOW_YEARS, base_years: Sequence[int] = BASE_YEARS, step: int = 5
) -> list[Case]:
    """Every window in the years, beginning `step` years after the one before, with every base period in it alike.

    Raises InputError where there is none.
    """
    cases = [
        Case(window, base)
        for length in window_years
        for window in _periods(years, length, step)
        for within in base_years
        for base in _periods(window, within, step)
    ]
    if not cases:
        raise InputError(f"No window of {window_years} years lies in {years} with a base period of {base_years} years.")
    return cases


def _periods(within: BasePeriod, length: int, step: int) -> Iterator[BasePeriod]:
    for start in range(within.start, within.end - length + 2, step):
        yield BasePeriod(start, start + length - 1)


@flow(name="register-runs")
def register_runs(
    source: str = BUNDLED,
    window_years: tuple[int, ...] = WINDOW_YEARS,
    base_years: tuple[int, ...] = BASE_YEARS,
    step: int = 5,
    at_once: int = 8,
    output: Path = Path("results"),
    terms: str = "terms.yaml",
    ivcap: str | None = None,
    provena: str | None = None,
) -> RegisterRuns:
    """Order the index of every case, and register all as model runs in one go.

    Started again, it makes only what is not there yet.

    Args:
        source: Path of a CSV with the columns YEAR, JAN to DEC, in °C.
        window_years: Lengths of the windows that the series is cut to.
        base_years: Lengths of the base periods.
        step: Years from the begin of one window or base period to that of the next.
        at_once: Orders that are on their way together.
        output: Folder for the windows, and for `model-runs.csv` with the outcome of each run.
        terms: YAML file with what you state about the datasets: owner, licence, approvals.
        ivcap: Name of the saved block whose IVCAP all tasks use; without it, the environment says which.
        provena: Name of the saved block whose Provena all tasks use; without it, the environment says which.
    """
    stated, table = read_terms(data_file(terms)), data_file(source)
    output = output.expanduser()
    output.mkdir(parents=True, exist_ok=True)
    cases = grid(years_of(table), window_years, base_years, step)
    uploads = {
        window: upload_artifact.submit(cut(table, output / f"series-{window}.csv", window.start, window.end))
        for window in dict.fromkeys(case.window for case in cases)
    }
    series = {window: upload.result() for window, upload in uploads.items()}
    orders = order_indices(cases, [series[case.window] for case in cases], at_once)

    records = describe(cases, orders, series)
    runs = register_model_runs(
        records,
        datasets=dataset_defaults(stated),
        out=output / "model-runs.csv",
    )
    return RegisterRuns(runs=runs, explored=explore(runs))


@flow(name="order-indices")
def order_indices(cases: list[Case], series: list[Artifact], at_once: int) -> list[Order]:
    """The index of each case, of the series beside it: a run of its own within the run."""
    steps = [
        OrderStep(
            "coastal-el-nino-index",
            {"series": each, "base_start": case.base.start, "base_end": case.base.end},
            name=f"Coastal El Niño index, {case}",
            # Once for ever, since it would give the same another time.
            scope="account",
        )
        for case, each in zip(cases, series, strict=True)
    ]
    return run_orders(steps, at_once=at_once)


def years_of(source: Path) -> BasePeriod:
    """The first and the last year of a series."""
    months = read_series(source.read_bytes())
    return BasePeriod(min(months).year, max(months).year)


@task(name="Cut the series")
def cut(source: Path, target: Path, start: int, end: int) -> Path:
    """The rows of these years, both included, as a file of their own."""
    header, *rows = source.read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if start <= int(row.split(",")[0]) <= end]
    target.write_text("".join(f"{row}\n" for row in (header, *kept)), encoding="utf-8")
    return target


def describe(
    cases: Sequence[Case], orders: Sequence[Order], series: dict[BasePeriod, Artifact]
) -> list[tuple[str, ModelRunRecord]]:
    """The records of all runs, each with its order's URN as the key. Templates are registered if Provena lacks them."""
    workflow = register_workflow()
    person = linked_person()

    def dataset(form: str, artifact: Artifact) -> TemplatedDataset:
        return TemplatedDataset(dataset_template_id=form, dataset_id=artifact.urn)

    return [
        (
            done.urn,
            model_run_record(
                done,
                workflow_template=workflow.template.urn,
                modeller=person.urn,
                inputs=[dataset(workflow.series.urn, series[case.window])],
                outputs=[
                    dataset(workflow.index.urn, done.products["index.csv"]),
                    dataset(workflow.events.urn, done.products["events.csv"]),
                ],
                display_name=f"Coastal El Niño index, {case}",
                description=f"ICEN (ENFEN 2012) of the years {case.window} against the climatology of {case.base}.",
                annotations={"window": str(case.window), "base-period": str(case.base)},
            ),
        )
        for case, done in zip(cases, orders, strict=True)
    ]


def explore(runs: ModelRuns) -> list[Explored]:
    """What came of each window's series, and what the last run came of."""
    starts = dict.fromkeys(dataset for run in runs.runs for dataset in run.inputs)
    found = [_explored(start, "downstream") for start in starts]
    return [*found, _explored(runs.runs[-1].urn, "upstream")]


def _explored(start: str, direction: Literal["upstream", "downstream"]) -> Explored:
    items: dict[str, int] = {}
    for node in explore_lineage(start, direction).nodes:
        if node.id != start:
            items[node.subtype] = items.get(node.subtype, 0) + 1
    return Explored(start=start, direction=direction, items=items)
