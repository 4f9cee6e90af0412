"""What `@recorded` makes of Prefect's runs: attempts, tries, outcomes, secrets; and of a journal that cannot be had."""

import asyncio
import contextlib
import inspect
import logging
import pickle
import threading
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import ParseResult, urlparse

import prefect
import pytest
from ordinary_edges import the
from prefect import State, states
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.futures import wait
from prefect.states import Failed
from prefect.tasks import task_input_hash
from pydantic import SecretStr

from ivcap_flows import flow, task
from ivcap_flows.capture import acting_as, attempts, context, current_attempt, journal, note, recorded, recorder
from ivcap_flows.errors import ConfigurationError, InputError, JournalError
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal.runs import Runs
from ivcap_flows.provenance import Graph, entity
from ivcap_flows.secrets import HIDDEN
from ivcap_flows.tasks.orphan_report import report_orphans

pytestmark = pytest.mark.usefixtures("prefect_api")


def started(graph: Graph) -> dict[str, str]:
    """What each activity was started by."""
    return {link.source: link.target for link in graph.relations.values() if link.type == "wasStartedBy"}


@task
def slow(fail: bool) -> None:
    time.sleep(0.1)
    if fail:
        raise ValueError("slow")


def raised(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("body", "outcome", "cause"),
    [
        (lambda: raised(RuntimeError("boom")), "failed", "RuntimeError: boom"),
        (lambda: raised(KeyboardInterrupt("boom")), "crashed", "KeyboardInterrupt: boom"),
        (lambda: Failed(message="boom"), "failed", "boom"),
        (lambda: slow.submit(True), "failed", "ValueError: slow"),
        (lambda: [slow.submit(False), slow.submit(True)], "failed", "ValueError: slow"),
        (lambda: (slow.submit(False), slow.submit(False)), "completed", None),
        (lambda: [slow.submit(True), 1], "completed", None),
        (lambda: [Failed(message="no"), 1], "completed", None),
    ],
    ids=["error", "interrupt", "state", "future", "futures", "completed", "with a value", "state with a value"],
)
def test_a_flow_ends_as_prefect_says(body, outcome, cause, recorded_graph):
    """By what it raises, or by the futures and states that it returns: its attempt ends after their tasks."""
    try:
        state = flow(recorded(lambda: body()), name="main")(return_state=True)
    except KeyboardInterrupt:
        assert outcome == "crashed"
    else:
        assert state.type.value == outcome.upper()
    graph, [run] = recorded_graph(), journal().runs.recent()
    [row] = journal().runs.attempts(run.id)
    attempt = the(graph, "attempt")
    assert (run.outcome, row.outcome) == (outcome, outcome)
    assert attempt.attributes["outcome"] == the(graph, "flow-run").attributes["outcome"] == outcome
    for told in (row.cause, attempt.attributes.get("cause")):
        assert told is None if cause is None else told.endswith(cause)
    assert all(node.ended <= attempt.ended for node in graph if node.type == "task-run")


@task
def boom(number: int) -> int:
    raise ValueError(number)


@task
def ended_as(kind: str) -> State:
    return getattr(states, kind)()


@task
async def cancelled_by_its_loop() -> None:
    raise asyncio.CancelledError


ENDS = {
    "mapped": lambda: boom.map([1, 2]),
    "failed": lambda: states.Failed(),
    "cancelled": lambda: states.Cancelled(),
    "crashed": lambda: states.Crashed(),
    "paused": lambda: states.Paused(),
    "named": lambda: states.Completed(name="Unchanged"),
    "of a crashed task": lambda: [ended_as("Crashed", return_state=True)],
    "of a cancelled and a failed task": lambda: [boom.submit(1), ended_as.submit("Cancelled")],
    "of a paused and a failed task": lambda: (boom.submit(1), ended_as.submit("Paused")),
    "of a cancelled task, raised": lambda: ended_as("Cancelled", return_state=True).result(),
    "within data": lambda: {"states": [ended_as("Failed", return_state=True)]},
    "loop": lambda: raised(asyncio.CancelledError()),
}
OF_PREFECT = {"COMPLETED": "completed", "FAILED": "failed", "CANCELLED": "cancelled", "CRASHED": "crashed"}
OF_PREFECT["PAUSED"] = "paused"


