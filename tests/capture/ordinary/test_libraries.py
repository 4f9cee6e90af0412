"""Libraries that read and write files: pandas, xarray, Zarr, matplotlib; in Python, and in C, where nobody looks on."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
import zarr
from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

from ivcap_flows import recorded

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
