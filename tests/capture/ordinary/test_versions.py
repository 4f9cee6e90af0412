"""Versions: a table, a model or a list that is made, handed round, changed in place, cached, or read again."""

import functools
import os
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import xarray as xr
from ordinary_edges import informed, measured

from ivcap_flows import flow, recorded, task


class Model:
    """As the estimators of many libraries: changed in place, and with nothing to be known by but itself."""

    def __init__(self) -> None:
        self.weights = [0.5]

    def fit(self, batch: list[float]) -> "Model":
        self.weights.append(sum(batch) * self.weights[-1])
        return self

    def __eq__(self, other: object) -> bool:
        raise TypeError("a model cannot be compared")

    __hash__ = None  # type: ignore[assignment]


@task
def make() -> Model:
    return Model()


@task
def batch(number: int) -> list[float]:
    return [number * 1.5, number * 2.5]


@task
def score(model: Any) -> float:
    return 1.5


@task
def load(source: Path) -> pd.DataFrame:
    return pd.read_csv(source)


@task
def look(value: Any) -> None:
    """Do nothing."""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pd.DataFrame({"sst": measured()}).to_csv(tmp_path / "sst.csv", index=False)
    return tmp_path / "sst.csv"


@pytest.mark.catches("equal data are one")
def test_a_table_that_is_read_again(table, edges, recorded_graph):
    """Each reading makes a table of its own, though all are equal: what is made of one does not come from the next."""

    @task
    def observe(year: int) -> pd.DataFrame:
        return pd.DataFrame({"sst": measured(factor=year)})

    @task
    def anomaly(reference: pd.DataFrame, observed: pd.DataFrame) -> pd.DataFrame:
        return observed - reference

    @flow
    def years() -> None:
        for year in (2, 3, 4):
            look(anomaly(load(table), observe(year)))

    years()
    edges(
        {("used", f"load[{year}]", "sst.csv") for year in range(3)}
        | {
            ("made", f"{name}[{year}]", f"{name}[{year}]()")
            for name in ("load", "observe", "anomaly")
            for year in range(3)
        }
        | {("used", f"anomaly[{year}]", f"{name}[{year}]()") for name in ("load", "observe") for year in range(3)}
        | {("used", f"look[{year}]", f"anomaly[{year}]()") for year in range(3)}
    )
    graph = recorded_graph()
    for made in [node for node in graph if node.type == "frame"]:
        births = [link for link in graph.relations.values() if link.type == "wasGeneratedBy" and link.source == made.id]
        assert len(births) == 1
        origins = [node for node in graph.lineage(made.id) if node.attributes.get("name") == "load"]
        assert len(origins) <= 1


def test_equal_tables_of_different_files(tmp_path, edges):
    """Each comes from its own file."""
    for name in ("north", "south"):
        pd.DataFrame({"sst": measured()}).to_csv(tmp_path / f"{name}.csv", index=False)

    @flow
    def both() -> None:
        for name in ("north", "south"):
            look.with_options(name=f"look {name}")(load.with_options(name=name)(tmp_path / f"{name}.csv"))

    both()
    edges(
        {
            edge
            for name in ("north", "south")
            for edge in {
                ("used", name, f"{name}.csv"),
                ("made", name, f"{name}()"),
                ("used", f"look {name}", f"{name}()"),
            }
        }
    )


@pytest.mark.catches("a computed data set is another")
def test_a_lazy_data_set_that_is_computed(tmp_path, edges):
    """It is loaded when it is first used, and is the data set that was opened all the same."""
    xr.Dataset({"sst": ("x", measured())}).to_netcdf(tmp_path / "sst.nc")

    @task
    def opened(source: Path) -> xr.Dataset:
        return xr.open_dataset(source)

    @task
    def summary(data: xr.Dataset) -> float:
        return float(data.load().sst.mean())

    @task
    def plot(data: xr.Dataset, target: Path) -> None:
        target.write_text(f"the mean is {float(data.sst.mean())}")

    @flow
    def lazily() -> None:
        data = opened(tmp_path / "sst.nc")
        summary(data)
        plot(data, tmp_path / "plot.txt")

    lazily()
    edges(
        {
            ("used", "opened", "sst.nc"),
            ("made", "opened", "opened()"),
            ("derived", "opened()", "sst.nc"),
            ("used", "summary", "opened()"),
            ("given", "summary", "sst.nc"),
            ("used", "plot", "opened()"),
            ("made", "plot", "plot.txt"),
        }
    )


