"""Values that pass between tasks: numbers, texts, lists, dicts, futures and `wait_for`."""

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import prefect
import pytest
from prefect import allow_failure, unmapped
from prefect.cache_policies import INPUTS
from prefect.context import FlowRunContext
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from ivcap_flows import flow, recorded, task

Edges = Callable[..., None]


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
def report(*values: Any, **named: Any) -> str:
    return f"{values} {named}"


def test_a_number_leads_to_the_task_that_computed_it(edges: Edges) -> None:
    """Also where it is passed on by name, and in a list."""

    @flow
    def numbers() -> None:
        one, two = measure("here"), measure("there!")
        report(one)
        report(shown=[two, 5.0])

    numbers()
    edges({("informed", "report[0]", "measure[0]"), ("informed", "report[1]", "measure[1]")})


def test_a_text_that_the_flow_writes_itself_leads_nowhere(edges: Edges) -> None:
    """Though Python keeps one object for the equal texts and numbers of a program."""

    @flow
    def texts() -> None:
        chosen = name_of(1)
        report("north")
        report(chosen)
        report(measure("four"), 5.0)

    texts()
    edges({("informed", "report[1]", "name_of"), ("informed", "report[2]", "measure")})


def test_parts_of_a_result_lead_to_its_task(edges: Edges) -> None:
    """The container, its items and what is nested in them; not what it shares with the flow."""

    @flow
    def parts() -> None:
        found = table()
        report(found)
        report(found["mean"])
        report(found["rows"][1])
        report(found["unit"])
        report("mm", 2.1, list(found))

    parts()
    edges({("informed", f"report[{index}]", "table") for index in range(4)})


def test_small_numbers_are_not_seen_unless_they_are_passed_as_futures(edges: Edges) -> None:
    """Python has one object of each small whole number, so nothing tells whose it is."""

    @flow
    def small() -> None:
        report(count())
        report.submit(count.submit()).wait()
        report.submit([count.submit()]).wait()

    small()
    edges(
        {("informed", "report[1]", "count[1]"), ("informed", "report[2]", "count[2]")},
        not_seen={("informed", "report[0]", "count[0]")},
    )


def test_wait_for_is_an_edge(edges: Edges) -> None:
    """Of a call, a submitted and a mapped task."""

    @flow
    def waiting() -> None:
        first = count.submit()
        measure("a", wait_for=[first])
        measure.submit("b", wait_for=[first]).wait()
        measure.map(["c", "d"], wait_for=[first]).wait()

    waiting()
    edges({("informed", f"measure[{index}]", "count") for index in range(4)})


def test_mapped_values_and_what_gathers_them(edges: Edges) -> None:
    """Each mapped task has its own value, the one that gathers has them all."""

    @flow
    def mapping() -> None:
        places = [name_of.with_options(name=f"name of {number}")(number) for number in (1, -1)]
        gathered = [measure.with_options(name=f"measure {place}").map([place]) for place in places]
        report([means.result() for means in gathered])

    mapping()
    pairs = (("1", "north"), ("-1", "south"))
    edges(
        {("informed", f"measure {place}", f"name of {number}") for number, place in pairs}
        | {("informed", "report", f"measure {place}") for _, place in pairs}
    )


def test_a_map_over_a_future_knows_who_made_the_list(edges: Edges) -> None:
    """Each mapped task was given a part of the list; what is not mapped reaches all."""

    @task
    def places() -> list[str]:
        return ["here", "there"]

    @task
    def scaled(place: str, factor: float) -> float:
        return len(place) * factor

    @flow
    def mapping() -> None:
        scaled.map(places.submit(), unmapped(measure("unit"))).wait()

    mapping()
    edges({("informed", f"scaled[{index}]", maker) for index in range(2) for maker in ("places", "measure")})


@pytest.mark.catches("mapped lists are known by their places")
def test_a_map_over_a_list_at_the_place_of_another_is_not_linked_to_that(edges: Edges) -> None:
    """Prefect knows a list by its place in memory, where another may be once the first is gone."""

    @task
    def places() -> list[str]:
        return ["here", "there"]

    @flow
    def mapping() -> None:
        made, others = places(), ["north", "south"]
        measure.map(made).wait()
        # As if the list had been released, and the other had come to its place.
        known = FlowRunContext.get().run_results
        known[id(others)] = known[id(made)]
        measure.with_options(name="measure others").map(others).wait()

    mapping()
    edges({("informed", f"measure[{index}]", "places") for index in range(2)})


