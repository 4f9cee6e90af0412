"""Tables, arrays and files of libraries: pandas, Polars, Arrow, numpy, xarray, Zarr, matplotlib; in Python and in C."""

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from ordinary_edges import measured, the
from packaging.version import Version
from prefect.cache_policies import INPUTS
from pydantic import BaseModel, ConfigDict

from ivcap_flows import flow, recorded, task

NEEDS_ZARR_3 = pytest.mark.skipif(Version(version("zarr")) < Version("3"), reason="zarr 2 writes no stores of format 3")


def cube() -> xr.Dataset:
    values = measured().reshape(3, 20)
    return xr.Dataset({"sst": (("time", "lat"), values, {"units": "degC"})}, {"lat": np.arange(20.0)})


def test_tables_that_are_read_changed_and_written(tmp_path, edges, recorded_graph):
    """A table is compared by its content, with its columns and their types. A column that gets another type in place
    makes a table of the one before; who only hands it on makes none. A copy that the flow makes is joined by its
    content. What lay at the target is no input.
    """
    hours = pd.date_range("2021-04-03", periods=50, freq="h")
    pd.DataFrame({"time": hours, "day": hours.date, "level": measured(50)}).to_csv(tmp_path / "tides.csv")
    (tmp_path / "table.parquet").write_text("what was here before")
    (tmp_path / "plot.png").write_text("the picture of last time")

    @recorded
    def load(path: Path) -> pd.DataFrame:
        return pd.read_csv(path, index_col=0, parse_dates=["time"], dtype={"day": object})

    @recorded
    def parse(table: pd.DataFrame) -> None:
        table["day"] = pd.to_datetime(table["day"]).dt.date

    @recorded
    def localise(table: pd.DataFrame) -> None:
        table["time"] = table["time"].dt.tz_localize("UTC")

    @recorded
    def convert(table: pd.DataFrame) -> pd.DataFrame:
        table["time"] = table["time"].dt.tz_convert("Australia/Hobart")
        return table

    @recorded
    def show(table: pd.DataFrame, column: str) -> pd.DataFrame:
        return table

    @recorded
    def save(table: pd.DataFrame, target: Path) -> None:
        table.drop(columns="day").to_parquet(target)

    @recorded
    def plot(table: Path, target: Path) -> Path:
        from matplotlib.figure import Figure

        figure = Figure()
        figure.subplots().plot(pd.read_csv(table)["level"])
        figure.savefig(target)
        return target

    @flow
    def main() -> None:
        table = load(tmp_path / "tides.csv")
        parse(table)
        localise(table)
        save(show(convert(table).copy(), "level"), tmp_path / "table.parquet")
        plot(tmp_path / "tides.csv", tmp_path / "plot.png")

    main()
    steps = ["load", "parse", "localise", "convert"]
    edges(
        {("used", "load", "tides.csv"), ("used", "plot", "tides.csv"), ("made", "plot", "plot.png")}
        | {("made", step, f"{step}()") for step in steps}
        | {("used", step, f"{before}()") for before, step in pairwise(steps)}
        | {("derived", f"{step}()", f"{before}()") for before, step in pairwise(steps)}
        | {("used", "show", "table"), ("used", "save", "table"), ("same", "table", "convert()")}
        | {("made", "save", "table.parquet")}
    )
    graph = recorded_graph()
    [call] = [node for node in graph if node.attributes.get("name") == "show"]
    shown = call.attributes["parameters"]
    assert (shown["table"]["type"], shown["column"]) == ("pandas.DataFrame", "level")
    [frame] = [node.attributes for node in graph.targets(call.id, "used")]
    assert shown["table"]["content"].endswith(frame["content_sha256"])
    assert (frame["rows"], [each["name"] for each in frame["columns"]]) == (50, ["time", "day", "level"])
    assert frame["columns"][2]["type"] == "float64"