def test_a_lazy_data_set_that_is_handed_on(tmp_path, edges):
    """Nothing tells whether the task in between changed it: what it returns is its own, derived from what it took."""
    xr.Dataset({"sst": ("x", measured())}).to_netcdf(tmp_path / "sst.nc")

    @task
    def opened(source: Path) -> xr.Dataset:
        return xr.open_dataset(source, chunks={})

    @task
    def convert(data: xr.Dataset) -> xr.Dataset:
        data["sst"] = data["sst"] + 273.15
        return data

    @flow
    def lazily() -> None:
        look(convert(opened(tmp_path / "sst.nc")))

    lazily()
    edges(
        {
            ("used", "opened", "sst.nc"),
            ("made", "opened", "opened()"),
            ("derived", "opened()", "sst.nc"),
            ("used", "convert", "opened()"),
            ("made", "convert", "convert()"),
            ("derived", "convert()", "opened()"),
            ("used", "look", "convert()"),
            ("given", "look", "sst.nc"),
        }
    )


@pytest.mark.catches("what cannot be compared is unchanged")
@pytest.mark.parametrize("how", ["alone", "in a tuple", "as itself"])
def test_a_model_that_is_fitted_again_and_again(how, edges):
    """The score comes from all fits and all batches, though there is only one object."""

    @task
    def fit(model: Model, rows: list[float]) -> Any:
        fitted = model.fit(rows)
        return {"alone": model, "in a tuple": (model, 1.5), "as itself": fitted}[how]

    @flow
    def training() -> None:
        model = make()
        for number in range(3):
            fitted = fit(model, batch(number))
            model = fitted[0] if how == "in a tuple" else fitted
        score(model)

    training()
    edges(
        informed(
            {
                "fit[0]": ("make", "batch[0]"),
                "fit[1]": ("fit[0]", "batch[1]"),
                "fit[2]": ("fit[1]", "batch[2]"),
                "score": "fit[2]",
            }
        )
    )


def adding(kind: type, folder: Path, *, returned: bool) -> None:
    """Run a flow whose tasks add to a list or a dict that they are given. The second one changes nothing this time."""
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"the measurements number {number}")

    @task
    def begin() -> Any:
        return kind()

    @task
    def add(report: Any, source: Path) -> Any:
        text = source.read_text()
        if not text.endswith("1"):
            if kind is dict:
                report[source.name] = text
            else:
                report.append(text)
        return report if returned else None

    @flow
    def reporting() -> None:
        report = begin() if returned else kind()
        for number in range(3):
            added = add(report, folder / f"{number}.txt")
            report = added if returned else report
        look(report)

    reporting()


ADDED = informed({"add[1]": "add[0]", "add[2]": "add[0]", "look": "add[2]"}) | {
    ("used", f"add[{number}]", f"{number}.txt") for number in range(3)
}


@pytest.mark.parametrize("kind", [dict, list])
def test_what_tasks_add_to_and_return(kind, tmp_path, edges):
    """The report comes from each addition and its file. Who changes nothing this time is no origin."""
    adding(kind, tmp_path, returned=True)
    edges(ADDED | informed({"add[0]": "begin"}))


@pytest.mark.catches("changes in place are not seen")
@pytest.mark.parametrize("kind", [dict, list])
def test_what_tasks_add_to_in_place(kind, tmp_path, edges):
    """Also if the flow made the container, and the tasks return nothing."""
    adding(kind, tmp_path, returned=False)
    edges(ADDED)


