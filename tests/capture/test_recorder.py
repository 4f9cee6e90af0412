"""The recorder: it writes facts beside the flow, never raises into it, and counts what it could not write."""

import itertools
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime, timezone
from types import SimpleNamespace

import psycopg
import pytest
from eventually import until

from ivcap_flows.capture import (
    annotate,
    attempts,
    context,
    current_attempt,
    files,
    journal,
    record_writer,
    recorded,
    recorder,
    use_journal,
)
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.record_writer import Recorder, Statement
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Journal, RunIdentity
from ivcap_flows.provenance import entity


def opened(root: str = "f1"):
    return journal().runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, root, root))


def states(run, urn: str) -> Statement:
    """A statement about a thing."""
    return Statement(run.id, None, lambda: [entity(urn, "entity")])


def written(run) -> list[str]:
    return [fact.record.id for fact in journal().facts.of_run(run.id)]


def missing(run) -> int:
    return journal().runs.get(run.id).missing_facts


@pytest.mark.parametrize(("limit", "value"), [("CAPACITY", 3), ("ROOM", 5_000)], ids=["in number", "in bytes"])
def test_what_waits_to_be_written_is_bounded(limit, value, monkeypatch):
    """Beyond it the recorder drops, counts, and tells the journal the number. Once written, there is room again."""
    monkeypatch.setattr(record_writer, limit, value)
    run, writer = opened().run, Recorder(journal())
    begun, held = threading.Event(), threading.Event()

    def slow():
        begun.set()
        held.wait(60)
        return [entity("urn:x:slow", "entity")]

    writer.put(Statement(run.id, None, slow))
    assert begun.wait(60)
    for number in range(5):
        writer.put(states(run, f"urn:x:{number}"))
    held.set()
    assert writer.flush()
    lost = missing(run)
    assert 0 < lost < 5 and len(written(run)) == 6 - lost
    writer.put(states(run, "urn:x:next"))
    assert writer.flush()
    assert written(run)[-1] == "urn:x:next" and missing(run) == lost