class Form(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    frames: dict[str, list[pd.DataFrame]]


@dataclass
class Pair:
    weights: np.ndarray
    series: pd.Series


def test_data_of_many_libraries(edges):
    """Made by who returns it and used by who takes it, also in models, dataclasses, lists and dicts. What nobody was
    seen to make is joined to what has its content. A lazy frame has none to be joined by, and is followed all the same.
    """
    made: dict[str, Callable[[], Any]] = {
        "polars": lambda: pl.DataFrame({"a": [1, None] * 30, "b": measured()}),
        "polars series": lambda: pl.Series("a", measured(factor=1.1)),
        "arrow": lambda: pa.table({"a": measured(factor=1.2), "b": ["x", "y"] * 30}),
        "chunks": lambda: pa.concat_tables([pa.table({"a": measured(factor=1.3)}), pa.table({"a": [2.0]})]),
        "turned": lambda: measured(factor=1.4).reshape(2, 30).T,
        "masked": lambda: np.ma.array(measured(factor=1.5), mask=[0, 1, 0] * 20),
        "moments": lambda: (measured() * 1e9).astype("M8[s]"),
        "xarray": lambda: xr.DataArray(measured(factor=1.6), dims="x", name="t"),
        "data set": lambda: xr.Dataset({"t": ("x", measured(40))}, {"x": ["a", "b"] * 20}, {"title": "T"}),
    }

    @recorded
    def give(name: str) -> object:
        return made[name]()

    @recorded
    def take(name: str, value: object) -> None:
        """Do nothing."""

    @recorded
    def lazy() -> pl.LazyFrame:
        return pl.LazyFrame({"a": [1]})

    @recorded
    def nested(form: Form, pair: Pair) -> dict[str, object]:
        return {"deep": [{"product": pair.weights * 2}], "same": form.frames["a"][0]}

    @recorded
    def gather(found: dict[str, object]) -> None:
        """Do nothing."""

    @flow
    def main() -> None:
        for name in made:
            give(name)
            take(name, made[name]())
        for _ in range(2):
            take("lazy", lazy())
        first, second = (pd.DataFrame({"a": measured(factor=factor)}) for factor in (2.1, 2.2))
        gather(nested(Form(frames={"a": [first, second]}), Pair(measured().reshape(2, 30), pd.Series(measured(50)))))

    main()
    count = len(made)
    numbers = ["", *(f"#{index + 1}" for index in range(1, count))]
    edges(
        {("made", f"give[{index}]", f"give[{index}]()") for index in range(count)}
        | {("used", f"take[{index}]", f"value{numbers[index]}") for index in range(count)}
        | {("same", f"value{numbers[index]}", f"give[{index}]()") for index in range(count)}
        | {("made", f"lazy[{index}]", f"lazy[{index}]()") for index in range(2)}
        | {("used", f"take[{count + index}]", f"lazy[{index}]()") for index in range(2)}
        | {("used", "nested", name) for name in ("form", "form#2", "pair", "pair#2")}
        | {
            ("informed", "gather", "nested"),
            ("made", "nested", "nested()"),
            ("used", "gather", "nested()"),
            ("used", "gather", "form"),
        }
    )


def test_tables_of_mapped_tasks_and_subflows(edges):
    """Each has the task that made it, also where flows hand it on."""

    @task
    def part(i: int) -> pd.DataFrame:
        return pd.DataFrame({"i": measured(factor=i)})

    @task
    def join(parts: list[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(parts, ignore_index=True)

    @flow
    def inner(factor: pd.DataFrame) -> pd.DataFrame:
        return join.with_options(name="join inner").submit([part.submit(7), factor]).result()

    @flow
    def outer() -> None:
        join.with_options(name="use")([inner(join(part.map([1, 2])))])

    outer()
    edges(
        {("made", f"part[{index}]", f"part[{index}]()") for index in range(3)}
        | {("used", "join", f"part[{index}]()") for index in range(2)}
        | {("made", "join", "join()"), ("used", "inner", "join()"), ("used", "join inner", "join()")}
        | {("used", "join inner", "part[2]()"), ("made", "join inner", "join inner()")}
        | {("used", "use", "join inner()"), ("made", "use", "use()")}
    )


def test_data_of_two_runs(edges):
    """What is equal by chance each run has for itself. What the second has from the cache leads to the first."""
    # Prefect keeps results by this key longer than a run of the tests.
    key = uuid.uuid4().hex

    @task
    def missing() -> np.ndarray:
        return np.full(100, np.nan)

    @task
    def steps() -> np.ndarray:
        return np.arange(100)

    @task(cache_policy=INPUTS, persist_result=True, result_storage_key="tides-{parameters[key]}")
    def tides(key: str) -> pd.DataFrame:
        return pd.DataFrame({"level": measured(100, len(key))})

    @task
    def show(*data: object) -> None:
        """Do nothing."""

    @flow
    def main() -> None:
        show(missing(), steps(), tides(key))

    main()
    main()
    edges(
        {("made", f"{name}[{run}]", f"{name}[{run}]()") for name in ("missing", "steps") for run in range(2)}
        | {("used", f"show[{run}]", f"{name}[{run}]()") for name in ("missing", "steps") for run in range(2)}
        | {("made", "tides", "tides()"), ("used", "show[0]", "tides()")}
        | {("used", "show[1]", "*"), ("same", "*", "tides()")},
        runs=2,
    )


def test_files_of_libraries_in_c(tmp_path, edges, recorded_graph):
    """netCDF and Parquet are read and written in C: a new file is its call's; an input that stays as it is has been
    used. A table has its columns and a data set its variables on record.
    """
    cube().to_netcdf(tmp_path / "raw.nc", engine="netcdf4")

    @recorded
    def anomaly(source: Path, target: Path) -> xr.Dataset:
        with xr.open_dataset(source, engine="netcdf4") as data:
            made = (data - data.mean()).load()
        made.to_netcdf(target, engine="netcdf4")
        return made

    @recorded
    def write(target: Path) -> pa.Table:
        made = pa.table({"a": measured()})
        pq.write_table(made, target)
        return made

    @recorded
    def read(source: Path) -> pa.Table:
        return pq.read_table(source)

    @flow
    def main() -> None:
        anomaly(tmp_path / "raw.nc", tmp_path / "anomaly.nc")
        write(tmp_path / "t.parquet")
        read(tmp_path / "t.parquet")

    main()
    edges(
        {
            ("given", "anomaly", "raw.nc"),
            ("made", "anomaly", "anomaly.nc"),
            ("made", "anomaly", "anomaly()"),
            ("made", "write", "t.parquet"),
            ("made", "write", "write()"),
            ("given", "read", "t.parquet"),
            ("made", "read", "read()"),
        }
    )
    graph = recorded_graph()
    assert [node.attributes["columns"] for node in graph if node.type == "frame"] == [
        [{"name": "a", "type": "double"}]
    ] * 2
    told = {each["name"]: each for each in the(graph, "array").attributes["variables"]}
    assert told["sst"] == {"name": "sst", "dimensions": ["time", "lat"], "shape": [3, 20], "type": "float64"}


def test_lazy_data_is_not_computed_and_leads_to_its_file(tmp_path, edges, recorded_graph):
    """A data set that is opened, with a Dask graph on it, is made by its call from the file, and stays lazy. A view of
    a store or a file on disk stands for that.
    """
    cube().to_netcdf(tmp_path / "sst.nc")
    cube().to_zarr(tmp_path / "cube.zarr")
    np.save(tmp_path / "a.npy", np.arange(5))
    computed: list[float] = []

    def block(values: np.ndarray) -> np.ndarray:
        # Dask itself tries it on an empty array.
        computed.extend(values.ravel())
        return values

    @recorded
    def chunked(path: Path) -> xr.Dataset:
        opened = xr.open_dataset(path, chunks={})
        return opened.map(lambda a: a.copy(data=a.data.map_blocks(block, dtype=a.dtype)))

    @recorded
    def keep(data: xr.Dataset) -> xr.Dataset:
        return data

    @recorded
    def look_at(group: zarr.Group, array: np.ndarray) -> None:
        """Do nothing."""

    kept: list[xr.Dataset] = []

    @flow
    def main() -> None:
        kept.append(keep(chunked(tmp_path / "sst.nc")))
        look_at(zarr.open(tmp_path / "cube.zarr", mode="r"), np.load(tmp_path / "a.npy", mmap_mode="r"))

    main()
    assert computed == []
    kept[0].load()
    assert computed != []
    kept[0].close()
    edges(
        {
            ("used", "chunked", "sst.nc"),
            ("made", "chunked", "chunked()"),
            ("derived", "chunked()", "sst.nc"),
            ("used", "keep", "chunked()"),
            ("made", "keep", "keep()"),
            ("derived", "keep()", "chunked()"),
            ("given", "look_at", "cube.zarr/"),
            ("given", "look_at", "a.npy"),
        }
    )
    things = [node.attributes for node in recorded_graph() if node.type == "unhashed"]
    assert len(things) == 2
    assert all(thing["library"] == "xarray" and "lazy" in thing["reason"] for thing in things)


def add_array(group: zarr.Group, name: str, **options: Any) -> Any:
    """Of zarr 2, too, which is the newest for Python 3.10."""
    create = group.create_array if hasattr(zarr.Group, "create_array") else group.create_dataset
    return create(name, dtype="f8", **options)


@pytest.mark.parametrize("form", [2, pytest.param(3, marks=NEEDS_ZARR_3)])
def test_a_zarr_store(form, tmp_path, edges, recorded_graph, monkeypatch):
    """A store is one thing, also where a text names it: made, used, and continued."""
    monkeypatch.chdir(tmp_path)

    @recorded
    def create(store: str) -> None:
        cube().to_zarr(store, mode="w", zarr_format=form, consolidated=True)

    @recorded
    def mean(store: Path, target: Path) -> None:
        target.write_text(f"the mean of all is {zarr.open_group(store, mode='r')['sst'][:].mean()}")

    @recorded
    def extend(store: Path) -> None:
        add_array(zarr.open_group(store, mode="a"), "u", shape=(8,))[:] = 1.0

    @flow
    def main() -> None:
        create("t.zarr")
        mean(Path("t.zarr"), tmp_path / "mean.txt")
        extend(tmp_path / "t.zarr")

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
    stores = [node.attributes for node in recorded_graph() if node.type == "directory"]
    assert {store["format"] for store in stores} == {"zarr"}
    told = {each["name"]: each["shape"] for each in stores[0]["variables"]}
    assert (told["sst"], told["lat"]) == ([3, 20], [20])


def test_two_write_to_one_zarr_store_at_once(tmp_path, edges):
    """What either left when it ended was not its own alone: the store that comes of it has no maker."""
    add_array(zarr.open_group(tmp_path / "t.zarr", mode="w"), "t", shape=(64,), chunks=(32,))
    together = threading.Barrier(2)

    @task
    def fill(half: int, store: Path) -> None:
        together.wait(60)
        zarr.open_group(store, mode="a")["t"][32 * half : 32 * half + 32] = 1.0 + half
        together.wait(60)

    @task
    def mean(store: Path) -> None:
        zarr.open_group(store, mode="r")["t"][:].mean()

    @flow
    def main() -> None:
        fill.map(range(2), [tmp_path / "t.zarr"] * 2).wait()
        mean(tmp_path / "t.zarr")

    main()
    said = edges({("used", "mean", "t.zarr/")})
    assert len(said) == 2 and all("each of the concurrent calls wrote" in why for each in said for why in each.values())
