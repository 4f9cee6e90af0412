"""A logical run in a process: what it says when it continues, its heartbeat, and how its end reaches the journal."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from eventually import until

from ivcap_flows.durable import LogicalRun, heartbeat
from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Journal, RunIdentity


def begin(journal: Journal, flow_run: str = "1") -> LogicalRun:
    return LogicalRun.open(journal, RunIdentity("f", "f.py:f", {}, flow_run, flow_run))


def outcomes(journal: Journal) -> list[str]:
    [run] = journal.runs.recent()
    return [row.outcome for row in journal.runs.attempts(run.id)]


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """Return a function that lists the heartbeat threads of this test. Another test's attempt may still be open."""
    monkeypatch.setattr(heartbeat, "_thread", None)
    before = set(threading.enumerate())

    def of_this_test() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "ivcap-flows-heartbeat" and each not in before]

    return of_this_test


def test_continued_run_says_what_it_kept(durable_journal, platform, caplog):
    """The same command logs once which run it continues, what it kept, and how to start afresh: as a warning if the
    user may not expect it."""
    caplog.set_level(logging.INFO)
    run = begin(durable_journal)
    platform.run(durable_journal, once_per="run", attempt=run.opened)
    run.close("failed", "boom")
    for attempt, level in ((2, "WARNING"), (3, "INFO")):
        caplog.clear()
        begin(durable_journal, "2").close("failed")
        [record] = caplog.records
        assert record.message.startswith(f"Continues run {run.run.id} (attempt {attempt}), 1 order kept")
        assert (record.levelname, "IVCAP_FLOWS_FRESH=1" in record.message) == (level, level == "WARNING")


def test_a_run_that_may_still_be_running_elsewhere_is_named(durable_url, durable_journal, caplog, take_elsewhere):
    """A process of another machine that died a moment ago looks alive: the new run says whose orders it may repeat."""
    with Journal.open(durable_url) as other:
        before = other.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1"))
        take_elsewhere(durable_journal)
        begin(durable_journal, "2").close("failed")
    [said] = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert f"since process {before.attempt.process.pid} on " in said and "start it again in a minute" in said