def state_of(flow_run_id: str) -> str:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(flow_run_id).state.type.value


@pytest.mark.parametrize(
    "kind",
    [
        "recorded",
        *(pytest.param(each, marks=pytest.mark.long) for each in ("without recorded", "asynchronous", "a generator")),
    ],
)
def test_the_record_says_of_an_end_what_prefect_says(kind, recorded_graph):
    """Of the run, its attempt and its tasks; whatever the flow returns or raises."""

    def body(name: str) -> object:
        begin()
        return ENDS[name]()

    async def later(name: str) -> object:
        return body(name)

    def generator(name: str) -> object:
        yield 1
        return body(name)

    begin = task(lambda: None, name="begin")
    decorate = prefect.flow if kind == "without recorded" else flow
    function = {"asynchronous": later, "a generator": generator}.get(kind, body)
    for name in ENDS:
        with contextlib.suppress(BaseException):
            result = decorate(function, name="ending")(name)
            asyncio.run(result) if kind == "asynchronous" else kind != "a generator" or list(result)
        [run] = journal().runs.recent(1)
        [attempt] = journal().runs.attempts(run.id)
        said = OF_PREFECT[state_of(attempt.flow_run_id)]
        graph = recorded_graph()
        assert (name, run.outcome, attempt.outcome) == (name, said, said)
        assert the(graph, "attempt").attributes["outcome"] == the(graph, "flow-run").attributes["outcome"] == said


def test_the_record_says_of_a_tasks_end_what_prefect_says(recorded_graph):
    """Of states that it returns, of an error, and of a cancellation, with `@recorded` and without."""
    ends: dict[str, str] = {}

    def returns(kind: str) -> State:
        return getattr(states, kind)()

    @flow
    async def main() -> None:
        for kind in ("Failed", "Cancelled", "Crashed", "Paused", "Completed"):
            for decorate in (task, prefect.task):
                run = decorate(returns, task_run_name=f"{kind} {decorate.__module__}")
                ends[f"{kind} {decorate.__module__}"] = OF_PREFECT[run(kind, return_state=True).type.value]
        with pytest.raises(asyncio.CancelledError):
            await cancelled_by_its_loop.with_options(task_run_name="loop")()
        ends["loop"] = "crashed"

    asyncio.run(main())
    runs = [node.attributes for node in recorded_graph() if node.type == "task-run"]
    assert {each["run_name"]: each["outcome"] for each in runs} == ends
    assert len(ends) == 11 and len(set(ends.values())) == 5


def test_what_exceeds_its_timeout_has_failed(recorded_graph):
    """Prefect ends it like a cancelled call, and reports it as failed. So does the record, of tasks and of the flow."""

    def work() -> None:
        for _ in range(200):
            time.sleep(0.02)

    async def work_there() -> None:
        await asyncio.sleep(4)

    @task
    def first() -> None:
        """What a run does once, at its first task, is not in the time of the others."""

    limit = {"timeout_seconds": 1.0}
    calls = {
        "recorded": task(work, name="recorded", **limit),
        "in a thread": lambda: task(work, name="in a thread", **limit).submit().result(),
        "asynchronous": lambda: asyncio.run(task(work_there, name="asynchronous", **limit)()),
        "observed": prefect.task(work, name="observed", **limit),
    }

    @flow
    def patient() -> None:
        first()
        for call in calls.values():
            with pytest.raises(TimeoutError):
                call()

    patient()
    told = {node.attributes["name"]: node.attributes for node in recorded_graph() if node.type == "task-run"}
    assert told.pop("first")["outcome"] == "completed" and told.keys() == calls.keys()
    with pytest.raises(TimeoutError):
        flow(work, **limit)()
    ends = [*told.values(), the(recorded_graph(), "attempt").attributes]
    assert {(each["outcome"], each["cause"]) for each in ends} == {("failed", "Exceeded its timeout of 1 s")}
    assert journal().runs.recent()[0].outcome == "failed"


