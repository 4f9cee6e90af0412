"""Values that pass between tasks: numbers, texts, lists, dicts, futures and `wait_for`."""

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import prefect
import pytest
from ordinary_edges import informed
from prefect import allow_failure, unmapped
from prefect.cache_policies import INPUTS
from prefect.context import FlowRunContext
from prefect.task_runners import ProcessPoolTaskRunner

from ivcap_flows import flow, recorded, task

REGIONS = ["north", "south"]


@task
def measure(place: str) -> float:
    return len(place) * 1.25


@task
def name_of(number: int) -> str:
    return "north" if number > 0 else "south"


@task
def count() -> int:
    return 3


@task
def table() -> dict[str, Any]:
    return {"mean": 0.1 * 21, "rows": [1000 + 7, 2000 + 7], "unit": "mm"}


@task
def passed(value: Any) -> Any:
    return value


@recorded
def half(number: float) -> float:
    return number / 2


def report(name: str, *values: Any, **named: Any) -> None:
    """Give values to a task of this name."""
    _report.with_options(name=name)(*values, **named)


@task
def _report(*values: Any, **named: Any) -> str:
    return f"{values} {named}"


@pytest.mark.catches("constants are values")
def test_a_value_leads_to_the_task_that_computed_it(edges):
    """Numbers and texts, by place, by name and in a list; a result, its items, what is nested in them, and the fields
    of a dataclass; values of recorded functions and within tasks. What the flow writes itself, or has from a module,
    leads nowhere, though Python keeps one object for the equal texts and numbers of a program. A text that a task
    returns as it was given comes from it; an object that it was given does not.
    """

    @dataclass
    class Fit:
        slope: float
        label: str

    @task
    def fit(number: float) -> Fit:
        return Fit(number * 3, f"fit of {number}")

    @task
    def regions() -> list[str]:
        return REGIONS

    @task
    def outer() -> float:
        inner = measure("abc")
        report("within", inner)
        return 1.5 * len(REGIONS)

    @flow
    def values() -> None:
        one, two, text, found = measure("here"), measure("there!"), name_of(1), table()
        report("number", one)
        report("named", shown=[two, 5.0])
        report("own text", "north")
        report("text", text)
        report("dict", found)
        report("item", found["mean"])
        report("nested", found["rows"][1])
        report("unit", found["unit"])
        report("own unit", "mm", 2.1, list(found))
        report("number handed on", passed(one))
        report("dict handed on", passed(found))
        regions()
        report("constant", REGIONS)
        fitted = fit(two)
        report("object", fitted)
        report("field", fitted.slope)
        report("made by the flow", fitted.label.upper())
        report("by a function", half(one))
        report("by a task around", outer())

    values()
    edges(
        informed(
            {
                "number": "measure[0]",
                "named": "measure[1]",
                "text": "name_of",
                "dict": "table",
                "item": "table",
                "nested": "table",
                "unit": "table",
                "passed[0]": "measure[0]",
                "number handed on": "passed[0]",
                "passed[1]": "table",
                "dict handed on": "table",
                "fit": "measure[1]",
                "object": "fit",
                "field": "fit",
                "half": "measure[0]",
                "by a function": "half",
                "within": "measure[2]",
                "by a task around": "outer",
            }
        ),
        not_seen=informed({"made by the flow": "fit"}),
    )


def test_futures_states_and_what_is_waited_for(edges):
    """Alone, in containers, and in `wait_for` of calls, submitted and mapped tasks. A small whole number is one object
    in all of Python, so nothing tells whose it is unless it comes as a future or a state. A task that may go on
    after a failure knows of it.
    """

    @task
    def broken() -> float:
        raise ValueError("no")

    submitted = _report.with_options

    @flow
    def waiting() -> None:
        first, failed, one = count.submit(), broken.submit(), measure.submit("one")
        report("number", count.with_options(name="own count")())
        submitted(name="future").submit(first).wait()
        submitted(name="future in a list").submit([first]).wait()
        submitted(name="futures in a dict").submit({"one": one, "more": [first]}).wait()
        report("state", count.with_options(name="state count")(return_state=True))
        passed.with_options(name="call")("a", wait_for=[first])
        passed.with_options(name="submitted").submit("b", wait_for=[first]).wait()
        passed.with_options(name="mapped").map(["c", "d"], wait_for=[first]).wait()
        passed.with_options(name="after a failure").submit("b", wait_for=[allow_failure(failed)]).wait()
        submitted(name="of a failure").submit(allow_failure(failed)).wait()

    waiting()
    after = ("future", "future in a list", "futures in a dict", "call", "submitted", "mapped[0]", "mapped[1]")
    edges(
        informed(dict.fromkeys(after, "count"))
        | informed({"futures in a dict": "measure", "state": "state count"})
        | informed({"after a failure": "broken", "of a failure": "broken"}),
        not_seen=informed({"number": "own count"}),
    )


