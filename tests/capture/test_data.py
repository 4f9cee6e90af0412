"""Tables, arrays and the files they live in, as users' own functions take and return them."""

import shutil
import time
import weakref
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from packaging.version import Version
from prefect import flow, task
from pydantic import BaseModel, ConfigDict

from ivcap_flows.capture import contents, journal, recorded
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.contents import UnhashedError, read
from ivcap_flows.capture.data import snapshot
from ivcap_flows.capture.files import urn_at
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.cli.rerun import _incomplete
from ivcap_flows.provenance import Graph

NEEDS_ZARR_3 = pytest.mark.skipif(Version(version("zarr")) < Version("3"), reason="zarr 2 writes no stores of format 3")


def ends(graph: Graph, name: str) -> set[tuple[str, str]]:
    return {(link.source, link.target) for link in graph.relations.values() if link.type == name}


def the(graph: Graph, kind: str, name: str | None = None):
    [found] = [n for n in graph.nodes.values() if n.type == kind and name in (None, n.attributes.get("name"))]
    return found


def id_of(value: object) -> str:
    kind, _, content = read(value)
    return f"urn:ivcap-flows:{kind}:sha256:{content().sha256}"


def measured(count: int = 60, factor: float = 1.0) -> np.ndarray:
    """Numbers that no other task comes by by chance."""
    return np.sin(np.arange(count) * factor)


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "month": pd.date_range("1981-01-01", periods=60, tz="UTC"),
            "sst": [*measured(59), float("nan")],
            "station": ["a", None, "ü"] * 20,
            "kind": pd.Categorical(["x", "y", "x"] * 20),
            "count": pd.array([1, None, 3] * 20, dtype="Int64"),
        }
    )


def test_a_frame_is_known_by_its_content_and_columns(recorded_graph):
    """What one call returns and the next takes is one entity, generated and used, with its columns and their types."""

    @recorded
    def make() -> pd.DataFrame:
        return table()

    @recorded
    def mean(frame: pd.DataFrame, column: str) -> float:
        return float(frame[column].mean())

    mean(make().copy(), "sst")
    graph = recorded_graph()
    frame, make_call, mean_call = the(graph, "frame"), the(graph, "call", "make"), the(graph, "call", "mean")
    assert ends(graph, "wasGeneratedBy") == {(frame.id, make_call.id)}
    assert (mean_call.id, frame.id) in ends(graph, "used")
    assert frame.attributes["rows"] == 60
    assert [c["name"] for c in frame.attributes["columns"]] == ["month", "sst", "station", "kind", "count"]
    assert frame.attributes["columns"][1]["type"] == "float64"
    assert mean_call.attributes["parameters"] == {
        "frame": {"type": "pandas.DataFrame", "content": frame.id},
        "column": "sst",
    }


def test_a_frame_changed_in_place_has_two_versions(recorded_graph):
    """The content before is used, the one after generated and derived from it; a reader generates nothing."""

    @recorded
    def add(frame: pd.DataFrame) -> pd.DataFrame:
        frame["anomaly"] = frame["sst"] - 1
        return frame

    @recorded
    def show(frame: pd.DataFrame) -> pd.DataFrame:
        return frame

    frame = table()
    before = id_of(frame)
    show(add(frame))
    after = id_of(frame)
    graph = recorded_graph()
    add_call, show_call = the(graph, "call", "add"), the(graph, "call", "show")
    assert ends(graph, "used") >= {(add_call.id, before), (show_call.id, after)}
    assert ends(graph, "wasGeneratedBy") == {(after, add_call.id)}
    assert ends(graph, "wasDerivedFrom") == {(after, before)}