def test_a_flow_retry_is_a_second_attempt_of_one_run(recorded_graph):
    """Prefect's retry of a flow continues the logical run; a task's cause shows no password."""
    tries = []

    @task
    def fails() -> None:
        raise ValueError("no luck at https://user:pass@host/x")

    @flow(retries=1)
    def again() -> None:
        tries.append(current_attempt().attempt.number)
        if len(tries) == 1:
            fails()

    again()
    [run] = journal().runs.recent()
    assert tries == [1, 2]
    assert [row.outcome for row in journal().runs.attempts(run.id)] == ["failed", "completed"]
    graph = recorded_graph()
    assert the(graph, "flow-run").attributes["outcome"] == run.outcome == "completed"
    assert the(graph, "task-run").attributes["cause"] == "ValueError: no luck at https://**********@host/x"


def test_threads_subflows_helpers_and_notes_belong_to_one_run(recorded_graph):
    """Tasks sent to threads, raw threads, a subflow with its own tasks, recorded functions in a task, what they note,
    and whom they act as.
    """
    seen = set()

    @recorded
    def helper(i: int) -> None:
        note(entity("urn:example:thing", "entity"))
        for _ in range(2):
            acting_as("urn:ivcap:account:a", "Ada")

    @task
    def leaf(i: int) -> int:
        seen.add(current_attempt().run.id)
        if i == 4:
            helper(i)
        return i

    @flow
    def inner() -> None:
        leaf(4)

    @flow
    def outer() -> None:
        wait([leaf.submit(1), *leaf.map([2, 3])])
        inner()
        thread = threading.Thread(target=lambda: seen.add(current_attempt().run.id))
        thread.start()
        thread.join()

    outer()
    graph, [run] = recorded_graph(), journal().runs.recent()
    assert seen == {run.id}
    root, sub = journal().runs.attempts(run.id)
    assert (root.leads, sub.leads) == (True, False)
    outside, within = (flows_urn("attempt", each.id) for each in (root, sub))
    by = started(graph)
    of = {node.attributes["parameters"]["i"]: by[node.id] for node in graph if node.type == "task-run"}
    assert of == {1: outside, 2: outside, 3: outside, 4: within}
    assert by[within] == outside
    call = the(graph, "call", "helper")
    assert graph.nodes[by[call.id]].attributes["parameters"] == {"i": 4}
    assert "urn:example:thing" in graph
    agents = {(link.source, link.target) for link in graph.relations.values() if link.type == "wasAssociatedWith"}
    assert (within, "urn:ivcap:account:a") in agents


async def test_asynchronous_flows_and_tasks_are_recorded_side_by_side(recorded_graph):
    """Tasks awaited together have each their own record, and a task inside a task its parent."""

    @task
    async def inner(i: int) -> int:
        await asyncio.sleep(0.01)
        return i

    @task
    async def outer(i: int) -> int:
        return await inner(i)

    @flow
    async def together() -> int:
        return sum(await asyncio.gather(outer(1), outer(2)))

    assert await together() == 3
    graph = recorded_graph()
    runs = {(n.attributes["name"], n.attributes["parameters"]["i"]): n.id for n in graph if n.type == "task-run"}
    assert len(runs) == 4
    assert all(started(graph)[runs["inner", i]] == runs["outer", i] for i in (1, 2))


@pytest.mark.parametrize("fails", [False, True], ids=["completed", "failed"])
async def test_the_end_of_an_asynchronous_flow_leaves_its_loop_to_others(fails, monkeypatch):
    """However long the journal takes; when the flow has returned, its attempt is closed."""
    close, closing, others = context.close_attempt, threading.Event(), threading.Event()

    def closes_when_others_have_run(*told: object) -> None:
        closing.set()
        assert others.wait(20)
        close(*told)

    async def tick() -> None:
        while not closing.is_set():
            await asyncio.sleep(0.01)
        others.set()

    @flow
    async def ends() -> None:
        if fails:
            raise ValueError("no")

    monkeypatch.setattr(context, "close_attempt", closes_when_others_have_run)
    ticking = asyncio.create_task(tick())
    await ends(return_state=True)
    await ticking
    assert [run.outcome for run in journal().runs.recent()] == ["failed" if fails else "completed"]