def test_long_lists_of_which_not_all_is_shown(edges):
    """They are compared all the same: who changes the last item of one has made it, and who only reads it has not."""

    @task
    def made(number: int) -> list[str]:
        return [f"{number} {index} " + "x" * 900 for index in range(190)]

    @task
    def read(first: list[str], second: list[str]) -> None:
        """Do nothing."""

    @task
    def change(first: list[str], second: list[str]) -> None:
        second[-1] += "!"

    @flow
    def long() -> None:
        first, second = (made.with_options(name=f"made {number}")(number) for number in (1, 2))
        read(first, second)
        change(first, second)
        look.with_options(name="look at first")(first)
        look.with_options(name="look at second")(second)

    long()
    edges(
        informed(
            {
                "read": ("made 1", "made 2"),
                "change": ("made 1", "made 2"),
                "look at first": "made 1",
                "look at second": ("change", "made 2"),
            }
        )
    )


@pytest.mark.catches("what is given is changed")
def test_who_hands_on_what_it_was_given(table, edges):
    """A validator, or a task that only logs. Of a table and a dict it is known that nothing was changed; of a model it
    is not, so it stands between.
    """

    @task
    def check(value: Any) -> Any:
        return value

    @task
    def settings() -> dict[str, Any]:
        return {"level": 1.5}

    @flow
    def checking() -> None:
        look.with_options(name="look at table")(check.with_options(name="check table")(load(table)))
        look.with_options(name="look at dict")(check.with_options(name="check dict")(settings()))
        look.with_options(name="look at model")(check.with_options(name="check model")(make()))

    checking()
    edges(
        {
            ("used", "load", "sst.csv"),
            ("made", "load", "load()"),
            ("used", "check table", "load()"),
            ("used", "look at table", "load()"),
        }
        | informed(
            {
                "check dict": "settings",
                "look at dict": "settings",
                "check model": "make",
                "look at model": "check model",
            }
        )
    )


@pytest.mark.catches("the last maker alone")
def test_tasks_that_return_one_object_at_once(edges):
    """Both may have changed it, and neither came after the other."""
    together = threading.Barrier(2)

    @task
    def refine(model: Model, part: str) -> Model:
        together.wait(60)
        return model

    @flow
    def parallel() -> None:
        model = make()
        parts = [refine.with_options(name=name).submit(model, name) for name in ("left", "right")]
        left, right = (part.result() for part in parts)
        assert left is right is model
        score(left)

    parallel()
    edges(informed({"left": "make", "right": "make", "score": ("left", "right")}))


@pytest.mark.catches("what is kept is made anew")
def test_what_is_kept_by_a_task(table, edges):
    """A cached table, a singleton, and a value that a cache returns: the first call that returned it made it."""

    @functools.lru_cache
    def reference() -> pd.DataFrame:
        return pd.read_csv(table)

    @functools.lru_cache
    def coefficients() -> dict[str, float]:
        return {"a": 1.5}

    model = Model()

    @task
    def get(name: str) -> Any:
        return {"table": reference, "dict": coefficients, "model": lambda: model}[name]()

    @flow
    def keeping() -> None:
        for kind in ("table", "dict", "model"):
            for number in range(2):
                looked = look.with_options(name=f"look at {kind} {number}")
                looked(get.with_options(name=f"get {kind} {number}")(kind))

    keeping()
    edges(
        {
            ("made", "get table 0", "get table 0()"),
            ("used", "get table 1", "get table 0()"),
            ("used", "look at table 0", "get table 0()"),
            ("used", "look at table 1", "get table 0()"),
        }
        | informed({f"look at {kind} {number}": f"get {kind} 0" for kind in ("dict", "model") for number in range(2)})
    )


def test_a_table_that_changes_in_some_rounds(edges):
    """A step that changes nothing this time makes no version; one that changes it in place and returns nothing does."""

    @task
    def start() -> pd.DataFrame:
        return pd.DataFrame({"sst": measured()})

    @task
    def clip(frame: pd.DataFrame, limit: float) -> None:
        frame.clip(upper=limit, inplace=True)

    @flow
    def clipping() -> None:
        frame = start()
        for limit in (0.9, 2.0, 0.5):
            clip(frame, limit)
        look(frame)

    clipping()
    edges(
        {
            ("made", "start", "start()"),
            ("used", "clip[0]", "start()"),
            ("made", "clip[0]", "clip[0]()"),
            ("derived", "clip[0]()", "start()"),
            ("used", "clip[1]", "clip[0]()"),
            ("used", "clip[2]", "clip[0]()"),
            ("made", "clip[2]", "clip[2]()"),
            ("derived", "clip[2]()", "clip[0]()"),
            ("used", "look", "clip[2]()"),
        }
    )


