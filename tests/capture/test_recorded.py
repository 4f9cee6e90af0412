"""`@recorded` in real Prefect flows: tasks, files, handles, retries, failures, threads and processes."""

import asyncio
import inspect
import itertools
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple
from urllib.parse import ParseResult, urlparse

import pytest
from prefect import flow, task
from prefect.futures import wait
from prefect.states import Failed
from prefect.task_runners import ProcessPoolTaskRunner
from prefect.tasks import task_input_hash
from pydantic import BaseModel, SecretStr

from ivcap_flows.capture import acting_as, attempts, context, current_attempt, journal, note, recorded, recorder
from ivcap_flows.capture.files import urn_at
from ivcap_flows.errors import InputError, JournalError
from ivcap_flows.handles import Artifact, LocalFile, Order, Products
from ivcap_flows.identity import digest, file_urn, flows_urn
from ivcap_flows.provenance import Graph, entity
from ivcap_flows.secrets import HIDDEN

pytestmark = pytest.mark.usefixtures("prefect_api")

EMBEDDED = "urn:ivcap-flows:embedded:1"
SERIES = Artifact(urn="urn:ivcap:artifact:series", platform=EMBEDDED, name="series")
PRODUCT = Artifact(urn="urn:ivcap:artifact:product", platform=EMBEDDED, name="p.csv")


def of(text: str) -> str:
    return file_urn(digest(text.encode()))


def ends(graph: Graph, name: str) -> set[tuple[str, str]]:
    return {(link.source, link.target) for link in graph.relations.values() if link.type == name}


def the(graph: Graph, kind: str, name: str | None = None):
    [found] = [n for n in graph.nodes.values() if n.type == kind and name in (None, n.attributes.get("name"))]
    return found


def test_files_in_arguments_are_used_and_new_ones_generated(tmp_path, recorded_graph):
    """A path that is there is used with its sha256, one that appears is generated, also from a relative text."""
    (tmp_path / "in.txt").write_text("in")

    @task
    @recorded
    def copy(source: Path, target: str) -> None:
        Path(target).write_text(source.read_text() + " out")

    @flow
    @recorded
    def files() -> None:
        copy(tmp_path / "in.txt", str(tmp_path / "out.txt"))

    files()
    graph = recorded_graph()
    run = the(graph, "task-run", "copy")
    source, made = urn_at(tmp_path / "in.txt"), urn_at(tmp_path / "out.txt")
    assert (run.id, source) in ends(graph, "used")
    assert ends(graph, "wasGeneratedBy") == {(made, run.id)}
    assert source in graph.lineage(made)
    assert run.time is not None
    assert run.ended >= run.time


def test_a_file_changed_in_place_has_two_versions(tmp_path, recorded_graph):
    """The version before is used, the one after is generated and derived from it; a mere reader generates nothing."""
    path = tmp_path / "data.txt"
    path.write_text("one")
    one = urn_at(path)

    @task
    @recorded
    def change(path: Path) -> Path:
        path.write_text(path.read_text().replace("one", "two"))
        return path

    @task
    @recorded
    def read(path: Path) -> str:
        return path.read_text()

    @flow
    @recorded
    def versions() -> None:
        read(change(path))

    versions()
    graph = recorded_graph()
    change_run, read_run = the(graph, "task-run", "change"), the(graph, "task-run", "read")
    two = urn_at(path)
    assert ends(graph, "used") >= {(change_run.id, one), (read_run.id, two)}
    assert ends(graph, "wasGeneratedBy") == {(two, change_run.id)}
    assert ends(graph, "wasDerivedFrom") == {(two, one)}


def test_a_folder_is_known_by_its_manifest(tmp_path, recorded_graph):
    """What a task adds to a folder is generated, one by one; who only lists the folder has used it as it was."""
    (tmp_path / "old.txt").write_text("old")

    @task
    @recorded
    def add(folder: Path) -> None:
        (folder / "new.txt").write_text("new")

    @task
    @recorded
    def read(folder: Path) -> int:
        return len(list(folder.iterdir()))

    @flow
    @recorded
    def folders(work: int) -> None:
        add(tmp_path / "x")
        read(tmp_path / "x")

    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old.txt").write_text("old")
    folders(1)
    graph = recorded_graph()
    add_run, read_run = the(graph, "task-run", "add"), the(graph, "task-run", "read")
    old, new = (urn_at(tmp_path / "x" / name) for name in ("old.txt", "new.txt"))
    assert ends(graph, "wasGeneratedBy") == {(new, add_run.id)}
    folder = the(graph, "directory").id
    assert (read_run.id, folder) in ends(graph, "used")
    assert ends(graph, "hadMember") == {(folder, old), (folder, new)}