def test_a_flow_without_recorded_is_closed_by_its_end(recorded_graph):
    """A recorded task opens the run of a plain flow, and Prefect's final state closes it; the flow gets no hook."""

    @task
    def leaf(fail: bool) -> None:
        if fail:
            raise ValueError("leaf")

    @prefect.flow
    def plain(fail: bool) -> None:
        leaf(fail)

    with pytest.raises(ValueError, match="leaf"):
        plain(True)
    for name in ("a", "b"):
        plain = plain.with_options(name=name)
        plain(False)
    hooks = (plain.on_completion_hooks, plain.on_failure_hooks, plain.on_crashed_hooks, plain.on_cancellation_hooks)
    assert hooks == ([], [], [], [])
    assert [run.outcome for run in journal().runs.recent()] == ["completed", "completed", "failed"]
    assert recorded_graph(everything=True)


def test_each_try_of_a_flow_without_recorded_is_an_attempt(recorded_graph):
    """Prefect repeats a plain flow in its process and calls no hook in between; the failed try is on record."""
    seen = []

    @task
    def leaf() -> str:
        seen.append(current_attempt().attempt)
        return "x"

    @prefect.flow(retries=1)
    def plain() -> None:
        leaf()
        leaf()
        if len(seen) < 4:
            raise ValueError("once")

    plain()
    assert [each.number for each in seen] == [1, 1, 2, 2]
    [run] = journal().runs.recent()
    ends = [(each.number, each.outcome) for each in journal().runs.attempts(run.id)]
    assert ends == [(1, "failed"), (2, "completed")]
    graph = recorded_graph()
    by = [started(graph)[node.id] for node in graph if node.type == "task-run"]
    assert sorted(by) == sorted(flows_urn("attempt", each.id) for each in seen)


class Login(NamedTuple):
    """A parameter whose fields have names."""

    user: str
    password: str


def test_the_parameters_are_kept_and_the_secrets_are_not(recorded_graph, monkeypatch):
    """Secrets by type, name, known value and shape are hidden everywhere, also in named tuples and parsed addresses;
    the rest is as given.
    """
    jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
    monkeypatch.setenv("IVCAP_JWT", "value-of-the-environment")

    @task
    def use(text: str, nested: dict[str, object]) -> str:
        raise ValueError(f"{text} value-of-the-environment")

    @flow
    def secretive(year: int, api_key: str, secret: SecretStr, login: Login, at: ParseResult, token_count: int = 3):
        use(f"Bearer {jwt}", {"password": "hunter2hunter2", "deep": [jwt, "value-of-the-environment"]})

    address = urlparse("https://someone:second-passphrase@data.example/x")
    with pytest.raises(ValueError):
        secretive(1981, "key-1234567", SecretStr("typed-secret"), Login("someone", "first-passphrase"), address)
    graph = recorded_graph()
    values = the(graph, "parameters").attributes["values"]
    assert values.pop("at").endswith("@data.example/x")
    login = {"user": "someone", "password": HIDDEN}
    assert values == {"year": 1981, "api_key": HIDDEN, "secret": HIDDEN, "login": login, "token_count": 3}
    [run] = journal().runs.recent()
    said = str([record.attributes for record in graph]) + str(run) + str(journal().runs.attempts(run.id))
    secrets = ("eyJ", "hunter2", "value-of-the-environment", "typed-secret", "key-1234567", "passphrase")
    assert not [secret for secret in secrets if secret in said]


def test_a_journal_that_cannot_be_opened_costs_the_record_not_the_flow(monkeypatch, tmp_path, caplog):
    """The flow runs to its end with its result; one warning names the journal, and another journal has its record."""

    @task
    def leaf(i: int) -> int:
        return i

    @flow
    def unlucky() -> int:
        return leaf(1) + leaf(2)

    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path}")
    with caplog.at_level(logging.WARNING, "ivcap_flows.capture"):
        assert unlucky() == 3
    [message] = [r.getMessage() for r in caplog.records if "ivcap_flows/capture" in r.pathname]
    assert str(tmp_path) in message
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path / 'journal.sqlite'}")
    assert unlucky() == 3
    assert [run.flow_name for run in journal().runs.recent()] == ["unlucky"]


