"""Tables and files that pass through task runners of other processes: a process pool, and Dask."""

import contextlib
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner
from sqlalchemy.engine import Connection

from ivcap_flows.capture import annotate, context, journal, prefect_context, recorded, use_journal
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.contents import read
from ivcap_flows.capture.files import urn_at
from ivcap_flows.errors import ConfigurationError, JournalError
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Journal, RunIdentity
from ivcap_flows.journal.process_locks import ProcessLocks
from ivcap_flows.provenance import Graph
from ivcap_flows.tasks import place_order

pytestmark = [pytest.mark.canary, pytest.mark.usefixtures("prefect_api")]


def ends(graph: Graph, name: str) -> set[tuple[str, str]]:
    return {(link.source, link.target) for link in graph.relations.values() if link.type == name}


def squares(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"n": [number**2 % 101 for number in range(rows)]})


def dask(tmp_path: Path) -> TaskRunner[Any]:
    from prefect_dask import DaskTaskRunner

    return DaskTaskRunner(
        cluster_kwargs={
            "n_workers": 1,
            "threads_per_worker": 1,
            "processes": True,
            "host": "127.0.0.1",
            "dashboard_address": None,
            "worker_dashboard_address": None,
            "local_directory": str(tmp_path / "dask"),
        }
    )


@pytest.mark.long
@pytest.mark.parametrize("runner", [lambda _: ProcessPoolTaskRunner(max_workers=1), dask], ids=["processes", "dask"])
def test_values_keep_their_names_through_other_processes(
    runner: Callable[[Path], TaskRunner[Any]], tmp_path: Path, recorded_graph: Callable[..., Graph]
) -> None:
    """Tasks of one run in a worker's process: what one made another used, over a pickle, with outcomes and causes."""

    @task
    @recorded
    def make(rows: int) -> pd.DataFrame:
        annotate(pid=os.getpid())
        return squares(rows)

    @task
    @recorded
    def save(frame: pd.DataFrame, target: Path) -> Path:
        frame.to_csv(target)
        return target

    @task
    @recorded
    def fail(path: Path) -> None:
        raise ValueError("not today")

    @flow
    @recorded
    def pooled(target: Path) -> None:
        frame = make.submit(100)
        path = save.submit(frame, target)
        fail.submit(path).wait()

    pooled.with_options(task_runner=runner(tmp_path))(tmp_path / "n.csv")
    graph = recorded_graph()
    [run] = journal().runs.recent()
    assert run.missing_facts == 0
    tasks = {node.attributes["name"]: node for node in graph.nodes.values() if node.type == "task-run"}
    assert {name: node.attributes["outcome"] for name, node in tasks.items()} == {
        "make": "completed",
        "save": "completed",
        "fail": "failed",
    }
    assert tasks["fail"].attributes["cause"] == "ValueError: not today"
    elsewhere = tasks["make"].attributes["annotation.pid"]
    assert elsewhere != os.getpid()
    assert tasks["make"].attributes["process"] == f"{socket.gethostname()}:{elsewhere}"
    frame = flows_urn("frame", f"sha256:{read(squares(100))[2]().sha256}")
    file = urn_at(tmp_path / "n.csv")
    assert ends(graph, "wasGeneratedBy") == {(frame, tasks["make"].id), (file, tasks["save"].id)}
    assert {(tasks["save"].id, frame), (tasks["fail"].id, file)} <= ends(graph, "used")
    [attempt] = [node.id for node in graph.nodes.values() if node.type == "attempt"]
    assert {(node.id, attempt) for node in tasks.values()} <= ends(graph, "wasStartedBy")


@pytest.mark.long
def test_a_plain_task_may_use_the_package_in_another_process(embedded_platform: object) -> None:
    """What it does belongs to the flow run, whose process opens the attempt and closes it."""
    from ivcap_flows.tasks import upload_artifact

    @task
    def plain(number: int) -> str:
        return upload_artifact(f"{number}".encode(), name="number").urn

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def mapped() -> list[str]:
        return plain.map(range(2)).result()

    made = mapped()
    [run] = journal().runs.recent()
    assert [each.outcome for each in journal().runs.attempts(run.id)] == ["completed"]
    assert {row.urn for row in journal().intents.where(run_id=run.id)} == set(made)


def test_a_worker_finds_the_attempt_though_its_connection_breaks(postgresql_url: str) -> None:
    """The server ends it while the question is under way; a task run is not left out of the record for that."""
    flow_run = str(uuid.uuid4())
    with Journal.open(postgresql_url) as shared, use_journal(shared):
        opened = shared.runs.open_attempt(RunIdentity("pooled", "pooled.py:pooled", {}, flow_run, flow_run))
        broken: list[None] = []

        def breaks(connection: Connection, *_: object) -> None:
            if not broken:
                broken.append(None)
                connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

        sa.event.listen(shared._store.engine, "before_cursor_execute", breaks)
        sent = SimpleNamespace(flow_run=SimpleNamespace(id=flow_run), detached=True)
        assert context._attempt_of_context(sent).attempt.id == opened.attempt.id
        assert broken


def test_a_worker_with_a_journal_of_its_own_is_refused(tmp_path: Path) -> None:
    """Else its orders would be unknown to the flow, and to whichever worker repeats the task."""
    sent = SimpleNamespace(flow_run=SimpleNamespace(id=uuid.uuid4()), detached=True)
    with (
        Journal.open(f"sqlite:///{tmp_path / 'own.sqlite'}") as own,
        use_journal(own),
        pytest.raises(ConfigurationError, match="own.sqlite.*IVCAP_FLOWS_JOURNAL"),
    ):
        context._attempt_of_context(sent)