class Form(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    frames: dict[str, list[pd.DataFrame]]


@dataclass
class Pair:
    weights: np.ndarray
    series: pd.Series


def test_frames_and_arrays_are_found_in_nested_values(recorded_graph):
    """In models, dataclasses, lists and dicts; the same object given twice is read once."""
    first, second, weights = table(), table().iloc[1:], measured().reshape(2, 30)
    reads = []

    @recorded
    def take(form: Form, pair: Pair, again: pd.DataFrame) -> dict[str, object]:
        return {"deep": [{"product": weights * 2}], "same": first}

    original = contents._READERS["pandas.DataFrame"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(contents._READERS, "pandas.DataFrame", lambda v: reads.append(id(v)) or original(v))
        take(Form(frames={"a": [first, second]}), Pair(weights, first["sst"]), first)
    graph = recorded_graph()
    call = the(graph, "call", "take")
    used = {target for source, target in ends(graph, "used") if source == call.id}
    assert {id_of(first), id_of(second), id_of(weights), id_of(first["sst"])} <= used
    assert ends(graph, "wasGeneratedBy") == {(id_of(weights * 2), call.id)}
    assert reads.count(id(first)) == 2  # at the beginning and at the end


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: pl.DataFrame({"a": [1, None] * 30, "b": measured()}), "frame"),
        (lambda: pl.Series("a", measured()), "frame"),
        (lambda: pa.table({"a": measured(), "b": ["x", "y"] * 30}), "frame"),
        (lambda: pa.concat_tables([pa.table({"a": measured()}), pa.table({"a": [2.0]})]), "frame"),
        (lambda: measured().reshape(2, 30).T, "array"),
        (lambda: np.ma.array(measured(), mask=[0, 1, 0] * 20), "array"),
        (lambda: (measured() * 1e9).astype("M8[s]"), "array"),
        (lambda: xr.DataArray(measured(), dims="x", name="t"), "array"),
        (lambda: xr.Dataset({"t": ("x", measured(40))}, {"x": ["a", "b"] * 20}, {"title": "T"}), "array"),
    ],
)
def test_tables_and_arrays_of_other_libraries(make, kind, recorded_graph):
    """Polars, Arrow, numpy and xarray: equal contents are one entity, and what is returned is generated."""

    @recorded
    def give() -> object:
        return make()

    @recorded
    def take(value: object) -> None:
        """Do nothing."""

    give()
    take(make())
    graph = recorded_graph()
    thing = the(graph, kind)
    assert thing.id == id_of(make())
    assert ends(graph, "wasGeneratedBy") == {(thing.id, the(graph, "call", "give").id)}
    assert (the(graph, "call", "take").id, thing.id) in ends(graph, "used")


def cube() -> xr.Dataset:
    values = measured().reshape(3, 20)
    return xr.Dataset({"sst": (("time", "lat"), values, {"units": "degC"})}, {"lat": np.arange(20.0)})


def test_xarray_in_memory_is_known_by_its_content(recorded_graph):
    """Variables, dimensions, coordinates and attributes such as units make the content; each variable is told."""

    @recorded
    def warm(data: xr.Dataset) -> xr.Dataset:
        return data + 1

    warm(cube())
    graph = recorded_graph()
    call = the(graph, "call", "warm")
    assert (call.id, id_of(cube())) in ends(graph, "used")
    [(made, _)] = ends(graph, "wasGeneratedBy")
    told = {each["name"]: each for each in graph.nodes[made].attributes["variables"]}
    assert told["sst"] == {"name": "sst", "dimensions": ["time", "lat"], "shape": [3, 20], "type": "float64"}
    assert len({id_of(each) for each in (cube(), cube() + 1, cube().assign_attrs(a=1), cube().isel(lat=[0]))}) == 4


def test_lazy_xarray_is_not_computed_and_leads_to_its_file(tmp_path, recorded_graph):
    """An opened data set and a Dask graph on it are recorded as unhashed, come from their file, and stay lazy."""
    cube().to_netcdf(tmp_path / "sst.nc")
    computed = []

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

    lazy = keep(chunked(tmp_path / "sst.nc"))
    assert computed == []
    lazy.load()
    assert computed != []
    graph = recorded_graph()
    thing, file = the(graph, "unhashed"), urn_at(tmp_path / "sst.nc")
    assert "lazy" in thing.attributes["reason"]
    assert thing.attributes["library"] == "xarray"
    assert ends(graph, "wasGeneratedBy") == {(thing.id, the(graph, "call", "chunked").id)}
    assert (the(graph, "call", "keep").id, thing.id) in ends(graph, "used")
    assert (thing.id, file) in ends(graph, "wasDerivedFrom")
    assert file in graph.lineage(thing.id)
    lazy.close()


def test_netcdf_files_are_used_and_generated_by_their_bytes(tmp_path, recorded_graph):
    """A NetCDF file that a call reads is used with its sha256, the one that it writes is generated."""
    cube().to_netcdf(tmp_path / "in.nc")

    @recorded
    def mean(source: Path, target: str) -> None:
        with xr.open_dataset(source) as data:
            data.mean("time").to_netcdf(target)

    mean(tmp_path / "in.nc", str(tmp_path / "out.nc"))
    graph = recorded_graph()
    before, after = (urn_at(tmp_path / name) for name in ("in.nc", "out.nc"))
    call = the(graph, "call", "mean")
    assert (call.id, before) in ends(graph, "used")
    assert ends(graph, "wasGeneratedBy") == {(after, call.id)}
    assert before in graph.lineage(after)