def test_one_thread_sends_the_heartbeat_while_anything_runs(sqlite_journal, monkeypatch, threads):
    """All runs of a process share one daemon thread for the heartbeat, which ends with the last run. A heartbeat that
    fails for any reason is tried again, also if the log of that ends the thread, as on a console that is gone."""
    monkeypatch.setattr("ivcap_flows.journal.processes.HEARTBEAT_SECONDS", 0.02)

    class Gone(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemExit(1)

    send = sqlite_journal.processes.heartbeat
    fails = [JournalError("disk full"), RuntimeError("can't start new thread"), JournalError("disk full")]

    def flaky() -> None:
        if fails:
            raise fails.pop()
        send()

    def last() -> Any:
        return sqlite_journal.runs.attempt(runs[0].attempt.id).process.heartbeat_at

    monkeypatch.setattr(sqlite_journal.processes, "heartbeat", flaky)
    handler = Gone()
    logging.getLogger("ivcap_flows.durable").addHandler(handler)
    try:
        runs = [begin(sqlite_journal, str(n)) for n in range(3)]
        assert [thread.daemon for thread in threads()] == [True]
        first = last()
        until(lambda: last() > first)
    finally:
        logging.getLogger("ivcap_flows.durable").removeHandler(handler)
    for run in runs:
        run.close("completed")
    until(lambda: threads() == [])
    ended = last()
    time.sleep(0.1)
    assert last() == ended


def test_a_heartbeat_that_could_not_begin_begins_with_the_next_run(sqlite_journal, monkeypatch, threads):
    """If the system could not start the thread, the next run starts it. It ends only when all is written that is owed
    to the journal."""

    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(threading.Thread, "start", none)
        heartbeat.start_heartbeat(sqlite_journal)
    heartbeat.start_heartbeat(sqlite_journal)
    assert len(threads()) == 1
    with sqlite_journal.leases.hold("x"):
        pass
    sqlite_journal.processes.owe("x", "a token")
    heartbeat.stop_heartbeat(sqlite_journal)
    until(lambda: threads() == [])
    assert not sqlite_journal.untold


def refuse(journal: Journal, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """Let the journal refuse the end of an attempt the given number of times."""
    close, left = journal.runs.close_attempt, [JournalError("database is locked")] * times

    def locked(*arguments: Any) -> None:
        if left:
            raise left.pop()
        close(*arguments)

    monkeypatch.setattr(journal.runs, "close_attempt", locked)


def test_an_end_that_the_journal_cannot_take_is_written_soon(sqlite_journal, monkeypatch, threads, caplog):
    """Not only at the next heartbeat, and before the same flow begins again, so that the run is continued."""
    monkeypatch.setattr("ivcap_flows.journal.processes.HEARTBEAT_SECONDS", 600.0)
    run = begin(sqlite_journal)
    refuse(sqlite_journal, monkeypatch, times=3)
    run.close("failed", "boom")
    assert f"run {run.run.id} ended as failed is told to the journal later: database is locked" in caplog.text
    until(lambda: sqlite_journal.runs.get(run.run.id).outcome == "failed")
    until(lambda: threads() == [])
    second = begin(sqlite_journal, "2")
    refuse(sqlite_journal, monkeypatch, times=1)
    second.close("failed", "boom")
    begin(sqlite_journal, "3").close("completed")
    assert outcomes(sqlite_journal) == ["failed", "failed", "completed"]


def test_an_end_is_written_when_the_process_ends(sqlite_url):
    """An end that the journal refused is written at the latest when the process exits."""
    script = """
import sys
from ivcap_flows.durable import LogicalRun
from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Journal, RunIdentity
journal = Journal.open(sys.argv[1])
run = LogicalRun.open(journal, RunIdentity("f", "f.py:f", {}, "1", "1"))
close = journal.runs.close_attempt
def locked(*_):
    journal.runs.close_attempt = close
    raise JournalError("database is locked")
journal.runs.close_attempt = locked
run.close("completed")
"""
    subprocess.run([sys.executable, "-c", script, sqlite_url], check=True, capture_output=True)
    with Journal.open(sqlite_url) as journal:
        assert outcomes(journal) == ["completed"]


@pytest.mark.parametrize(
    ("lost", "ends"), [("reply", ["failed", "lost", "completed"]), ("commit", ["failed", "completed"])]
)
def test_an_attempt_whose_begin_is_not_confirmed_is_ended(durable_journal, monkeypatch, lost, ends):
    """The next run of the same command continues the run, although this process lives on and may seem to work on it.

    A reply is lost after the commit, or the connection before it.
    """
    write = durable_journal._store.write

    @contextmanager
    def unconfirmed() -> Iterator[Any]:
        with write() as connection:
            yield connection
            if lost == "commit":
                raise JournalError("the server was restarted")
        raise JournalError("the reply was lost")

    begin(durable_journal).close("failed", "boom")
    with monkeypatch.context() as away, pytest.raises(JournalError):
        away.setattr(durable_journal._store, "write", unconfirmed)
        begin(durable_journal, "2")
    begin(durable_journal, "3").close("completed")
    assert outcomes(durable_journal) == ends


def test_a_run_continues_though_what_it_kept_cannot_be_read(sqlite_journal, monkeypatch, caplog):
    def broken(**_: Any) -> Any:
        raise JournalError("the connection broke")

    begin(sqlite_journal).close("failed", "boom")
    monkeypatch.setattr(sqlite_journal.intents, "where", broken)
    begin(sqlite_journal, "2").close("completed")
    assert "Continues run" in caplog.text and "the connection broke" in caplog.text
    assert outcomes(sqlite_journal) == ["failed", "completed"]
