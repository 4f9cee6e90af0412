"""Libraries that read and write files: pandas, xarray, Zarr, matplotlib; in Python, and in C, where nobody looks on."""

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.task_runners import ThreadPoolTaskRunner

from ivcap_flows import recorded
from ivcap_flows.capture import journal
from ivcap_flows.cli.diff import difference

Edges = Callable[..., list[dict[str, str]]]


def test_pandas(tmp_path: Path, edges: Edges) -> None:
    """A table is read from a file, passed on, and written to another format over the one of last time."""
    pd.DataFrame({"month": range(24), "value": range(24, 48)}).to_csv(tmp_path / "raw.csv")
    (tmp_path / "table.parquet").write_text("what was here before")

    @task
    @recorded
    def load(path: Path) -> pd.DataFrame:
        return pd.read_csv(path, index_col=0)

    @task
    @recorded
    def save(table: pd.DataFrame, target: Path) -> None:
        table.to_parquet(target)

    @flow
    @recorded
    def main() -> None:
        save(load(tmp_path / "raw.csv"), tmp_path / "table.parquet")

    main()
    edges(
        {
            ("used", "load", "raw.csv"),
            ("made", "load", "load()"),
            ("used", "save", "load()"),
            ("made", "save", "table.parquet"),
        }
    )


def test_a_column_that_gets_another_type_in_place(tmp_path: Path, edges: Edges) -> None:
    """Texts become dates, times get a zone and then another one: each step makes a table from the one before."""
    hours = pd.date_range("2021-04-03", periods=50, freq="h")
    pd.DataFrame({"time": hours, "day": hours.date, "level": np.sin(np.arange(50))}).to_csv(tmp_path / "tides.csv")

    @task
    @recorded
    def load(path: Path) -> pd.DataFrame:
        return pd.read_csv(path, index_col=0, parse_dates=["time"], dtype={"day": object})

    @task
    @recorded
    def parse(table: pd.DataFrame) -> None:
        table["day"] = pd.to_datetime(table["day"]).dt.date

    @task
    @recorded
    def localise(table: pd.DataFrame) -> None:
        table["time"] = table["time"].dt.tz_localize("UTC")

    @task
    @recorded
    def convert(table: pd.DataFrame) -> pd.DataFrame:
        table["time"] = table["time"].dt.tz_convert("Australia/Hobart")
        return table

    @flow
    @recorded
    def main() -> None:
        table = load(tmp_path / "tides.csv")
        parse(table)
        localise(table)
        convert(table)

    main()
    steps = ["load", "parse", "localise", "convert"]
    edges(
        {("used", "load", "tides.csv")}
        | {("made", step, f"{step}()") for step in steps}
        | {("used", step, f"{before}()") for before, step in pairwise(steps)}
        | {("derived", f"{step}()", f"{before}()") for before, step in pairwise(steps)}
    )


def test_one_file_read_as_numbers_of_two_types(tmp_path: Path, prefect_api: None, edges: Edges) -> None:
    """The bytes are the same, the arrays are not, and so `diff` says."""
    np.sin(np.arange(100, dtype="<f4")).tofile(tmp_path / "levels.bin")

    @task
    @recorded
    def load(path: Path, kind: str) -> np.ndarray:
        return np.fromfile(path, [("level", kind)])

    @flow
    @recorded
    def main(kind: str) -> None:
        load(tmp_path / "levels.bin", kind)

    main("<i4")
    main("<f4")
    edges(
        {("used", f"load[{run}]", "levels.bin") for run in range(2)}
        | {("made", f"load[{run}]", f"load[{run}]()") for run in range(2)},
        runs=2,
    )
    second, first = journal().runs.recent(2)
    [output] = difference(journal(), first, second).outputs
    assert "parameter kind: <i4 → <f4" in output.why


@pytest.mark.parametrize("values", [lambda: np.full(100, np.nan), lambda: np.arange(100)], ids=["missing", "range"])
def test_arrays_of_two_runs_that_are_equal_by_chance(values: Callable[[], np.ndarray], edges: Edges) -> None:
    """Each run has its own."""

    @task
    @recorded
    def make() -> np.ndarray:
        return values()

    @task
    @recorded
    def show(array: np.ndarray) -> None:
        """Do nothing."""

    @flow
    @recorded
    def main() -> None:
        show(make())

    main()
    main()
    edges(
        {("made", f"make[{run}]", f"make[{run}]()") for run in range(2)}
        | {("used", f"show[{run}]", f"make[{run}]()") for run in range(2)},
        runs=2,
    )


