"""Tasks that run in other processes: a process pool, Dask, workers; and whose attempt they belong to."""

import contextlib
import os
import sqlite3
import time
import uuid
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner
from sqlalchemy.engine import Connection

from ivcap_flows.capture import context, journal, prefect_context, recorded, use_journal
from ivcap_flows.capture.calls import Call
from ivcap_flows.errors import ConfigurationError, JournalError
from ivcap_flows.journal import Journal, RunIdentity
from ivcap_flows.journal.process_locks import ProcessLocks
from ivcap_flows.tasks import place_order

pytestmark = [pytest.mark.canary, pytest.mark.usefixtures("prefect_api")]

FLOW_RUN = str(uuid.uuid4())
IDENTITY = RunIdentity("pooled", "pooled.py:pooled", {}, FLOW_RUN, FLOW_RUN)
SENT = SimpleNamespace(flow_run=SimpleNamespace(id=FLOW_RUN), detached=True)
"""The context of a flow run in a worker."""


@pytest.fixture
def plain_call(monkeypatch):
    """The call of a task that is not recorded, in a worker."""
    for module in (context, prefect_context):
        monkeypatch.setattr(module, "flow_context", lambda: SENT)
    return Call("urn:x:1", "task-run", "plain", "", "", None)


@pytest.fixture
def own(tmp_path):
    """A journal in which the flow run is not known."""
    with Journal.open(f"sqlite:///{tmp_path / 'own.sqlite'}") as own, use_journal(own):
        yield own


@pytest.mark.long
def test_a_plain_task_may_use_the_package_in_another_process(embedded_platform):
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


def test_a_worker_finds_the_attempt_though_its_connection_breaks(postgresql_url):
    """The server ends it while the question is under way; a task run is not left out of the record for that."""
    with Journal.open(postgresql_url) as shared, use_journal(shared):
        opened = shared.runs.open_attempt(IDENTITY)
        broken: list[None] = []

        def breaks(connection: Connection, *_: object) -> None:
            if not broken:
                broken.append(None)
                connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

        sa.event.listen(shared._store.engine, "before_cursor_execute", breaks)
        assert context._attempt_of_context(SENT).attempt.id == opened.attempt.id
        assert broken


def test_a_worker_with_a_journal_of_its_own_is_refused(own, plain_call):
    """Else its orders would be unknown to the flow, and to whichever worker repeats the task. A plain task is not lost
    in silence either: one warning for each flow run is enough on a shared cluster.
    """
    for ask in (lambda: context._attempt_of_context(SENT), lambda: context.put_in_flow(plain_call)):
        with pytest.raises(ConfigurationError, match="own.sqlite.*IVCAP_FLOWS_JOURNAL"):
            ask()
    context.put_in_flow(plain_call)


def test_what_a_worker_missed_is_told_as_soon_as_it_reaches_the_journal(own, plain_call, monkeypatch):
    opened = own.runs.open_attempt(IDENTITY)
    # What earlier tests of this process missed outside of any flow.
    context._run_cache().unrecorded.pop("")
    with monkeypatch.context() as broken:
        broken.setattr(own.runs, "attempt_of", unreachable)
        with pytest.raises(JournalError):
            context.put_in_flow(plain_call)
        context.miss()
    context.put_in_flow(plain_call)
    context.recorder().flush()
    assert own.runs.get(opened.run.id).missing_facts == 1


def unreachable(_: str) -> None:
    raise JournalError("The journal cannot be reached.", url="x")


@pytest.mark.loses_records
def test_a_users_task_is_sent_though_its_flow_cannot_be_recorded(tmp_path, monkeypatch, caplog):
    """Recorded or not, it may need no journal where it runs. A task of the package needs one, so it is not sent."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path / 'file' / 'journal.sqlite'}")

    def double(number: int) -> int:
        return 2 * number

    tasks = {"plain": task(double, name="plain"), "recorded": task(recorded(double), name="recorded")}

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def sends() -> list[int]:
        with pytest.raises(JournalError):
            place_order.submit("echo", {})
        return [each.submit(4).result() for each in tasks.values()]

    assert sends() == [8, 8]
    # Once, until the journal is tried again.
    assert caplog.text.count("is sent to another process without a record of its flow") == 1


@pytest.mark.long
def test_a_flow_without_recorded_has_one_attempt_however_many_processes_run_its_tasks():
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
def test_a_flow_run_again_has_an_attempt_of_its_own(life, monkeypatch):
    """Also while the machine that has just died seems to live, or the process of a worker that was killed does."""
    monkeypatch.setattr(ProcessLocks, "life", lambda self, process, lock: life)

    @task
    @recorded
    def work() -> int:
        return 1

    @flow
    def again() -> None:
        flow_run = prefect_context.flow_run_id()
        first = journal().runs.open_attempt(RunIdentity("again", "again.py:again", {}, flow_run, flow_run)).attempt
        with contextlib.closing(sqlite3.connect(journal().url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("INSERT INTO processes SELECT 'theirs', host, pid, heartbeat_at, NULL FROM processes")
            connection.execute("UPDATE attempts SET process_id = 'theirs' WHERE id = ?", (first.id,))
        assert journal().runs.alive(journal().runs.attempt(first.id))
        work()

    again()
    [run] = journal().runs.recent()
    attempts = journal().runs.attempts(run.id)
    assert [(each.number, each.outcome) for each in attempts] == [(1, "running"), (2, "completed")]
    assert run.outcome == "completed"


@pytest.mark.parametrize("ends", [True, False], ids=["that failed", "whose machine died"])
def test_a_worker_that_outlives_an_attempt_goes_on_under_the_next(own, ends):
    """As one of a cluster of the user's does, when a flow run is tried again."""
    first = own.runs.open_attempt(IDENTITY).attempt
    assert context._attempt_of_context(SENT).attempt.id == first.id
    if ends:
        own.runs.close_attempt(first.id, "failed", "not today")
    second = own.runs.open_attempt(IDENTITY).attempt
    assert context._attempt_of_context(SENT).attempt.id == second.id
    assert second.number == 2