@pytest.fixture
def broken_pipe():
    """A console that is gone: what is logged of the package ends the thread that logs it (rich, `on_broken_pipe`)."""

    class Gone(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemExit(1)

    handler = Gone()
    logging.getLogger("ivcap_flows").addHandler(handler)
    yield
    logging.getLogger("ivcap_flows").removeHandler(handler)


@pytest.mark.loses_records
@pytest.mark.usefixtures("broken_pipe")
def test_what_cannot_be_written_is_missing_alone(monkeypatch):
    """What cannot be made, what JSON cannot hold, and what the journal refuses once: each costs its own statement, and
    neither those that are written with it nor the thread, though nobody hears the warning.
    """
    run, writer = opened().run, Recorder(journal())
    append = writer.journal.facts.append

    def refused(facts: object) -> None:
        monkeypatch.setattr(writer.journal.facts, "append", append)
        raise OSError("disk full")

    writer.put(states(run, "urn:x:0"))
    writer.put(Statement(run.id, None, lambda: [entity("urn:x:odd", "entity", value={1: "no text"})]))
    writer.put(Statement(run.id, None, lambda: 1 / 0))
    writer.put(states(run, "urn:x:1"))
    assert writer.flush()
    thread = writer._thread
    monkeypatch.setattr(writer.journal.facts, "append", refused)
    writer.put(states(run, "urn:x:2"))
    assert writer.flush()
    writer.put(states(run, "urn:x:3"))
    assert writer.flush()
    assert (written(run), missing(run)) == (["urn:x:0", "urn:x:1", "urn:x:3"], 3)
    assert writer._thread is thread and thread.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_recorder_that_ended_is_followed_by_another():
    """What it had in hand is missing; what is put next is written without that anybody flushes."""
    run, writer = opened().run, Recorder(journal())

    def ends():
        raise GeneratorExit

    writer.put(Statement(run.id, None, ends))
    ended = writer._thread
    ended.join(10)
    writer.put(states(run, "urn:x:1"))
    assert writer._thread is not ended
    until(lambda: written(run), seconds=10)
    assert (written(run), missing(run)) == (["urn:x:1"], 1)


def test_without_a_thread_and_after_the_end_facts_are_written(monkeypatch):
    """Where the system gives no thread, and by a recorder that was closed while somebody still held it."""
    run, writer = opened().run, Recorder(journal())

    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        writer.put(states(run, "urn:x:0"))
    assert writer.flush()
    for number in (1, 2):
        writer.put(states(run, f"urn:x:{number}"))
        writer.close()
    assert written(run) == ["urn:x:0", "urn:x:1", "urn:x:2"]


def test_what_is_put_during_a_commit_waits_for_the_next_group(monkeypatch):
    """A thread that went on at once would commit as fast as the disk does, beside a flow that wants the processor."""
    monkeypatch.setattr(record_writer, "GROUP_SECONDS", 0.2)
    run, writer = opened().run, Recorder(journal())
    begun, append = [], writer.journal.facts.append

    def appended(facts):
        begun.append(time.monotonic())
        if len(begun) < 3:
            writer.put(states(run, flows_urn("entity", str(len(begun)))))
        append(facts)

    monkeypatch.setattr(writer.journal.facts, "append", appended)
    writer.put(states(run, flows_urn("entity", "0")))
    until(lambda: len(written(run)) >= 3, seconds=30)
    assert written(run) == [flows_urn("entity", str(number)) for number in range(3)]
    assert all(later - earlier >= 0.19 for earlier, later in itertools.pairwise(begun))


def test_a_long_call_is_written_when_it_begins():
    """What still runs when its process dies has left its begin; a short call is written once."""
    attempt, writer = opened(), Recorder(journal())

    def call(name: str) -> Call:
        return Call(flows_urn("task-run", name), "task-run", name, attempt.run.id, attempt.attempt.id, None)

    long, short = call("long"), call("short")
    writer.put(long)
    assert writer.flush()
    for each in (long, short):
        each.outcome, each.ended = "completed", datetime.now(timezone.utc)
        writer.put(each)
    writer.put(short)
    assert writer.flush()
    facts = [fact.record.attributes for fact in journal().facts.of_run(attempt.run.id)]
    told = [(each["name"], each["outcome"]) for each in facts]
    assert told == [("long", "running"), ("long", "completed"), ("short", "completed")]


def test_a_forked_child_writes_its_own_facts_and_not_its_parents():
    """What the parent had queued is written once, by the parent; the child's calls by the child."""
    run, writer = opened().run, Recorder(journal())
    writer.put(states(run, "urn:x:parent"))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            writer.journal = Journal.open(os.environ["IVCAP_FLOWS_JOURNAL"])
            writer.put(states(run, "urn:x:child"))
            status = 0 if writer.flush() else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert writer.flush()
    assert sorted(written(run)) == ["urn:x:child", "urn:x:parent"]


def test_use_journal_records_elsewhere(tmp_path):
    """Within the block another journal gets the facts; no thread is left of it."""
    before = set(threading.enumerate())
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other) as writer:
        assert journal() is other
        run = opened().run
        writer.put(states(run, "urn:x:1"))
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) <= before
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        assert len(other.facts.of_run(run.id)) == 1


@pytest.mark.long
def test_who_flushes_waits_while_the_recorder_gets_on(tmp_path, monkeypatch):
    """Each item that is made, and each block of a file that is read, is a reason to wait on."""
    import hashlib

    class Slow:
        def __init__(self) -> None:
            self.update = lambda block: time.sleep(0.2)
            self.hexdigest = hashlib.sha256().hexdigest

    def nap(number: int):
        time.sleep(0.2)
        return [entity(f"urn:x:{number}", "entity")]

    def read():
        files.settle(seen, None)
        return files.records_of(seen)

    monkeypatch.setattr(record_writer, "STALL_TIMEOUT", 1.0)
    monkeypatch.setattr(files, "AT_ONCE", 10)
    monkeypatch.setattr(files, "hashlib", SimpleNamespace(sha256=Slow))
    (tmp_path / "large").write_bytes(b"x" * files._CHUNK * 12)
    seen = files.snapshot(str(tmp_path / "large"), "", None)
    run, writer = opened().run, Recorder(journal())
    for number in range(6):
        writer.put(Statement(run.id, None, lambda number=number: nap(number)))
    writer.put(Statement(run.id, None, read))
    assert writer.flush()
    assert len(written(run)) == 7


