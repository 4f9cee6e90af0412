"""Background tasks: what a Prefect task worker executes for no flow run is a run of its own, by its task run's id.

The worker is Prefect's own, in the test's process. `tests/e2e/test_background_tasks.py` has real ones that are killed.
"""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from eventually import until
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import CancelledRun, TerminationSignal
from prefect.states import Cancelled, Crashed, Failed
from prefect.task_worker import TaskWorker

from ivcap_flows import flow as recorded_flow
from ivcap_flows import task as recorded_task
from ivcap_flows.capture import context, journal, recorded
from ivcap_flows.in_prefect.flow_run_states import prefect_state
from ivcap_flows.journal.rows import AttemptRow

pytestmark = [pytest.mark.canary, pytest.mark.usefixtures("prefect_api")]


def here() -> str:
    """The run that the calling code belongs to."""
    return context.current_attempt().run.id


def sent(background, **parameters) -> TaskRun:
    """A task run that was sent by `delay`, as Prefect delivers it."""

    async def as_delivered() -> TaskRun:
        async with get_client() as client:
            run = await background.create_run(parameters=parameters, deferred=True)
            return await client.read_task_run(run.id)

    return asyncio.run(as_delivered())


def execute(background, run: TaskRun) -> TaskRun:
    """The task run after a task worker has executed it."""

    async def execution() -> None:
        await TaskWorker(background).execute_task_run(run)

    asyncio.run(execution())
    return run


def attempts(run: TaskRun) -> list[AttemptRow]:
    return list(journal().runs.attempts(str(run.id)))


@pytest.mark.catches("background tasks are the process's")
def test_what_a_background_task_calls_is_its_own(build, recorded_graph):
    """Tasks, recorded or not, functions, threads of its own, and flows; equal ones that follow are others."""
    seen: list[str] = []

    @task
    def plain(number: int) -> int:
        seen.append(here())
        return number

    @recorded_task
    def seen_task(number: int) -> int:
        seen.append(here())
        return number

    @recorded
    def called(number: int) -> int:
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(here).result())
        return number

    @recorded_flow
    def inner(number: int) -> int:
        seen.append(here())
        return seen_task(number)

    @recorded_task
    def ask(number: int) -> int:
        return inner(called(seen_task(plain(number))))

    equal = [execute(ask, sent(ask, number=7)) for _ in range(2)]
    runs = [str(each.id) for each in equal]
    assert seen == [run for run in runs for _ in range(5)]
    assert [(run.id, run.outcome, run.flow_name, run.is_background) for run in journal().runs.recent()] == [
        (run, "completed", "ask", True) for run in reversed(runs)
    ]
    assert [(each.leads, each.number, each.outcome) for each in attempts(equal[0])] == [
        (True, 1, "completed"),
        (False, 1, "completed"),
    ]
    graph = recorded_graph()
    [run] = (node for node in graph if node.type == "flow-run")
    assert run.attributes["background"] and "deployed" not in run.attributes
    [leading] = (node for node in graph if node.type == "attempt" and not node.attributes.get("subflow"))
    assert leading.attributes["task_run_id"] == runs[1]
    assert sorted(node.attributes["name"] for node in graph if node.type == "task-run") == [
        "ask", "plain", "seen_task", "seen_task",
    ]  # fmt: skip


@pytest.mark.catches("each delivery is a run")
@pytest.mark.parametrize("delay", [0, 0.01], ids=["at once", "after a while"])
@pytest.mark.parametrize("recording", [True, False], ids=["recorded", "plain"])
def test_each_try_is_an_attempt(build, recorded_graph, delay, recording):
    """By Prefect's retries, and if the task run is delivered once more, for which Prefect counts its tries anew."""
    fails = iter([True, False, True, False])

    def ask(word: str) -> str:
        context.current_attempt()
        if next(fails):
            raise ValueError(word)
        return here()

    background = task(recorded(ask) if recording else ask, name="ask", retries=1, retry_delay_seconds=delay)
    run = execute(background, sent(background, word="no"))
    execute(background.with_options(refresh_cache=True), sent_again(run))
    assert [(each.number, each.outcome, each.cause) for each in attempts(run)] == [
        (1, "failed", "ValueError: no"),
        (2, "completed", None),
        (3, "failed", "ValueError: no"),
        (4, "completed", None),
    ]
    tries = [node for node in recorded_graph() if node.type == "task-run"]
    assert (
        sorted(node.attributes["outcome"] for node in tries)
        == ["completed", "completed", "failed", "failed"] * recording
    )


def sent_again(run: TaskRun) -> TaskRun:
    """The same task run, scheduled and delivered once more."""
    with get_client(sync_client=True) as client:
        return run.model_copy(update={"run_count": 0, "state": client.read_task_run_states(run.id)[0]})


