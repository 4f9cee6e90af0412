"""How the coastal El Niño index depends on its base period: hundreds of runs on IVCAP, all registered with Provena."""

from pathlib import Path

from flows.monthly_table import BUNDLED, Folder, data_file
from flows.services.months import read_series
from ivcap_flows import flow, task
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact, ModelRuns, Order
from ivcap_flows.provena.lineage import Lineage
from ivcap_flows.tasks import OrderStep, explore_lineage, register_model_runs, run_orders, upload_artifact


@flow(name="register-runs")
def register_runs(
    source: str = BUNDLED,
    window_years: tuple[int, ...] = (40, 50, 60),
    base_years: tuple[int, ...] = (15, 20, 25, 30),
    at_once: int = 8,
    output: Folder = Path("results"),
    terms: str | None = None,
    ivcap: str | None = None,
    provena: str | None = None,
) -> tuple[ModelRuns, Lineage]:
    """Order the index of every case, and register all as model runs. Started again, it makes only what is missing.

    Args:
        source: Path of a CSV with the columns YEAR, JAN to DEC, in °C.
        window_years: Lengths of the windows that the series is cut to.
        base_years: Lengths of the base periods.
        at_once: Orders that are on their way together.
        output: Folder for the windows, and for `model-runs.csv` with the outcome of each run.
        terms: Name of a saved block Provena Terms, or path of a YAML file; without it, those of the example.
        ivcap: Name of the saved block whose IVCAP all tasks use; without it, the environment says which.
        provena: Name of the saved block whose Provena all tasks use; without it, the environment says which.
    """
    table = data_file(source)
    years = [month.year for month in read_series(table.read_bytes())]
    cases = grid(years[0], years[-1], window_years, base_years)
    windows = {case[:2]: output / "series-{}-{}.csv".format(*case) for case in cases}
    uploads = {window: upload_artifact.submit(cut(table, path, *window)) for window, path in windows.items()}
    orders = order_indices(cases, [uploads[case[:2]].result() for case in cases], at_once)
    workflow = Path(__file__).with_name("coastal_el_nino.yaml")
    runs = register_model_runs(orders, workflow=workflow, terms=terms, out=output / "model-runs.csv")
    return runs, explore_lineage(runs.runs[-1], "upstream")


@flow(name="order-indices")
def order_indices(cases: list[tuple[int, ...]], series: list[Artifact], at_once: int) -> list[Order]:
    """The index of each case, of the series beside it, once for ever: a subflow."""
    steps = []
    for case, each in zip(cases, series, strict=True):
        parameters = {"series": each, "base_start": case[2], "base_end": case[3]}
        name = "Coastal El Niño index, {}-{} against {}-{}".format(*case)
        steps.append(OrderStep("coastal-el-nino-index", parameters, name, once_per="account"))
    return run_orders(steps, at_once=at_once, max_resubmits=3)


def grid(first: int, last: int, windows: tuple[int, ...], bases: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Each window of so many years, one every five years, and in it each base period alike: first and last years."""
    cases: list[tuple[int, ...]] = [
        (start, start + window - 1, base, base + length - 1)
        for window in windows
        for start in range(first, last - window + 2, 5)
        for length in bases
        for base in range(start, start + window - length + 1, 5)
    ]
    if not cases:
        raise InputError(f"No window of {windows} years with a base period of {bases} years is in the data.")
    return cases


@task(name="Cut the series")
def cut(source: Path, target: Path, start: int, end: int) -> Path:
    """The rows of these years, both included, as a file of their own."""
    header, *rows = source.read_text(encoding="utf-8").splitlines(keepends=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(header + "".join(row for row in rows if start <= int(row[:4]) <= end), encoding="utf-8")
    return target