def test_what_is_not_written_when_nobody_waits_on_is_missing_until_it_is(monkeypatch, caplog):
    """What is queued and what is in hand counts for each run, once, however often it is waited for."""
    runs, held = [opened("f1").run, opened("f2").run], threading.Event()

    def stuck():
        held.wait(30)
        return [entity("urn:x:1", "entity")]

    writer = Recorder(journal())
    writer.put(Statement(runs[0].id, None, stuck))
    for run in (*runs, runs[1]):
        writer.put(states(run, "urn:x:2"))
    with monkeypatch.context() as patch:
        patch.setattr(record_writer, "STALL_TIMEOUT", 0.2)
        for _ in range(2):
            assert not writer.flush()
            assert [missing(run) for run in runs] == [2, 2]
    assert "4 calls are not written" in caplog.text
    held.set()
    assert writer.flush()
    assert [missing(run) for run in runs] == [0, 0]
    assert [len(written(run)) for run in runs] == [2, 2]


def test_facts_outlast_an_outage_of_the_journal(postgresql_server, postgresql_url):
    """The server ends every connection and refuses new ones for a while, as when another takes over."""
    allow = "ALTER DATABASE journal ALLOW_CONNECTIONS"
    with (
        psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as server,
        Journal.open(postgresql_url) as shared,
        use_journal(shared) as writer,
    ):
        run = opened().run
        server.execute(f"{allow} false")
        try:
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'journal'")
            writer.put(states(run, "urn:x:1"))
            assert not writer.flush(timeout=0.5)
        finally:
            server.execute(f"{allow} true")
        assert writer.flush()
        assert "urn:x:1" in written(run) and missing(run) == 0


@pytest.mark.long
def test_what_is_left_when_the_process_ends_is_missing():
    """A recorder that does not get on does not hold the process for ever, and its run is not told as whole."""
    script = """
import threading
from ivcap_flows.capture import current_attempt, note, recorded, record_writer, recorder
record_writer.STALL_TIMEOUT = 0.3
@recorded
def use(number): pass
use(1)
recorder().flush()
opened = current_attempt()
recorder().put(record_writer.Statement(opened.run.id, None, threading.Event().wait))
use(2)
"""
    subprocess.run([sys.executable, "-c", script], env={**os.environ}, check=True, capture_output=True)
    [run] = journal().runs.recent()
    # The statement, the call at its begin and its end, the end of the attempt, and its code if that was slow.
    assert run.outcome == "completed"
    assert run.missing_facts in (4, 5)


def test_what_is_queued_weighs_what_it_holds(tmp_path, monkeypatch):
    """The members of a folder, and what a note or an annotation holds, are taken into account."""
    for number in range(100):
        (tmp_path / f"{number}.txt").write_text("x")
    attempt = opened()
    call = Call(flows_urn("call", "c"), "call", "use", attempt.run.id, attempt.attempt.id, None)
    before = call.weight
    call.arguments.paths.append(("folder", f"{tmp_path}/"))
    call.snapshot_entry(None)
    call.snapshot_exit(None, other_process=False)
    assert call.weight - before >= 200 * 800
    current_attempt()
    for thread in attempts._attempts().describing.values():
        thread.join()
    put: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "put", lambda self, item: put.append(item.weight))
        context.note(entity("urn:x:1", "entity", text="x" * 100_000))
        annotate("urn:x:1", text=["x" * 4_000] * 20)
        annotate(tmp_path, unit="K")
    of_note, of_text, of_folder = put
    assert of_note >= 100_000 and of_text >= 80_000 and of_folder >= 100 * 800


def test_a_worker_that_has_the_number_of_the_flows_process_flushes(monkeypatch):
    """In containers both may have the number 1: what tells them apart is their id."""
    own = current_attempt()
    recorder().flush()
    foreign = replace(own, attempt=replace(own.attempt, process=replace(own.attempt.process, id="another")))
    flushed = []
    monkeypatch.setattr(Recorder, "flush", lambda self, timeout=None: flushed.append(1))

    @recorded
    def use() -> None:
        """Do nothing."""

    for attempt, times in ((own, 0), (foreign, 1)):
        token = context._attempt.set(attempt)
        use()
        context._attempt.reset(token)
        assert len(flushed) == times