def test_a_run_says_once_what_is_wrong_with_its_settings(monkeypatch, tmp_path, caplog):
    """A limit that is spelt wrong limits nothing, and a relative path is another journal in another folder."""

    @flow
    def inner() -> None:
        pass

    @flow
    def outer() -> None:
        inner()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", "sqlite:///relative.sqlite")
    monkeypatch.setenv("IVCAP_FLOWS_MAXORDERS", "5")
    outer()
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "ivcap_flows" in r.pathname]
    assert len(said) == 2, said
    assert said[0].startswith("IVCAP_FLOWS_MAXORDERS is no setting") and "IVCAP_FLOWS_MAX_ORDERS" in said[0]
    assert said[1].startswith("The journal sqlite:///relative.sqlite has a relative path")


def test_a_deployed_run_is_refused_a_journal_by_a_relative_path(monkeypatch, tmp_path):
    """It would be another one in each folder in which a worker runs it, and all would be requested anew."""

    @prefect.flow
    def deployed() -> str:
        return current_attempt().run.id

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", "sqlite:///relative.sqlite")
    with get_client(sync_client=True) as client:
        id_ = client.create_deployment(client.create_flow(deployed), name=tmp_path.name)
        run = client.create_flow_run_from_deployment(id_)
    with pytest.raises(ConfigurationError, match="sqlite:///relative.sqlite of this deployed run .*absolute path"):
        run_flow(deployed, flow_run=run)
    with pytest.raises(ConfigurationError, match="absolute path"):
        report_orphans.fn()
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path / 'absolute.sqlite'}")
    assert run_flow(deployed, flow_run=run) == journal().runs.recent()[0].id


def locked(*_: object, **__: object) -> None:
    raise JournalError("database is locked")


def test_calls_while_the_journal_rests_are_counted(monkeypatch):
    """A subflow whose attempt cannot be opened, and what runs unrecorded for a while after it, count as missing."""
    runs = []

    @recorded
    def helper() -> None:
        """Do nothing."""

    @flow
    def inner() -> None:
        """Do nothing."""

    @flow
    def outer() -> None:
        runs.append(current_attempt().run.id)
        with monkeypatch.context() as patch:
            patch.setattr(Runs, "open_attempt", locked)
            inner()
        helper()
        helper()

    outer()
    assert journal().runs.get(runs[0]).missing_facts == 3


@pytest.mark.loses_records
def test_what_came_before_the_run_was_on_record_is_counted(monkeypatch):
    """A call that found no journal counts as missing from the run that a later call of the same flow run opens."""

    @task
    def leaf() -> None:
        """Do nothing."""

    @prefect.flow
    def patient() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Runs, "open_attempt", locked)
            leaf()
            note(entity("urn:x:1", "entity"))
        monkeypatch.setattr("ivcap_flows.capture.recorder_registry._backing_off", ("", 0.0))
        leaf()

    patient()
    [run] = journal().runs.recent()
    assert (run.outcome, run.missing_facts) == ("completed", 2)


@pytest.mark.loses_records
def test_notes_and_facts_that_cannot_be_written_are_counted(monkeypatch):
    """What a note or an account would have stated is missing from the run, and so is what the journal refuses."""

    def full(*_: object) -> None:
        raise MemoryError

    @recorded
    def leaf() -> None:
        """Do nothing."""

    @flow
    def forgetful() -> None:
        for thread in attempts._attempts().describing.values():
            thread.join()
        with monkeypatch.context() as patch:
            patch.setattr(recorder(), "put", full)
            note(entity("urn:x:1", "entity"), entity("urn:x:2", "entity"))
            acting_as("urn:ivcap:account:a")
        acting_as("urn:ivcap:account:a")
        assert recorder().flush()
        with monkeypatch.context() as patch:
            patch.setattr(recorder().journal.facts, "append", full)
            leaf()
            assert recorder().flush()

    forgetful()
    [run] = journal().runs.recent()
    assert run.outcome == "completed" and run.missing_facts > 3
    assert "urn:ivcap:account:a" in {fact.record.id for fact in journal().facts.of_run(run.id)}