def test_a_plain_task_in_a_worker_with_a_journal_of_its_own_is_not_lost_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its flow will never open an attempt there. One warning for each flow run is enough on a shared cluster."""
    sent = SimpleNamespace(flow_run=SimpleNamespace(id=uuid.uuid4()), detached=True)
    for module in (context, prefect_context):
        monkeypatch.setattr(module, "flow_context", lambda: sent)
    call = Call("urn:x:1", "task-run", "plain", "", "", None)
    with (
        Journal.open(f"sqlite:///{tmp_path / 'own.sqlite'}") as own,
        use_journal(own),
    ):
        with pytest.raises(ConfigurationError, match="own.sqlite.*IVCAP_FLOWS_JOURNAL"):
            context.put_in_flow(call)
        context.put_in_flow(call)


def test_what_a_worker_missed_is_told_as_soon_as_it_reaches_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow_run = str(uuid.uuid4())
    sent = SimpleNamespace(flow_run=SimpleNamespace(id=flow_run), detached=True)
    for module in (context, prefect_context):
        monkeypatch.setattr(module, "flow_context", lambda: sent)
    call = Call("urn:x:1", "task-run", "plain", "", "", None)
    with Journal.open(f"sqlite:///{tmp_path / 'journal.sqlite'}") as shared, use_journal(shared):
        opened = shared.runs.open_attempt(RunIdentity("pooled", "pooled.py:pooled", {}, flow_run, flow_run))
        with monkeypatch.context() as broken:
            broken.setattr(shared.runs, "attempt_of", unreachable)
            with pytest.raises(JournalError):
                context.put_in_flow(call)
            context.miss()
        context.put_in_flow(call)
        context.recorder().flush()
        assert shared.runs.get(opened.run.id).missing_facts == 1


def unreachable(_: str) -> None:
    raise JournalError("The journal cannot be reached.", url="x")


@pytest.mark.parametrize("recording", [recorded, recorded(False)], ids=["recorded", "plain"])
def test_a_users_task_is_sent_though_its_flow_cannot_be_recorded(
    recording: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may need no journal where it runs. A task of the package needs one, so it is not sent."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path / 'file' / 'journal.sqlite'}")

    @task
    @recording
    def double(number: int) -> int:
        return 2 * number

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def sends() -> int:
        with pytest.raises(JournalError):
            place_order.submit("echo", {})
        return double.submit(4).result()

    assert sends() == 8
    assert "double is sent to another process without a record of its flow" in caplog.text


@pytest.mark.long
def test_a_flow_without_recorded_has_one_attempt_however_many_processes_run_its_tasks(tmp_path: Path) -> None:
    """The flow's own process opens it, before the first task leaves, and closes it."""

    @task
    @recorded
    def slow(number: int) -> int:
        time.sleep(1)
        return number

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
    def mapped() -> list[int]:
        return slow.map(range(4)).result()

    assert mapped() == [0, 1, 2, 3]
    [run] = journal().runs.recent()
    [attempt] = journal().runs.attempts(run.id)
    assert (run.outcome, attempt.outcome, attempt.number) == ("completed", "completed", 1)
    assert attempt.process.pid == os.getpid()


@pytest.mark.parametrize("life", ["unknown", "alive"], ids=["on another machine", "on this machine"])
def test_a_flow_run_again_has_an_attempt_of_its_own(life: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the machine that has just died seems to live, or the process of a worker that was killed does."""
    monkeypatch.setattr(ProcessLocks, "life", lambda self, process: life)

    @task
    @recorded
    def work() -> int:
        return 1

    @flow
    def again() -> None:
        flow_run = prefect_context.flow_run_id()
        first = journal().runs.open_attempt(RunIdentity("again", "again.py:again", {}, flow_run, flow_run)).attempt
        with contextlib.closing(sqlite3.connect(journal().url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("INSERT INTO processes SELECT 'theirs', host, pid, heartbeat_at FROM processes")
            connection.execute("UPDATE attempts SET process_id = 'theirs' WHERE id = ?", (first.id,))
        assert journal().runs.alive(journal().runs.attempt(first.id))
        work()

    again()
    [run] = journal().runs.recent()
    attempts = journal().runs.attempts(run.id)
    assert [(each.number, each.outcome) for each in attempts] == [(1, "running"), (2, "completed")]
    assert run.outcome == "completed"


@pytest.mark.parametrize("ends", [True, False], ids=["that failed", "whose machine died"])
def test_a_worker_that_outlives_an_attempt_goes_on_under_the_next(tmp_path: Path, ends: bool) -> None:
    """As one of a cluster of the user's does, when a flow run is tried again."""
    flow_run = str(uuid.uuid4())
    identity = RunIdentity("pooled", "pooled.py:pooled", {}, flow_run, flow_run)
    sent = SimpleNamespace(flow_run=SimpleNamespace(id=flow_run), detached=True)
    with Journal.open(f"sqlite:///{tmp_path / 'journal.sqlite'}") as shared, use_journal(shared):
        first = shared.runs.open_attempt(identity).attempt
        assert context._attempt_of_context(sent).attempt.id == first.id
        if ends:
            shared.runs.close_attempt(first.id, "failed", "not today")
        second = shared.runs.open_attempt(identity).attempt
        assert context._attempt_of_context(sent).attempt.id == second.id
        assert second.number == 2