def test_a_table_from_the_cache_leads_to_the_run_that_made_it(tmp_path: Path, edges: Edges) -> None:
    """Though that task does not run again."""

    @task(cache_policy=INPUTS, persist_result=True, result_storage_key="tides-{parameters[key]}")
    @recorded
    def tides(key: str) -> pd.DataFrame:
        return pd.DataFrame({"level": np.sin(np.arange(100) * len(key))})

    @task
    @recorded
    def show(table: pd.DataFrame) -> None:
        """Do nothing."""

    @flow
    @recorded
    def main() -> None:
        show(tides(tmp_path.name))

    main()
    main()
    edges({("made", "tides", "tides()"), ("used", "show[0]", "tides()"), ("used", "show[1]", "tides()")}, runs=2)


def test_xarray_and_a_library_in_c(tmp_path: Path, edges: Edges) -> None:
    """netCDF is read and written in C: a new file is its task's; an input that stays as it is has been used."""
    xr.Dataset({"t": ("x", [float(n) for n in range(32)])}).to_netcdf(tmp_path / "raw.nc", engine="netcdf4")

    @task
    @recorded
    def anomaly(source: Path, target: Path) -> None:
        with xr.open_dataset(source, engine="netcdf4") as data:
            (data - data.mean()).to_netcdf(target, engine="netcdf4")

    @flow
    @recorded
    def main() -> None:
        # One after the other: the library allows no second thread.
        for number in range(2):
            anomaly(tmp_path / "raw.nc", tmp_path / f"{number}.nc")

    main()
    edges(
        {("given", f"anomaly[{number}]", "raw.nc") for number in range(2)}
        | {("made", f"anomaly[{number}]", f"{number}.nc") for number in range(2)}
    )


def add_array(group: zarr.Group, name: str, **options: Any) -> Any:
    """Of zarr 2, too, which is the newest for Python 3.10."""
    create = group.create_array if hasattr(zarr.Group, "create_array") else group.create_dataset
    return create(name, dtype="f8", **options)


def test_a_zarr_store(tmp_path: Path, edges: Edges) -> None:
    """A store is one thing: made, used, and continued."""

    @task
    @recorded
    def create(store: Path) -> Path:
        xr.Dataset({"t": ("x", [float(n) for n in range(32)])}).to_zarr(store, mode="w", consolidated=False)
        return store

    @task
    @recorded
    def mean(store: Path, target: Path) -> None:
        target.write_text(f"the mean of all is {zarr.open_group(store, mode='r')['t'][:].mean()}")

    @task
    @recorded
    def extend(store: Path) -> None:
        add_array(zarr.open_group(store, mode="a"), "u", shape=(8,))[:] = 1.0

    @flow
    @recorded
    def main() -> None:
        store = create(tmp_path / "t.zarr")
        mean(store, tmp_path / "mean.txt")
        extend(store)

    main()
    edges(
        {
            ("made", "create", "t.zarr/"),
            ("used", "mean", "t.zarr/"),
            ("made", "mean", "mean.txt"),
            ("used", "extend", "t.zarr/"),
            ("made", "extend", "t.zarr/#2"),
            ("derived", "t.zarr/#2", "t.zarr/"),
        }
    )


def test_two_write_to_one_zarr_store_at_once(tmp_path: Path, edges: Edges) -> None:
    """What either left when it ended was not its own alone: the store that comes of it has no maker."""
    add_array(zarr.open_group(tmp_path / "t.zarr", mode="w"), "t", shape=(64,), chunks=(32,))
    together = threading.Barrier(2)

    @task
    @recorded
    def fill(half: int, store: Path) -> None:
        together.wait(60)
        zarr.open_group(store, mode="a")["t"][32 * half : 32 * half + 32] = 1.0 + half
        together.wait(60)

    @task
    @recorded
    def mean(store: Path, target: Path) -> None:
        target.write_text(f"the mean of all is {zarr.open_group(store, mode='r')['t'][:].mean()}")

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    @recorded
    def main() -> None:
        fill.map(range(2), [tmp_path / "t.zarr"] * 2).wait()
        mean(tmp_path / "t.zarr", tmp_path / "mean.txt")

    main()
    said = edges({("used", "mean", "t.zarr/"), ("made", "mean", "mean.txt")})
    assert len(said) == 2 and all("each of the concurrent calls wrote" in why for each in said for why in each.values())


def test_a_plot_over_that_of_last_time(tmp_path: Path, edges: Edges) -> None:
    """The picture is made from the table, not from the picture that it takes the place of."""
    from matplotlib.figure import Figure

    pd.DataFrame({"month": range(24), "value": range(24, 48)}).to_csv(tmp_path / "table.csv")
    (tmp_path / "plot.png").write_text("the picture of last time")

    @task
    @recorded
    def plot(table: Path, target: Path) -> Path:
        figure = Figure()
        figure.subplots().plot(pd.read_csv(table)["value"])
        figure.savefig(target)
        return target

    @flow
    @recorded
    def main() -> None:
        plot(tmp_path / "table.csv", tmp_path / "plot.png")

    main()
    edges({("used", "plot", "table.csv"), ("made", "plot", "plot.png")})