def test_recorded_keeps_the_function_that_prefect_sees():
    """Name, signature, docstring, source and picklability are the function's own; `False` changes nothing. Above
    `@flow` or `@task`, the error says what to do.
    """

    def plain(a: int, b: str = "x") -> int:
        """Docs."""
        return a

    assert recorded(False)(plain) is plain
    wrapped = recorded(plain)
    assert inspect.signature(wrapped) == inspect.signature(plain)
    assert (wrapped.__name__, wrapped.__doc__) == ("plain", "Docs.")
    assert inspect.getsource(wrapped) == inspect.getsource(plain)
    assert prefect.task(wrapped).task_key.rpartition("-")[0] == prefect.task(plain).task_key.rpartition("-")[0]
    assert pickle.loads(pickle.dumps(recorded)) is recorded
    assert recorded(True)(plain)(3) == recorded()(plain)(3) == 3
    for wrong in (prefect.task(plain), prefect.flow(plain)):
        with pytest.raises(InputError, match="below"):
            recorded(wrong)


def test_prefect_tells_recorded_functions_of_one_name_apart(tmp_path):
    """Their tasks have different keys, and `task_input_hash` takes no result of one for the other's."""

    def added():
        @task(cache_key_fn=task_input_hash, persist_result=True)
        def compute(given: str) -> str:
            return given + " added"

        return compute

    def removed():
        @task(cache_key_fn=task_input_hash, persist_result=True)
        def compute(given: str) -> str:
            return given.removesuffix("x")

        return compute

    assert added().task_key == added().task_key != removed().task_key

    @prefect.flow
    def both(given: str) -> list[str]:
        return [added()(given), removed()(given), added()(given)]

    given = f"{tmp_path} x"
    assert both(given) == [f"{given} added", f"{tmp_path} ", f"{given} added"]


def test_a_recorded_generator_is_a_generator(recorded_graph):
    """It yields, takes, returns and is closed early as before, and each call has its outcome."""

    @recorded
    def echo(first):
        given = yield first
        while given != "end":
            given = yield given
        return "done"

    def through(values):
        running = echo("begin")
        seen = [next(running)]
        try:
            for value in values:
                seen.append(running.send(value))
        except StopIteration as stop:
            seen.append(stop.value)
        else:
            running.close()
        return seen

    assert (through(["a", "end"]), through(["a"])) == (["begin", "a", "done"], ["begin", "a"])
    calls = [node for node in recorded_graph() if node.type == "call"]
    assert [call.attributes["outcome"] for call in calls] == ["completed", "completed"]
    assert inspect.isgeneratorfunction(echo)


@recorded
def tidy(place: Path) -> None:
    place.write_text("tidy")


@recorded
def each_until_closed(place: Path, fails: bool):
    try:
        yield 1
    finally:
        place.write_text("the end")
        tidy(place.with_suffix(".tidy"))
        if fails:
            raise OSError("no room")


@recorded
async def each_later_until_closed(place: Path, fails: bool):
    try:
        yield 1
    finally:
        place.write_text("the end")
        tidy(place.with_suffix(".tidy"))
        if fails:
            raise OSError("no room")


async def one_of(items) -> None:
    async with contextlib.aclosing(items):
        await anext(items)


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
@pytest.mark.parametrize("fails", [False, True])
def test_what_a_generator_does_when_it_is_closed_early_is_part_of_its_call(recorded_graph, tmp_path, kind, fails):
    """What it writes to clean up is its file, what it calls is called by it, and an error that it raises is its end."""
    place = tmp_path / "place"
    with pytest.raises(OSError, match="no room") if fails else contextlib.nullcontext():
        if kind == "plain":
            with contextlib.closing(each_until_closed(place, fails)) as items:
                next(items)
        else:
            asyncio.run(one_of(each_later_until_closed(place, fails)))
    graph = recorded_graph()
    [call] = [each for each in graph if each.type == "call" and each.attributes["name"] != "tidy"]
    assert call.attributes["outcome"] == ("failed" if fails else "completed")
    made = [graph.nodes[link.source].attributes["path"] for link in graph.links_to(call.id, "wasGeneratedBy")]
    called = [graph.nodes[link.source].attributes["name"] for link in graph.links_to(call.id, "wasStartedBy")]
    assert (made, called) == ([str(place)], ["tidy"])