def test_a_found_file_is_not_generated_and_a_written_one_is(tmp_path, recorded_graph):
    """A returned path that is older than the call was found by it; a copy that keeps its time was written by it."""
    import shutil
    import time

    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "source.txt").write_text("kept")
    time.sleep(0.1)

    @task
    @recorded
    def find() -> Path:
        return tmp_path / "old.txt"

    @task
    @recorded
    def fetch() -> list[Path]:
        return [Path(shutil.copy2(tmp_path / "source.txt", tmp_path / "copy.txt"))]

    @flow
    @recorded
    def found() -> None:
        find()
        fetch()

    found()
    graph = recorded_graph()
    assert ends(graph, "used") == set()
    assert ends(graph, "wasGeneratedBy") == {(urn_at(tmp_path / "copy.txt"), the(graph, "task-run", "fetch").id)}


@dataclass
class Box:
    order: Order
    note: str = "x"


class Form(BaseModel):
    boxes: list[Box]
    token: SecretStr


def an_order(**changes) -> Order:
    now = datetime.now(timezone.utc)
    facts = {"urn": "urn:ivcap:order:1", "platform": EMBEDDED, "service": "urn:ivcap:service:s", "requested_at": now}
    return Order(**{**facts, "parameters": {"series": SERIES.urn}, **changes})


def test_handles_are_found_in_lists_dataclasses_and_models(recorded_graph):
    """An order is started by the task that returns it, informs the one that takes it, and leads to its products."""

    @task
    @recorded
    def place(series: Artifact) -> Form:
        return Form(boxes=[Box(an_order())], token=SecretStr("s3cret-value"))

    @task
    @recorded
    def finish(form: Form) -> Order:
        return an_order(status="succeeded", products=Products((PRODUCT,)), finished_at=datetime.now(timezone.utc))

    @task
    @recorded
    def pick(order: Order) -> Artifact:
        return order.products["p.csv"]

    @flow
    @recorded
    def handles() -> Artifact:
        return pick(finish(place(SERIES)))

    handles()
    graph = recorded_graph()
    place_run, finish_run = the(graph, "task-run", "place"), the(graph, "task-run", "finish")
    order = the(graph, "order")
    assert (place_run.id, SERIES.urn) in ends(graph, "used")
    assert (order.id, place_run.id) in ends(graph, "wasStartedBy")
    assert (finish_run.id, order.id) in ends(graph, "wasInformedBy")
    assert ends(graph, "wasGeneratedBy") == {(PRODUCT.urn, order.id)}
    assert order.attributes["status"] == "succeeded"
    assert SERIES.urn in graph.lineage(PRODUCT.urn)
    assert "s3cret" not in str([record.attributes for record in graph])


def test_what_existed_before_is_used_not_made(recorded_graph):
    """An order or artifact that its platform dates before the call was found by it."""
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)

    @task
    @recorded
    def attach() -> tuple[Order, Artifact]:
        return an_order(requested_at=yesterday), SERIES.model_copy(update={"created_at": yesterday})

    @flow
    @recorded
    def attaching() -> None:
        attach()

    attaching()
    graph = recorded_graph()
    run = the(graph, "task-run", "attach").id
    assert (run, "urn:ivcap:order:1") in ends(graph, "wasInformedBy")
    assert (run, SERIES.urn) in ends(graph, "used")
    assert ends(graph, "wasGeneratedBy") == set()


def test_a_download_of_known_content_leads_back_to_the_artifact(tmp_path, recorded_graph):
    """The file has the artifact's sha256, so it is no product of the download and lineage joins the two."""
    known = SERIES.model_copy(update={"sha256": digest(b"bytes")})

    @task
    @recorded
    def download(artifact: Artifact) -> LocalFile:
        return LocalFile(path=str(tmp_path / "series.csv"), sha256=digest(b"bytes"), size=5)

    @flow
    @recorded
    def downloading() -> LocalFile:
        return download(known)

    downloading()
    graph = recorded_graph()
    assert ends(graph, "wasGeneratedBy") == set()
    assert SERIES.urn in graph.lineage(of("bytes"))