def test_futures_in_containers(edges: Edges) -> None:
    """Prefect resolves them before the task is called."""

    @flow
    def futures() -> None:
        one, two = measure.submit("one"), count.submit()
        report.submit({"one": one, "more": [two]}).wait()

    futures()
    edges({("informed", "report", "measure"), ("informed", "report", "count")})


def test_a_state_is_as_good_as_its_result(edges: Edges) -> None:
    """A task that is asked for its state gives a handle on its result."""

    @flow
    def states() -> None:
        report(count(return_state=True))

    states()
    edges({("informed", "report", "count")})


def test_the_try_that_succeeded_informs_and_knows_of_the_one_that_failed(edges: Edges) -> None:
    """So that a report leads to the failure before it."""
    tries = []

    @task(retries=2)
    def flaky() -> float:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return 2.5 * len(tries)

    @flow
    def retrying() -> None:
        report(flaky())

    retrying()
    edges({("informed", "flaky#2", "flaky"), ("informed", "flaky#3", "flaky#2"), ("informed", "report", "flaky#3")})


def test_a_report_leads_to_the_task_that_computed_its_number(
    tmp_path: Path, prefect_api: None, recorded_graph: Callable[..., Any]
) -> None:
    """Through a task without a record of its files, to the try that failed first."""
    tries = []

    @prefect.task(retries=1)
    def compute() -> float:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("not yet")
        return 12.5 * len(tries)

    @task
    def write(number: float, target: Path) -> Path:
        target.write_text(f"{number}")
        return target

    @flow
    def reporting() -> None:
        write(compute(), tmp_path / "report.txt")

    reporting()
    graph = recorded_graph()
    [made] = [node for node in graph if node.attributes.get("path") == str(tmp_path / "report.txt")]
    above = graph.lineage(made.id)
    outcomes = [node.attributes["outcome"] for node in above if node.attributes.get("name") == "compute"]
    assert sorted(outcomes) == ["completed", "failed"]


def test_what_comes_after_a_failure_knows_of_it(edges: Edges) -> None:
    """Where the flow says that a failure is no hindrance."""

    @task
    def broken() -> float:
        raise ValueError("no")

    @flow
    def failing() -> None:
        failed = broken.submit()
        measure.submit("b", wait_for=[allow_failure(failed)]).wait()
        report.submit(allow_failure(failed)).wait()

    failing()
    edges({("informed", "measure", "broken"), ("informed", "report", "broken")})


def test_values_go_into_subflows_and_come_back(edges: Edges) -> None:
    """The subflow knows of the task outside, and the task that takes its result of who computed it."""

    @flow
    def inner(number: float) -> float:
        return measure(f"{number}")

    @flow
    def derived(number: float) -> float:
        return measure("x") * number

    @flow
    def outer() -> None:
        report(inner(measure("abc")))
        report(derived(2.0))

    outer()
    edges(
        {
            ("informed", "inner", "measure[0]"),
            ("informed", "report[0]", "measure[1]"),
            ("informed", "report[1]", "derived"),
        }
    )


def test_what_a_task_hands_on_is_its_own(edges: Edges) -> None:
    """A text that a task returns as it was given comes from it; an object that it was given does not."""

    @task
    def passed(value: Any) -> Any:
        return value

    @flow
    def passing() -> None:
        report(passed(measure("text")))
        report(passed(table()))

    passing()
    edges(
        {
            ("informed", "passed[0]", "measure"),
            ("informed", "report[0]", "passed[0]"),
            ("informed", "passed[1]", "table"),
            ("informed", "report[1]", "table"),
        }
    )


def test_a_constant_that_a_task_returns_is_nobodys(edges: Edges) -> None:
    """A list of the module's may have reached the next task without the first."""

    @task
    def regions() -> list[str]:
        return REGIONS

    @flow
    def constants() -> None:
        regions()
        report(REGIONS)

    constants()
    edges(set())