def test_parquet_files_are_used_and_generated_by_their_bytes(tmp_path, recorded_graph):
    """Of Parquet too, and the table that was read from one file meets the one that was written to it."""

    @recorded
    def write(target: Path) -> pa.Table:
        made = pa.table({"a": measured()})
        pq.write_table(made, target)
        return made

    @recorded
    def load(source: Path) -> pa.Table:
        return pq.read_table(source)

    write(tmp_path / "t.parquet")
    load(tmp_path / "t.parquet")
    graph = recorded_graph()
    file, made = urn_at(tmp_path / "t.parquet"), the(graph, "frame")
    assert (file, the(graph, "call", "write").id) in ends(graph, "wasGeneratedBy")
    assert (the(graph, "call", "load").id, file) in ends(graph, "used")
    assert made.attributes["columns"] == [{"name": "a", "type": "double"}]


@pytest.mark.parametrize("version", [2, pytest.param(3, marks=NEEDS_ZARR_3)])
def test_zarr_stores_are_known_by_their_manifest(version, tmp_path, monkeypatch, recorded_graph):
    """A store named by a text is generated whole, used, and in its next version derived from the one before."""
    monkeypatch.chdir(tmp_path)

    @recorded
    def write(target: str) -> None:
        cube().to_zarr(target, zarr_format=version, consolidated=True)

    @recorded
    def append(store: str) -> None:
        cube().to_zarr(store, append_dim="time", zarr_format=version, consolidated=True)

    @recorded
    def read_it(store: Path) -> None:
        """Do nothing."""

    write("cube.zarr")
    append("cube.zarr")
    read_it(Path("cube.zarr"))
    graph = recorded_graph()
    made, call = ends(graph, "wasGeneratedBy"), {n.attributes["name"]: n.id for n in graph if n.type == "call"}
    [first] = [source for source, target in made if target == call["write"]]
    [second] = [source for source, target in made if target == call["append"]]
    assert graph.nodes[first].type == graph.nodes[second].type == "directory"
    assert graph.nodes[first].attributes["format"] == "zarr"
    told = {each["name"]: each["shape"] for each in graph.nodes[first].attributes["variables"]}
    assert told == {"sst": [3, 20], "lat": [20]}
    assert ends(graph, "used") >= {(call["append"], first), (call["read_it"], second)}
    assert ends(graph, "wasDerivedFrom") == {(second, first)}
    assert ends(graph, "hadMember") == set()