def test_each_try_of_a_task_is_an_activity_with_its_outcome(recorded_graph):
    """A retried task has a failed try with its cause and a completed one that knows of it."""
    tries = []

    @task(retries=1, retry_delay_seconds=0)
    @recorded
    def flaky() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("no luck at https://user:pass@host/x")
        return "done"

    @flow
    @recorded
    def trying() -> None:
        flaky()

    trying()
    graph = recorded_graph()
    first, second = sorted((n for n in graph.nodes.values() if n.type == "task-run"), key=lambda n: n.time)
    assert (first.attributes["outcome"], second.attributes["outcome"]) == ("failed", "completed")
    assert first.attributes["cause"] == "ValueError: no luck at https://**********@host/x"
    assert (second.id, first.id) in ends(graph, "wasInformedBy")


@pytest.mark.parametrize("kind", ["raises", "returns", "interrupts"])
def test_a_failed_flow_has_its_outcome_and_cause(kind, recorded_graph):
    """An error, a returned Failed state and an interrupt end the attempt and its run, in the journal and the graph."""

    @flow
    @recorded
    def failing():
        if kind == "returns":
            return Failed(message="boom")
        raise (KeyboardInterrupt if kind == "interrupts" else RuntimeError)("boom")

    with pytest.raises((KeyboardInterrupt, RuntimeError, Exception)):
        failing()
    graph, [run] = recorded_graph(), journal().runs.recent()
    [attempt] = journal().runs.attempts(run.id)
    expected = "crashed" if kind == "interrupts" else "failed"
    assert (run.outcome, attempt.outcome) == (expected, expected)
    assert attempt.cause.endswith("boom")
    assert the(graph, "attempt").attributes["outcome"] == expected
    assert the(graph, "attempt").ended is not None
    assert the(graph, "flow-run").attributes["outcome"] == expected


@pytest.mark.parametrize("kind", ["task", "task in a thread", "asynchronous task", "observed task", "flow"])
def test_what_exceeds_its_timeout_has_failed(kind, recorded_graph):
    """Prefect ends it like a cancelled call, and reports it as failed. So does the record."""
    timeout = 0.5
    decorate = (lambda function: function) if kind == "observed task" else recorded

    def work() -> None:
        for _ in range(200):
            time.sleep(0.02)

    async def work_there() -> None:
        await asyncio.sleep(4)

    function = decorate(work_there if kind == "asynchronous task" else work)
    slow = task(function, timeout_seconds=None if kind == "flow" else timeout)

    def body() -> None:
        if kind == "flow":
            work()
        elif kind == "task in a thread":
            slow.submit().result()
        elif kind == "asynchronous task":
            asyncio.run(slow())
        else:
            slow()

    with pytest.raises(TimeoutError):
        flow(recorded(body), timeout_seconds=timeout if kind == "flow" else None)()
    node = the(recorded_graph(), "attempt" if kind == "flow" else "task-run")
    assert (node.attributes["outcome"], node.attributes["cause"]) == ("failed", "Exceeded its timeout of 0.5 s")
    assert journal().runs.recent()[0].outcome == "failed"


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        (lambda future: future(True), "failed"),
        (lambda future: [future(False), future(True)], "failed"),
        (lambda future: (future(False), future(False)), "completed"),
        (lambda future: [future(True), 1], "completed"),
        (lambda future: [Failed(message="no"), 1], "completed"),
    ],
    ids=["one", "list", "all-completed", "list-with-a-value", "list-with-a-state-and-a-value"],
)
def test_the_futures_that_a_flow_returns_decide_its_outcome(returned, outcome, recorded_graph):
    """As they do in Prefect: the attempt ends after their tasks, and as the flow run does."""

    @task
    @recorded
    def slow(fail: bool) -> None:
        time.sleep(0.2)
        if fail:
            raise ValueError("slow")

    @flow
    @recorded
    def outer():
        return returned(slow.submit)

    state = outer(return_state=True)
    graph, [run] = recorded_graph(), journal().runs.recent()
    assert (run.outcome, state.type.value) == (outcome, outcome.upper())
    attempt = the(graph, "attempt")
    assert attempt.attributes["outcome"] == outcome
    if outcome == "failed":
        assert attempt.attributes["cause"].endswith("ValueError: slow")
    assert all(node.ended <= attempt.ended for node in graph if node.type == "task-run")