def test_a_table_that_the_flow_changes(edges):
    """Between two tasks: what is given on derives from what was made, by nobody's hand that is on record."""

    @task
    def start() -> pd.DataFrame:
        return pd.DataFrame({"sst": measured()})

    @flow
    def changing() -> None:
        frame = start()
        frame["sst"] += 1
        look(frame)

    changing()
    edges({("made", "start", "start()"), ("used", "look", "value"), ("derived", "value", "start()")})


def test_a_table_that_is_put_into_a_dict(edges):
    """Who puts it there made it, though it returns nothing."""

    @task
    def add(frames: dict[str, pd.DataFrame], name: str) -> None:
        frames[name] = pd.DataFrame({"sst": measured(factor=len(name))})

    @flow
    def collecting() -> None:
        frames: dict[str, pd.DataFrame] = {}
        add(frames, "north")
        add(frames, "southern")
        look(frames)

    collecting()
    edges(
        {("made", f"add[{number}]", f"add[{number}]()") for number in range(2)}
        | {("used", "look", f"add[{number}]()") for number in range(2)}
        | {("used", "add[1]", "add[0]()")}
        | informed({"add[1]": "add[0]", "look": "add[1]"})
    )


@pytest.mark.catches("a helper is given what nobody made")
@pytest.mark.parametrize("how", ["made", "changed"])
def test_a_task_that_has_helpers_look_at_its_table(how, edges):
    """What it makes or changes is its own, though a function within it is the first that is given it."""

    @recorded
    def check(frame: pd.DataFrame) -> None:
        assert len(frame)

    @task
    def start() -> pd.DataFrame:
        return pd.DataFrame({"sst": measured()})

    @task
    def work(frame: pd.DataFrame) -> pd.DataFrame:
        if how == "made":
            frame = frame * 2
        else:
            frame["sst"] *= 2
        check(frame)
        return frame

    @flow
    def helped() -> None:
        look(work(start()))

    helped()
    edges(
        {
            ("made", "start", "start()"),
            ("used", "work", "start()"),
            ("made", "work", "work()"),
            ("used", "check", "work()"),
            ("used", "look", "work()"),
        }
        | ({("derived", "work()", "start()")} if how == "changed" else set())
    )


@pytest.mark.catches("times are part of a file")
def test_a_file_that_is_touched(tmp_path, edges):
    """Its times are no part of it: the reader comes from the maker. Who writes the same bytes again makes a file."""

    @task
    def write(target: Path) -> Path:
        target.write_text("measured at the northern station")
        return target

    @task
    def read(source: Path) -> float:
        return len(source.read_text()) * 1.5

    @flow
    def touching() -> None:
        for seconds in (0, 1_000_000_000):
            path = write(tmp_path / "raw.txt")
            os.utime(path, (seconds, seconds))
            read(path)

    touching()
    edges(
        {
            ("made", "write[0]", "raw.txt"),
            ("used", "read[0]", "raw.txt"),
            ("made", "write[1]", "raw.txt#2"),
            ("used", "read[1]", "raw.txt#2"),
        }
    )


@pytest.mark.catches("copies lead nowhere")
def test_values_into_a_subflow_with_types(edges):
    """Prefect has pydantic copy what is given, so the subflow gets other objects: they are the task's all the same."""

    @task
    def counted() -> dict[str, int]:
        return {"north": 1, "south": 2}

    @task
    def names() -> list[str]:
        return ["northern", "southern"]

    @flow
    def inner(counts: dict[str, int], places: list[str]) -> None:
        look.with_options(name="look at counts")(counts)
        look.with_options(name="look at a place")(places[0])

    @flow
    def outer() -> None:
        inner(counted(), names())

    outer()
    edges(informed({"inner": ("counted", "names"), "look at counts": "counted", "look at a place": "names"}))