@pytest.mark.catches("mapped lists are known by their places")
def test_mapped_values(edges):
    """Each mapped task has its own value, or a part of the list, and what is not mapped; who gathers them has all. A
    list at the place in memory of another, by which Prefect knows lists, does not lead to that one's maker.
    """

    @task
    def places() -> list[str]:
        return ["here", "there"]

    @task
    def scaled(place: str, factor: float) -> float:
        return len(place) * factor

    @flow
    def mapping() -> None:
        named = [name_of.with_options(name=f"name {number}")(number) for number in (1, -1)]
        gathered = [measure.with_options(name=f"measure {place}").map([place]) for place in named]
        report("gathered", [means.result() for means in gathered])
        scaled.map(places.submit(), unmapped(measure("unit"))).wait()
        made, others = places.with_options(name="other places")(), ["north", "south"]
        measure.with_options(name="made").map(made).wait()
        # As if the list had been released, and the other had come to its place.
        known = FlowRunContext.get().run_results
        known[id(others)] = known[id(made)]
        measure.with_options(name="others").map(others).wait()

    mapping()
    edges(
        informed({"measure north": "name 1", "measure south": "name -1", "gathered": "measure north"})
        | informed({"gathered": "measure south"})
        | {("informed", f"scaled[{index}]", maker) for index in range(2) for maker in ("places", "measure")}
        | {("informed", f"made[{index}]", "other places") for index in range(2)}
    )


def test_tries_and_tasks_of_prefects_own(tmp_path, edges, recorded_graph):
    """A try knows of the one that failed before it, and what follows of the one that succeeded. Tasks without a record
    of their files have their values, tries and outcomes on record, so that a report leads to the failure before it.
    """
    tries: list[str] = []

    def third_time(name: str) -> float:
        tries.append(name)
        if tries.count(name) < 3:
            raise ValueError("not yet")
        return 2.5 * len(tries)

    @task(retries=2)
    def flaky() -> float:
        return third_time("flaky")

    @prefect.task(retries=2, task_run_name="computed for {place}")
    def compute(place: str) -> float:
        return third_time("compute")

    @prefect.task
    def tell(*values: float) -> str:
        return f"{values}"

    @task
    def write(number: float, target: Path) -> Path:
        target.write_text(f"{number}")
        return target

    @flow
    def retrying() -> None:
        report("report", flaky())
        write(compute("there"), tmp_path / "report.txt")
        tell(measure("here"))
        tell.submit(measure.submit("here")).wait()
        tell.map([measure("so")]).wait()

    retrying()
    edges(
        informed(
            {
                "flaky#2": "flaky",
                "flaky#3": "flaky#2",
                "report": "flaky#3",
                "compute#2": "compute",
                "compute#3": "compute#2",
                "write": "compute#3",
                "tell[0]": "measure[0]",
                "tell[1]": "measure[1]",
                "tell[2]": "measure[2]",
            }
        )
        | {("made", "write", "report.txt")}
    )
    graph = recorded_graph()
    [made] = [node for node in graph if node.attributes.get("path") == str(tmp_path / "report.txt")]
    computed = [node.attributes for node in graph.lineage(made.id) if node.attributes.get("name") == "compute"]
    assert sorted(facts["outcome"] for facts in computed) == ["completed", "failed", "failed"]
    assert {facts.get("cause") for facts in computed} == {None, "ValueError: not yet"}
    assert {(facts["run_name"], facts["files"]) for facts in computed} == {("computed for there", "not looked at")}


def test_tasks_of_prefects_own_in_a_flow_of_prefects_own(edges):
    """What ran before anything of the flow was recorded is on record once something is."""

    @prefect.task
    def compute() -> float:
        return 1.5 * len(REGIONS)

    @prefect.flow
    def plain() -> None:
        report("report", compute())

    plain()
    edges(informed({"report": "compute"}))


def test_values_go_into_subflows_and_come_back(edges):
    """The subflow knows of the task outside, and the task that takes its result of who computed it."""

    @flow
    def inner(number: float) -> float:
        return measure(f"{number}")

    @flow
    def derived(number: float) -> float:
        return measure("x") * number

    @flow
    def outer() -> None:
        report("of inner", inner(measure("abc")))
        report("of derived", derived(2.0))

    outer()
    edges(informed({"inner": "measure[0]", "of inner": "measure[1]", "of derived": "derived"}))


@pytest.mark.long
def test_a_value_whose_place_in_memory_is_taken_over_leads_nowhere(edges):
    """New lists often lie where old ones lay; so do their items."""

    @flow
    def many() -> None:
        for number in range(50):
            table()
            report("report", [number * 1000.5], {"mean": 1.5 * number})

    many()
    edges(set())