def test_a_folder_that_was_copied_elsewhere_meets_its_original(tmp_path, recorded_graph):
    """In the content of their manifest, not as one thing."""

    @recorded
    def fill(target: Path) -> Path:
        target.mkdir()
        (target / "a.csv").write_text("the rows of the part a")
        return target

    @recorded
    def look_at(folder: Path) -> None:
        """Do nothing."""

    fill(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    look_at(tmp_path / "two")
    graph = recorded_graph()
    folders = {Path(n.attributes["path"]).name: n.id for n in graph if n.type == "directory"}
    assert folders.keys() == {"one", "two"} and folders["one"] != folders["two"]
    assert the(graph, "call", "fill").id in graph.lineage(folders["two"])


def test_open_zarr_groups_and_memory_maps_stand_for_their_files(tmp_path, recorded_graph):
    """A view of a store or a file on disk is recorded as that, and not read."""
    import zarr

    cube().to_zarr(tmp_path / "cube.zarr")
    np.save(tmp_path / "a.npy", np.arange(5))

    @recorded
    def look_at(group: zarr.Group, array: np.ndarray) -> None:
        """Do nothing."""

    look_at(zarr.open(tmp_path / "cube.zarr", mode="r"), np.load(tmp_path / "a.npy", mmap_mode="r"))
    graph = recorded_graph()
    used = {graph.nodes[target].type for _, target in ends(graph, "used")}
    assert {"directory", "file"} <= used
    assert urn_at(tmp_path / "a.npy") in graph


def test_folders_named_by_a_text_are_seen(tmp_path, recorded_graph, monkeypatch):
    """With a separator in it, unless it holds the working directory."""
    work = tmp_path / "work"
    (work / "data" / "in").mkdir(parents=True)
    (work / "data" / "in" / "a.txt").write_text("a")
    monkeypatch.chdir(work)

    @recorded
    def fill(source: str, target: str, around: str) -> None:
        Path(target).mkdir()
        Path(target, "b.txt").write_text("b")

    fill("data/in", "data/out", str(tmp_path))
    graph = recorded_graph()
    call = the(graph, "call", "fill")
    folders = {n.attributes["path"]: n.id for n in graph if n.type == "directory"}
    assert folders.keys() == {str(work / "data" / "in"), str(work / "data" / "out")}
    assert (call.id, folders[str(work / "data" / "in")]) in ends(graph, "used")
    assert (folders[str(work / "data" / "out")], call.id) in ends(graph, "wasGeneratedBy")


def reason_of(value: object) -> str:
    with pytest.raises(UnhashedError) as caught:
        read(value)[2]()
    return str(caught.value)


def test_what_is_not_read_says_why(monkeypatch):
    """Lazy frames, unknown objects and types, and what is too large are unhashed, each with its reason."""
    dask = pytest.importorskip("dask.array")

    class Odd:
        def __repr__(self) -> str:
            raise AssertionError("printed")

    class Metres(np.ndarray):
        """One of the types that hold a unit besides the numbers."""

    odd = np.array([Odd()], dtype=object)
    assert "not computed" in reason_of(pl.LazyFrame({"a": [1]}))
    assert "not computed" in reason_of(dask.ones(3))
    assert "Odd" in reason_of(odd)
    assert "Odd" in reason_of(pd.DataFrame({"a": odd}))
    assert "Odd" in reason_of(cube().assign_attrs(a=Odd()))
    assert "Metres may hold more" in reason_of(np.arange(3).view(Metres))
    monkeypatch.setattr(contents, "LIMIT", 10)
    assert "larger" in reason_of(np.arange(100))
    assert "larger" in reason_of(table())


def test_a_table_that_breaks_when_it_is_read_is_told_so():
    """Its call is recorded all the same."""

    class Broken(pd.DataFrame):
        def __len__(self) -> int:
            raise RuntimeError

    held = snapshot("r", Broken({"a": [1]}))
    assert (held.sha256, held.record().type) == (None, "unhashed")
    assert "RuntimeError" in held.reason


def test_an_unhashed_object_is_followed_as_long_as_it_lives(recorded_graph):
    """Lazy frames have no content to be known by: the object itself links its maker with its users."""

    @recorded
    def make() -> pl.LazyFrame:
        return pl.LazyFrame({"a": [1]})

    @recorded
    def use(frame: pl.LazyFrame) -> None:
        """Do nothing."""

    use(make())
    use(make())
    graph = recorded_graph()
    calls = [n for n in graph if n.type == "call"]
    makers, users = ([n.id for n in calls if n.attributes["name"] == name] for name in ("make", "use"))
    made = {target: source for source, target in ends(graph, "wasGeneratedBy")}
    assert len(set(made.values())) == 2
    assert {(user, made[maker]) for user, maker in zip(users, makers, strict=True)} <= ends(graph, "used")


def test_recording_keeps_no_data_alive(recorded_graph):
    """Once the flow lets go of a table, nothing holds it, though its call may still wait to be written."""

    @recorded
    def make() -> pd.DataFrame:
        return table()

    frame = make()
    kept = weakref.ref(frame)
    del frame
    assert kept() is None


def test_mappings_that_read_a_store_are_not_looked_into(recorded_graph):
    """A mapping of an unknown type may be a distant store: it is named, and none of its keys is asked for."""
    from collections.abc import Mapping

    class Store(Mapping):
        def __getitem__(self, key):
            raise AssertionError("read")

        __iter__ = __len__ = __getitem__

    @recorded
    def take(store: object, plain: object) -> None:
        """Do nothing."""

    take(Store(), np.float32(1.5))
    shown = the(recorded_graph(), "call", "take").attributes["parameters"]
    assert shown["store"]["unhashed"] == "not looked into"
    assert shown["plain"] == 1.5


@pytest.mark.usefixtures("prefect_api")
def test_frames_through_mapped_submitted_and_returned_by_flows(recorded_graph):
    """Sub-flows, `.map` and `.submit`: each frame has the task that made it, also where flows hand it on."""

    @task
    @recorded
    def part(i: int) -> pd.DataFrame:
        return pd.DataFrame({"i": measured(factor=i)})

    @task
    @recorded
    def join(parts: list[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(parts, ignore_index=True)

    @flow
    @recorded
    def inner(factor: pd.DataFrame) -> pd.DataFrame:
        return join.submit([part.submit(7), factor]).result()

    @flow
    @recorded
    def outer() -> pd.DataFrame:
        return inner(join(part.map([1, 2])))

    result = outer()
    graph = recorded_graph()
    made = dict(ends(graph, "wasGeneratedBy"))
    assert len(made) == 5
    assert {graph.nodes[maker].type for maker in made.values()} == {"task-run"}
    up = graph.lineage(id_of(result))
    assert {n.id for n in up if n.type == "frame"} == set(made)


@pytest.mark.usefixtures("prefect_api")
def test_runs_with_other_frames_are_other_runs(recorded_graph):
    """A flow that failed is continued by the same parameters; the content of a frame is one of them."""

    @flow(validate_parameters=False)
    @recorded
    def fails(frame: pd.DataFrame) -> None:
        raise ValueError

    for frame in (table(), table().iloc[:2], table()):
        with pytest.raises(ValueError):
            fails(frame)
    parameters = [run.parameters["frame"]["content"] for run in journal().runs.recent()]
    assert sorted(parameters) == sorted({id_of(table()), id_of(table().iloc[:2])})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (list(range(300)), [*range(299), 0]),
        ({str(n): n for n in range(300)}, {str(n): n if n < 299 else 0 for n in range(300)}),
        ("x" * 5_000, "x" * 4_999 + "y"),
        ([["x" * 4_000] * 10] * 10, [["x" * 4_000] * 10] * 9 + [["x" * 4_000] * 9 + ["x" * 3_999 + "y"]]),
    ],
)
def test_values_that_differ_only_in_what_is_not_shown_are_two(first, second):
    """Long texts, lists and dicts are shown in part, with the digest of the rest; all of it is bounded."""
    shown, other = ValueScan().at("r", first), ValueScan().at("r", second)
    assert shown != other
    assert shown == ValueScan().at("r", first)
    assert len(str(shown)) < 130_000
    assert list(_incomplete(shown, ())) != []


@pytest.mark.parametrize(
    "large",
    [
        lambda values: values,
        lambda values: {f"name {number}": value for number, value in enumerate(values)},
        lambda values: [{"name": value, "other": [value]} for value in values[:9_000]],
    ],
    ids=["list", "dict", "records"],
)
def test_texts_that_are_not_shown_cost_little_more_than_numbers(large):
    """They are scrubbed many at once, not one by one. What is kept of them is bounded."""

    def seconds(value):
        began = time.perf_counter()
        look = ValueScan()
        look.at("r", value)
        assert look.weight < 12_000_000
        return time.perf_counter() - began

    numbers, texts = (large(values) for values in ([*range(30_000)], [f"station {n}" for n in range(30_000)]))
    assert min(seconds(texts) for _ in range(3)) < 5 * min(seconds(numbers) for _ in range(3))


def test_nothing_is_kept_of_a_result_but_what_is_found_in_it():
    """The JSON of a result is not recorded, so its texts are not weighed, scrubbed or hashed."""
    look = Call("c", "call", "c", "r", "a", None).returned
    look.at("result", {"texts": ["x" * 10_000] * 1_000, "path": Path("a")})
    assert look.paths == [("result", "a/")]
    assert look.weight <= 2_000


def test_a_secret_among_what_is_not_shown_is_not_told_by_the_digest():
    """Two lists that differ only in a password have one digest, wherever in the list it is."""

    def told(secret):
        return ValueScan().at("r", [*range(300), {"password": secret}, f"https://user:{secret}@host/x"])

    assert told("first-password") == told("other-password")
    assert told("first-password") != ValueScan().at(
        "r", [*range(300), {"password": "first-password"}, "https://host/x"]
    )


def test_what_stands_for_data_is_not_given_to_a_rerun(recorded_graph):
    """A frame, hashed or not, is told from what it held; a user's own dict is not taken for one."""

    @recorded
    def take(frame: pd.DataFrame, lazy: pl.LazyFrame, plain: dict[str, str]) -> None:
        """Do nothing."""

    take(table(), pl.LazyFrame({"a": [1]}), {"type": "letter", "content": "Dear"})
    shown = the(recorded_graph(), "call", "take").attributes["parameters"]
    assert [bool(list(_incomplete(shown[name], ()))) for name in ("frame", "lazy", "plain")] == [True, True, False]