REGIONS = ["north", "south"]


@pytest.mark.long
def test_a_value_whose_place_in_memory_is_taken_over_leads_nowhere(edges: Edges) -> None:
    """New lists often lie where old ones lay; so do their items."""

    @flow
    def many() -> None:
        for number in range(50):
            table()
            report([number * 1000.5], {"mean": 1.5 * number})

    many()
    edges(set())


def test_dataclasses_and_their_fields(edges: Edges) -> None:
    """As any other object of the flow's own."""

    @dataclass
    class Fit:
        slope: float
        label: str

    @task
    def fit(number: float) -> Fit:
        return Fit(number * 3, f"fit of {number}")

    @flow
    def fitting() -> None:
        fitted = fit(measure("abc"))
        report(fitted)
        report(fitted.slope)
        report(fitted.label.upper())

    fitting()
    edges(
        {("informed", "fit", "measure"), ("informed", "report[0]", "fit"), ("informed", "report[1]", "fit")},
        # The flow's body makes a text of it.
        not_seen={("informed", "report[2]", "fit")},
    )


def test_generators(edges: Edges) -> None:
    """What a task yields leads to it, while it runs and after."""

    @task
    def chunks(number: float):
        for index in range(3):
            yield number * (index + 1)

    @flow
    def generating() -> None:
        for chunk in chunks(measure("abcd")):
            report(chunk)

    generating()
    edges({("informed", "chunks", "measure")} | {("informed", f"report[{index}]", "chunks") for index in range(3)})


async def test_asynchronous_tasks(edges: Edges) -> None:
    """Gathered, and one after the other."""

    @task
    async def fetch(number: int) -> float:
        await asyncio.sleep(0)
        return number * 1.5

    @task
    async def pieces():
        for number in (10.5, 20.5):
            yield number * 2

    @task
    async def joined(*values: float) -> float:
        return sum(values)

    @flow
    async def fetching() -> None:
        values = await asyncio.gather(fetch(1), fetch(2))
        await joined(*values)
        async for piece in pieces():
            await joined(piece)

    await fetching()
    edges(
        {("informed", "joined[0]", "fetch[0]"), ("informed", "joined[0]", "fetch[1]")}
        | {("informed", f"joined[{index}]", "pieces") for index in (1, 2)}
    )


def test_tasks_of_prefects_own_are_on_record(edges: Edges, recorded_graph: Callable[..., Any]) -> None:
    """With their values, tries and outcome, and that their files were not looked at."""
    tries = []

    @prefect.task(retries=1, task_run_name="computed for {place}")
    def compute(place: str) -> float:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("not yet")
        return len(place) * 1.5

    @prefect.task
    def tell(*values: float) -> str:
        return f"{values}"

    @flow
    def mixed() -> None:
        report(compute("there"))
        tell(measure("here"))
        tell.submit(measure.submit("here")).wait()
        tell.map([measure("so")]).wait()

    mixed()
    edges(
        {
            ("informed", "compute#2", "compute"),
            ("informed", "report", "compute#2"),
            ("informed", "tell[0]", "measure[0]"),
            ("informed", "tell[1]", "measure[1]"),
            ("informed", "tell[2]", "measure[2]"),
        }
    )
    first, second = (
        node.attributes for node in recorded_graph().nodes.values() if node.attributes.get("name") == "compute"
    )
    assert [first["outcome"], second["outcome"]] == ["failed", "completed"]
    assert first["cause"] == "ValueError: not yet"
    assert {first["run_name"], second["run_name"]} == {"computed for there"}
    assert second["files"] == "not looked at"


def test_tasks_of_prefects_own_in_a_flow_of_prefects_own(edges: Edges, tmp_path: Path) -> None:
    """What ran before anything of the flow was recorded is on record once something is."""

    @prefect.task
    def compute() -> float:
        return 1.5 * len(REGIONS)

    @prefect.flow
    def plain() -> None:
        number = compute()
        report(number)

    plain()
    edges({("informed", "report", "compute")})