def test_a_flow_retry_is_a_second_attempt_of_one_run(recorded_graph):
    """Prefect's retry of a flow continues the logical run."""
    tries = []

    @flow(retries=1)
    @recorded
    def again() -> None:
        tries.append(current_attempt().attempt.number)
        if len(tries) == 1:
            raise ValueError("first")

    again()
    [run] = journal().runs.recent()
    assert tries == [1, 2]
    assert [row.outcome for row in journal().runs.attempts(run.id)] == ["failed", "completed"]
    assert run.outcome == "completed"
    assert the(recorded_graph(), "flow-run").attributes["outcome"] == "completed"


def test_submit_map_threads_and_subflows_belong_to_one_run(recorded_graph):
    """Tasks sent to threads, raw threads, and a subflow with its own tasks are parts of the root's run."""
    seen = set()

    @task
    @recorded
    def leaf(i: int) -> int:
        seen.add(current_attempt().run.id)
        return i

    @flow
    @recorded
    def inner() -> None:
        leaf(4)

    @flow
    @recorded
    def outer() -> None:
        wait([leaf.submit(1), *leaf.map([2, 3])])
        inner()
        thread = threading.Thread(target=lambda: seen.add(current_attempt().run.id))
        thread.start()
        thread.join()

    outer()
    graph, [run] = recorded_graph(), journal().runs.recent()
    assert seen == {run.id}
    assert len([n for n in graph.nodes.values() if n.type == "task-run"]) == 4
    root, sub = journal().runs.attempts(run.id)
    assert (root.leads, sub.leads) == (True, False)
    urn = flows_urn("attempt", sub.id)
    assert (urn, flows_urn("attempt", root.id)) in ends(graph, "wasStartedBy")
    assert [s for s, t in ends(graph, "wasStartedBy") if t == urn] == [
        n.id for n in graph.nodes.values() if n.attributes.get("parameters") == {"i": 4}
    ]


def test_tasks_in_other_processes_belong_to_the_run(recorded_graph):
    """A task of a process pool finds its attempt in the journal and records into it."""

    @task
    @recorded
    def pid(i: int) -> int:
        return os.getpid()

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    @recorded
    def pooled() -> list[int]:
        return [pid.submit(1).result()]

    assert pooled() != [os.getpid()]
    graph = recorded_graph()
    run = the(graph, "task-run", "pid")
    assert (run.id, the(graph, "attempt").id) in ends(graph, "wasStartedBy")
    assert len(journal().runs.recent()) == 1


async def test_asynchronous_flows_and_tasks_are_recorded_side_by_side(recorded_graph):
    """Tasks awaited together have each their own record, and a task inside a task its parent."""

    @task
    @recorded
    async def inner(i: int) -> int:
        await asyncio.sleep(0.01)
        return i

    @task
    @recorded
    async def outer(i: int) -> int:
        return await inner(i)

    @flow
    @recorded
    async def together() -> int:
        return sum(await asyncio.gather(outer(1), outer(2)))

    assert await together() == 3
    graph = recorded_graph()
    runs = {(n.attributes["name"], n.attributes["parameters"]["i"]): n.id for n in graph if n.type == "task-run"}
    assert len(runs) == 4
    assert {(runs["inner", i], runs["outer", i]) for i in (1, 2)} <= ends(graph, "wasStartedBy")


@pytest.mark.parametrize("fails", [False, True], ids=["completed", "failed"])
async def test_the_end_of_an_asynchronous_flow_leaves_its_loop_to_others(fails, recorded_graph, monkeypatch):
    """However long the journal takes; when the flow has returned, its attempt is closed."""
    close = context.close_attempt
    monkeypatch.setattr(context, "close_attempt", lambda *told: (time.sleep(1), close(*told)))
    ticks = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    @flow
    @recorded
    async def ends() -> None:
        if fails:
            raise ValueError("no")

    ticking = asyncio.create_task(tick())
    await ends(return_state=True)
    ticking.cancel()
    assert [run.outcome for run in journal().runs.recent()] == ["failed" if fails else "completed"]
    assert recorded_graph()
    assert max(after - before for before, after in itertools.pairwise(ticks)) < 0.8