async def test_asynchronous_tasks_and_generators(edges):
    """Gathered, and one after the other; what a task yields leads to it, while it runs and after."""

    @task
    async def fetch(number: int) -> float:
        await asyncio.sleep(0)
        return number * 1.5

    @task
    async def pieces():
        for number in (10.5, 20.5):
            yield number * 2

    @task
    def chunks(number: float):
        for index in range(2):
            yield number * (index + 1)

    @task
    async def joined(*values: float) -> float:
        return sum(values)

    @flow
    async def fetching() -> None:
        values = await asyncio.gather(fetch(1), fetch(2))
        for chunk in chunks(await joined(*values)):
            report("report", chunk)
        async for piece in pieces():
            await joined(piece)

    await fetching()
    edges(
        {("informed", "joined[0]", f"fetch[{index}]") for index in range(2)}
        | {("informed", f"joined[{index}]", "pieces") for index in (1, 2)}
        | {("informed", "chunks", "joined[0]")}
        | {("informed", f"report[{index}]", "chunks") for index in range(2)}
    )


def test_results_that_are_kept(edges, tmp_path):
    """A task that Prefect does not run, since it has its result, made nothing: the first one did."""

    @task(cache_policy=INPUTS, persist_result=True, cache_expiration=timedelta(minutes=1))
    def dear(key: str) -> dict[str, float]:
        return {"mean": 1.5 * len(key)}

    @flow
    def caching() -> None:
        report("first", dear(f"key of {tmp_path}"))
        report("second", dear(f"key of {tmp_path}"))

    caching()
    edges(informed({"first": "dear", "second": "dear"}))


def test_threads(edges):
    """Of Prefect's, and of the flow's own."""
    places = ["a", "bb", "ccc"]

    @flow
    def threads() -> None:
        values = {place: measure.with_options(name=f"measure {place}").submit(place) for place in places}
        for place, value in values.items():
            _report.with_options(name=f"report {place}").submit(value.result())
        thread = threading.Thread(target=lambda: half(values["a"].result()))
        thread.start()
        thread.join()

    threads()
    edges(informed({f"report {place}": f"measure {place}" for place in places} | {"half": "measure a"}))


@task
def squared(number: float) -> float:
    return number * number


@pytest.mark.long
def test_other_processes(edges):
    """Prefect gives the tasks of a pool of processes copies, of futures too; what they wait for is known."""

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def processes() -> None:
        square = squared.submit(1.5)
        passed.with_options(name="given").submit(square).wait()
        passed.with_options(name="waiting").submit(2.5, wait_for=[square]).wait()

    processes()
    edges(informed({"waiting": "squared"}), not_seen=informed({"given": "squared"}))


@pytest.mark.long
def test_dask(edges):
    """As other processes."""
    dask = pytest.importorskip("prefect_dask")

    @flow(task_runner=dask.DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 2, "processes": False}))
    def clustered() -> None:
        _report.submit(*(squared.submit(number) for number in (1.5, 2.5))).wait()

    clustered()
    edges({("informed", "_report", f"squared[{index}]") for index in range(2)})


def test_an_error_is_not_kept_once_the_flow_has_let_go_of_it(edges):
    """With it go its traceback, and all that the failed calls held. One that is given on leads to who raised it."""
    held = []

    class Large:
        """What a call has in memory when it fails."""

    @recorded
    def breaks() -> None:
        large = Large()
        held.append(weakref.ref(large))
        # As many libraries do: the error refers to a frame that refers to the error.
        error = ValueError("too large")
        raise error

    @task
    def excuse() -> Exception:
        return OSError("busy")

    @flow
    def survives() -> None:
        with contextlib.suppress(ValueError):
            breaks()
        report("next", "next")
        try:
            breaks()
        except ValueError as error:
            report("raised", [error])
        report("returned", excuse())

    survives()
    gc.collect()
    edges(informed({"raised": "breaks[1]", "returned": "excuse"}))
    assert held[0]() is None


@pytest.mark.catches("released results are kept")
def test_a_result_is_not_kept_while_a_long_call_runs(edges):
    """Once the flow has let go of it, although no call begins or ends from then on."""

    class Large:
        """A part of the result."""

    done = threading.Event()

    @task
    def long() -> None:
        done.wait(60)

    @recorded
    def make() -> list[Any]:
        # Not a task, whose result Prefect may keep until it has told of it.
        return [Large()]

    @flow
    def main() -> None:
        running = long.submit()
        result = make()
        part = weakref.ref(result[0])
        del result
        end = time.monotonic() + 20
        while part() is not None and time.monotonic() < end:
            time.sleep(0.1)
            gc.collect()
        done.set()
        running.wait()
        assert part() is None

    main()