@pytest.mark.catches("a background task is continued by its parameters")
def test_no_equal_one_continues_a_background_task(build):
    """As with a deployed run, and unlike the same command: who sends it anew wants another."""
    fails = iter([True, False])

    @task
    def ask(word: str) -> None:
        here()
        if next(fails):
            raise ValueError(word)

    runs = [execute(ask, sent(ask, word="same")) for _ in range(2)]
    assert [[(each.number, each.outcome) for each in attempts(run)] for run in runs] == [
        [(1, "failed")],
        [(1, "completed")],
    ]


def test_a_child_that_a_background_task_forks_is_its():
    codes: list[int] = []

    @task
    def forks() -> None:
        run, child = here(), os.fork()
        if child == 0:
            os._exit(here() != run)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    run = execute(forks, sent(forks))
    assert (codes, len(attempts(run))) == ([0], 1)


@pytest.mark.catches("who sends a background task owns it")
def test_a_background_task_that_another_sends_is_not_its_own(build):
    """With it, Prefect hands on the context of the sender, which may have ended long since."""
    runs: list[tuple[str, TaskRun]] = []
    later: list[TaskRun] = []

    @task
    def second(number: int) -> None:
        runs.append((here(), later[0]))

    @task
    def first(number: int) -> None:
        here()

        async def send() -> None:
            later.append(await second.create_run(parameters={"number": number}, deferred=True))

        asyncio.run(send())

    run = execute(first, sent(first, number=1))
    execute(second, later[0])
    assert runs == [(str(later[0].id), later[0])] and later[0].id != run.id


@pytest.mark.catches("a background task has no flow")
def test_a_task_that_a_flow_sends_is_the_flows(build):
    """With parameters, and without, where Prefect hands on no context of the flow but its id."""
    seen: list[str] = []
    delivered: list = []

    @task
    def told(number: int) -> None:
        seen.append(here())

    @task
    def untold() -> None:
        seen.append(here())

    @flow
    def sends() -> str:
        for each, given in ((told, {"number": 1}), (untold, {})):

            async def send(each=each, given=given):
                return await each.create_run(parameters=given, deferred=True)

            delivered.append((each, asyncio.run(send())))
        return here()

    run = sends()
    for each, task_run in delivered:
        execute(each, task_run)
    assert seen == [run, run]
    assert [each.id for each in journal().runs.recent()] == [run]


def test_a_task_that_a_script_calls_is_the_processs():
    fails = iter([True, False, False])

    @task(retries=1, retry_delay_seconds=0.01)
    def ask(number: int) -> str:
        if next(fails):
            raise ValueError(number)
        return here()

    assert ask(1) == ask(2)
    assert not journal().runs.recent()[0].is_background


def raises(error: BaseException):
    def ask(number: int) -> None:
        here()
        raise error

    return ask


def returns(state):
    def ask(number: int):
        here()
        return state(message="no")

    return ask


def sleeps(number: int) -> None:
    here()
    while True:
        # Prefect ends it between two of its steps.
        time.sleep(0.01)


async def asleep(number: int) -> None:
    await asyncio.to_thread(here)
    await asyncio.sleep(60)


async def cancelled(number: int) -> None:
    await asyncio.to_thread(here)
    raise asyncio.CancelledError


ENDS = {
    "an error": (raises(ValueError("no")), "failed"),
    "a signal": (raises(TerminationSignal(signal=15)), "crashed"),
    "an interrupt": (raises(KeyboardInterrupt()), "crashed"),
    "cancelled by Prefect": (raises(CancelledRun("by Ada")), "failed"),
    "a returned failure": (returns(Failed), "failed"),
    "a returned crash": (returns(Crashed), "crashed"),
    "a returned cancellation": (returns(Cancelled), "cancelled"),
    "its time is over": (sleeps, "failed"),
    "its time is over, asynchronous": (asleep, "failed"),
    "cancelled by its loop": (cancelled, "crashed"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_background_task_ends_as_prefect_says(name, recorded_graph):
    """Its run, its attempt and, if it is recorded, its task run."""
    ask, outcome = ENDS[name]
    background = task(recorded(ask), name="ask", timeout_seconds=0.5 if name.startswith("its time") else None)
    run = execute(background, sent(background, number=1))
    said = until(lambda: prefect_state(str(run.id)))
    [attempt] = attempts(run)
    told = {node.attributes["outcome"] for node in recorded_graph() if node.type in ("attempt", "flow-run", "task-run")}
    assert (said.outcome, attempt.outcome, told) == (outcome, outcome, {outcome})