def test_a_flow_without_recorded_is_closed_by_its_end(recorded_graph):
    """A recorded task opens the run of a plain flow, and Prefect's final state closes it."""

    @task
    @recorded
    def leaf(fail: bool) -> None:
        if fail:
            raise ValueError("leaf")

    @flow
    def plain(fail: bool) -> None:
        leaf(fail)

    plain(False)
    with pytest.raises(ValueError, match="leaf"):
        plain(True)
    assert [run.outcome for run in journal().runs.recent()] == ["failed", "completed"]
    assert recorded_graph(everything=True)


def test_a_flow_without_recorded_is_given_one_hook_of_a_kind():
    """Also one that is made of a flow that has run, and so has its hooks."""

    @task
    @recorded
    def leaf() -> None:
        """Do nothing."""

    @flow
    def plain() -> None:
        leaf()

    for name in ("a", "b", "c"):
        plain()
        plain = plain.with_options(name=name)
    plain()
    hooks = (plain.on_completion_hooks, plain.on_failure_hooks, plain.on_crashed_hooks, plain.on_cancellation_hooks)
    assert [len(each) for each in hooks] == [1, 1, 1, 1]
    assert [run.outcome for run in journal().runs.recent()] == ["completed"] * 4


def test_each_try_of_a_flow_without_recorded_is_an_attempt(recorded_graph):
    """Prefect repeats a plain flow in its process and calls no hook in between; the failed try is on record."""
    seen = []

    @task
    @recorded
    def leaf() -> str:
        seen.append(current_attempt().attempt)
        return "x"

    @flow(retries=1)
    def plain() -> None:
        leaf()
        leaf()
        if len(seen) < 4:
            raise ValueError("once")

    plain()
    assert [each.number for each in seen] == [1, 1, 2, 2]
    [run] = journal().runs.recent()
    assert [(each.number, each.outcome) for each in journal().runs.attempts(run.id)] == [
        (1, "failed"),
        (2, "completed"),
    ]
    graph = recorded_graph(everything=True)
    of = dict(ends(graph, "wasStartedBy"))
    started = [of[node.id] for node in graph if node.type == "task-run"]
    assert sorted(started) == sorted(flows_urn("attempt", each.id) for each in seen)


def test_helpers_and_notes_are_parts_of_their_task(recorded_graph):
    """A recorded plain function in a task is a call in it; notes and the account join the same run."""

    @recorded
    def helper(x: int) -> int:
        note(entity("urn:example:thing", "entity"))
        acting_as("urn:ivcap:account:a", "Ada")
        acting_as("urn:ivcap:account:a", "Ada")
        return x

    @task
    @recorded
    def work(x: int) -> int:
        return helper(x)

    @flow
    @recorded
    def helping() -> None:
        work(1)

    helping()
    graph = recorded_graph()
    assert (the(graph, "call", "helper").id, the(graph, "task-run", "work").id) in ends(graph, "wasStartedBy")
    assert "urn:example:thing" in graph
    assert (the(graph, "attempt").id, "urn:ivcap:account:a") in ends(graph, "wasAssociatedWith")


def test_the_parameters_are_kept_and_the_secrets_are_not(recorded_graph, monkeypatch):
    """Secrets by type, name, known value and shape are hidden everywhere; the rest is as given."""
    jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
    monkeypatch.setenv("IVCAP_JWT", "value-of-the-environment")

    @task
    @recorded
    def use(text: str, nested: dict[str, object]) -> str:
        raise ValueError(f"{text} value-of-the-environment")

    @flow
    @recorded
    def secretive(year: int, api_key: str, secret: SecretStr, token_count: int = 3) -> None:
        use(f"Bearer {jwt}", {"password": "hunter2hunter2", "deep": [jwt, "value-of-the-environment"]})

    with pytest.raises(ValueError):
        secretive(1981, "key-1234567", SecretStr("typed-secret"))
    graph = recorded_graph()
    values = the(graph, "parameters").attributes["values"]
    assert values == {"year": 1981, "api_key": "*" * 10, "secret": "*" * 10, "token_count": 3}
    [run] = journal().runs.recent()
    said = str([record.attributes for record in graph]) + str(run) + str(journal().runs.attempts(run.id))
    for secret in (jwt, "eyJ", "hunter2", "value-of-the-environment", "typed-secret", "key-1234567"):
        assert secret not in said


class Login(NamedTuple):
    """A parameter whose fields have names."""

    user: str
    password: str