def test_tasks_in_tasks(edges: Edges) -> None:
    """What a task calls within gives to its neighbours."""

    @task
    def outer() -> float:
        inner = measure("abc")
        return len(report(inner)) * 1.5

    @flow
    def nesting() -> None:
        report(outer())

    nesting()
    edges({("informed", "report[0]", "measure"), ("informed", "report[1]", "outer")})


def test_functions_that_are_no_tasks(edges: Edges) -> None:
    """Those that are recorded give and take like tasks."""

    @recorded
    def half(number: float) -> float:
        return number / 2

    @flow
    def halving() -> None:
        report(half(measure("abc")))

    halving()
    edges({("informed", "half", "measure"), ("informed", "report", "half")})


def test_results_that_are_kept(edges: Edges, tmp_path: Path) -> None:
    """A task that Prefect does not run, since it has its result, made nothing: the first one did."""

    @task(cache_policy=INPUTS, persist_result=True, cache_expiration=timedelta(minutes=1))
    def dear(key: str) -> dict[str, float]:
        return {"mean": 1.5 * len(key)}

    key = f"key of {tmp_path}"

    @flow
    def caching() -> None:
        report(dear(key))
        report(dear(key))

    caching()
    edges({("informed", "report[0]", "dear"), ("informed", "report[1]", "dear")})


def test_threads(edges: Edges) -> None:
    """Of Prefect's, and of the flow's own."""

    @recorded
    def half(number: float) -> float:
        return number / 2

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
    def threads() -> None:
        values = {place: measure.with_options(name=f"measure {place}").submit(place) for place in places}
        for place, value in values.items():
            report.with_options(name=f"report {place}").submit(value.result())
        thread = threading.Thread(target=lambda: half(values["a"].result()))
        thread.start()
        thread.join()

    places = ["a", "bb", "ccc", "dddd"]
    threads()
    edges(
        {("informed", f"report {place}", f"measure {place}") for place in places} | {("informed", "half", "measure a")}
    )


@pytest.mark.long
def test_other_processes(edges: Edges) -> None:
    """Prefect gives the tasks of a pool of processes copies, of futures too; what they wait for is known."""

    @task
    def squared(number: float) -> float:
        return number * number

    @task
    def summed(*numbers: float) -> float:
        return sum(numbers)

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def processes() -> None:
        square = squared.submit(1.5)
        summed.with_options(name="given").submit(square).wait()
        summed.with_options(name="waiting").submit(2.5, wait_for=[square]).wait()

    processes()
    edges({("informed", "waiting", "squared")}, not_seen={("informed", "given", "squared")})


def test_dask(edges: Edges) -> None:
    """As other processes."""
    dask = pytest.importorskip("prefect_dask")

    @task
    def squared(number: float) -> float:
        return number * number

    @task
    def summed(*numbers: float) -> float:
        return sum(numbers)

    @flow(task_runner=dask.DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 2, "processes": False}))
    def clustered() -> None:
        squares = [squared.submit(number) for number in (1.5, 2.5)]
        summed.submit(*squares).wait()

    clustered()
    edges({("informed", "summed", "squared[0]"), ("informed", "summed", "squared[1]")})


def test_an_error_is_not_kept_once_the_flow_has_let_go_of_it(edges: Edges) -> None:
    """With it go its traceback, and all that the failed calls held."""
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

    @flow
    def survives() -> None:
        for _ in range(3):
            with contextlib.suppress(ValueError):
                breaks()
            report("next")

    survives()
    gc.collect()
    assert [each() for each in held] == [None] * 3


@pytest.mark.catches("released results are kept")
def test_a_result_is_not_kept_while_a_long_call_runs(edges: Edges) -> None:
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


def test_an_error_may_be_given_on(edges: Edges) -> None:
    """One that a call raised or returned leads to it, also as a part of something else."""

    @recorded
    def breaks() -> None:
        raise KeyError("no")

    @task
    def excuse() -> Exception:
        return OSError("busy")

    @flow
    def gathers() -> None:
        try:
            breaks()
        except KeyError as error:
            report([error])
        report(excuse())

    gathers()
    edges({("informed", "report[0]", "breaks"), ("informed", "report[1]", "excuse")})