def test_secrets_in_named_tuples_and_parsed_addresses_are_not_kept(recorded_graph):
    """A field of a named tuple is recorded by its name, and a parsed address as its text."""

    @flow
    @recorded
    def secretive(login: Login, address: ParseResult) -> None:
        pass

    secretive(Login("someone", "first-passphrase"), urlparse("https://someone:second-passphrase@data.example/x"))
    [node] = [each for each in recorded_graph().nodes.values() if each.type == "parameters"]
    assert node.attributes["values"]["login"] == {"user": "someone", "password": HIDDEN}
    assert node.attributes["values"]["address"].endswith("@data.example/x")
    [run] = journal().runs.recent()
    assert "passphrase" not in str(node.attributes) + str(run) + str(journal().runs.attempts(run.id))


def test_huge_and_lazy_values_are_named_not_read(recorded_graph):
    """What is no plain data is recorded by its type and neither printed, iterated nor computed."""

    class Lazy:
        def __repr__(self) -> str:
            raise AssertionError("printed")

        def __iter__(self):
            raise AssertionError("computed")

        def __getattr__(self, name: str):
            raise AssertionError(f"looked at {name}")

    loop: list[object] = []
    loop.append(loop)

    @recorded
    def take(lazy: object, data: bytes, many: list[int], loop: list[object], odd: float) -> Lazy:
        return Lazy()

    take(Lazy(), b"1234", list(range(100_000)), loop, float("nan"))
    shown = the(recorded_graph(), "call", "take").attributes["parameters"]
    assert shown["lazy"]["type"].endswith("Lazy")
    assert shown["data"] == {"type": "bytes", "unhashed": "4 bytes in memory"}
    assert len(shown["many"]) == 201
    assert shown["odd"] == "nan"


def test_a_journal_that_cannot_be_opened_costs_the_record_not_the_flow(monkeypatch, tmp_path, caplog):
    """The flow runs to its end with its result; one warning names the journal."""
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path}")

    @task
    @recorded
    def leaf(i: int) -> int:
        return i

    @flow
    @recorded
    def unlucky() -> int:
        return leaf(1) + leaf(2)

    with caplog.at_level(logging.WARNING, "ivcap_flows.capture"):
        assert unlucky() == 3
    [message] = [r.getMessage() for r in caplog.records if "ivcap_flows/capture" in r.pathname]
    assert str(tmp_path) in message


def test_another_journal_is_not_left_alone(monkeypatch, tmp_path):
    """One that cannot be asked costs no other its record."""

    @flow
    @recorded
    def twice() -> None:
        """Do nothing."""

    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path}")
    twice()
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path / 'journal.sqlite'}")
    twice()
    assert [run.flow_name for run in journal().runs.recent()] == ["twice"]


def test_calls_while_the_journal_rests_are_counted(recorded_graph, monkeypatch):
    """A subflow whose attempt cannot be opened, and what runs unrecorded for a while after it, count as missing."""
    runs = []

    @recorded
    def helper() -> None:
        """Do nothing."""

    @flow
    @recorded
    def inner() -> None:
        """Do nothing."""

    @flow
    @recorded
    def outer() -> None:
        def locked(*_: object, **__: object) -> None:
            raise JournalError("database is locked")

        runs.append(current_attempt().run.id)
        with monkeypatch.context() as patch:
            patch.setattr(type(journal().runs), "open_attempt", locked)
            inner()
        helper()
        helper()

    outer()
    assert journal().runs.get(runs[0]).missing_facts == 3


def test_what_came_before_the_run_was_on_record_is_counted(recorded_graph, monkeypatch):
    """A call that found no journal counts as missing from the run that a later call of the same flow run opens."""

    @task
    @recorded
    def leaf() -> None:
        """Do nothing."""

    @flow
    def patient() -> None:
        def locked(*_: object, **__: object) -> None:
            raise JournalError("database is locked")

        with monkeypatch.context() as patch:
            patch.setattr(type(journal().runs), "open_attempt", locked)
            leaf()
            note(entity("urn:x:1", "entity"))
        monkeypatch.setattr("ivcap_flows.capture.recorder_registry._resting", ("", 0.0))
        leaf()

    patient()
    [run] = journal().runs.recent()
    assert (run.outcome, run.missing_facts) == ("completed", 2)


def test_notes_that_cannot_be_made_are_counted(monkeypatch):
    """What a note or an account would have stated is missing from the run."""

    def full(statement: object) -> None:
        raise MemoryError

    @flow
    @recorded
    def forgetful() -> None:
        for thread in attempts._attempts().describing.values():
            thread.join()
        with monkeypatch.context() as patch:
            patch.setattr(recorder(), "put", full)
            note(entity("urn:x:1", "entity"), entity("urn:x:2", "entity"))
            acting_as("urn:ivcap:account:a")
        acting_as("urn:ivcap:account:a")

    forgetful()
    [run] = journal().runs.recent()
    assert run.missing_facts == 3
    assert "urn:ivcap:account:a" in {fact.record.id for fact in journal().facts.of_run(run.id)}


def test_facts_that_cannot_be_written_are_counted(monkeypatch):
    """A journal that refuses facts leaves the flow alone and the run marked with the number missing."""

    @task
    @recorded
    def leaf() -> int:
        return 1

    @flow
    @recorded
    def lossy() -> int:
        writer = recorder()
        writer.flush()
        monkeypatch.setattr(writer.journal.facts, "append", lambda facts: (_ for _ in ()).throw(OSError("disk full")))
        return leaf()

    assert lossy() == 1
    [run] = recorder().journal.runs.recent()
    assert run.outcome == "completed"
    assert run.missing_facts > 0


def test_recorded_keeps_the_function_that_prefect_sees():
    """Name, signature, docstring, source and picklability are the function's own; `False` changes nothing."""

    def plain(a: int, b: str = "x") -> int:
        """Docs."""
        return a

    assert recorded(False)(plain) is plain
    wrapped = recorded(plain)
    assert inspect.signature(wrapped) == inspect.signature(plain)
    assert (wrapped.__name__, wrapped.__doc__) == ("plain", "Docs.")
    assert inspect.getsource(wrapped) == inspect.getsource(plain)
    assert task(wrapped).task_key.rpartition("-")[0] == task(plain).task_key.rpartition("-")[0]
    assert pickle.loads(pickle.dumps(recorded)) is recorded
    assert recorded(True)(plain)(3) == recorded()(plain)(3) == 3


def test_prefect_tells_recorded_functions_of_one_name_apart(tmp_path):
    """Their tasks have different keys, and `task_input_hash` takes no result of one for the other's."""

    def added():
        @task(cache_key_fn=task_input_hash, persist_result=True)
        @recorded
        def compute(given: str) -> str:
            return given + " added"

        return compute

    def removed():
        @task(cache_key_fn=task_input_hash, persist_result=True)
        @recorded
        def compute(given: str) -> str:
            return given.removesuffix("x")

        return compute

    assert added().task_key != removed().task_key
    assert added().task_key == added().task_key

    @flow
    def both(given: str) -> list[str]:
        return [added()(given), removed()(given), added()(given)]

    given = f"{tmp_path} x"
    assert both(given) == [f"{given} added", f"{tmp_path} ", f"{given} added"]


def test_recorded_in_the_wrong_place_is_refused():
    """Above `@flow` or `@task`, the error says what to do."""
    for wrong in (task(lambda: 1), flow(lambda: 1, name="f")):
        with pytest.raises(InputError, match="below"):
            recorded(wrong)


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

    @flow
    @recorded
    def generating():
        return through(["a", "end"]), through(["a"])

    ended, closed = generating()
    assert (ended, closed) == (["begin", "a", "done"], ["begin", "a"])
    calls = [node for node in recorded_graph() if node.type == "call"]
    assert [call.attributes["outcome"] for call in calls] == ["completed", "completed"]
    assert inspect.isgeneratorfunction(echo)


def test_a_script_without_a_flow_is_a_run_of_its_process(tmp_path, recorded_graph):
    """Outside of any flow the calls of one process make one run, closed at its exit with its outcome."""
    script = tmp_path / "plain.py"
    script.write_text(
        "from ivcap_flows.capture import recorded\n"
        "@recorded\ndef f(i):\n    return i\n"
        "f(1)\nf(2)\nraise SystemError('late')\n"
    )
    subprocess.run([sys.executable, str(script)], env={**os.environ}, capture_output=True, check=False)
    [run] = journal().runs.recent()
    assert (run.flow_name, run.outcome) == ("plain.py", "failed")
    graph = recorded_graph()
    assert [n.attributes["parameters"] for n in graph if n.type == "call"] == [{"i": 1}, {"i": 2}]
    assert "late" in the(graph, "attempt").attributes["cause"]
