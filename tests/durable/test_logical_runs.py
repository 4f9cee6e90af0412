"""A logical run in a process: what it says when it continues, and its heartbeat."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from durable_platform import Platform, order, perform

from ivcap_flows.durable import LogicalRun, heartbeat
from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Journal, RunIdentity

FORK = multiprocessing.get_context("fork")


def _order_and_die(url: str, folder: Path) -> None:
    import asyncio

    with Journal.open(url) as journal:
        run = LogicalRun.open(journal, RunIdentity("f", "f.py:f", {}, "1", "1"))
        effect = order(Platform(folder), once_per="run")
        asyncio.run(perform(effect, journal=journal, attempt=run.opened, platform="https://x", account="urn:acc"))
        os.kill(os.getpid(), signal.SIGKILL)


def test_continued_run_says_what_it_kept(
    durable_url: str, durable_journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a kill, the same command logs once which run it continues, what it kept, and how to start afresh."""
    caplog.set_level(logging.INFO)
    child = FORK.Process(target=_order_and_die, args=(durable_url, tmp_path / "platform"))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    run = LogicalRun.open(durable_journal, RunIdentity("f", "f.py:f", {}, "2", "2"))
    run.close("failed", "boom")
    assert f"Continues run {run.run.id} (attempt 2), 1 order kept; set IVCAP_FLOWS_FRESH=1" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    caplog.clear()
    LogicalRun.open(durable_journal, RunIdentity("f", "f.py:f", {}, "2", "2")).close("completed")
    assert f"Continues run {run.run.id} (attempt 3), 1 order kept." in caplog.text
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert [row.outcome for row in durable_journal.runs.attempts(run.run.id)] == ["lost", "failed", "completed"]


def test_a_run_that_may_still_be_running_elsewhere_is_named(
    durable_url: str, durable_journal: Journal, caplog: pytest.LogCaptureFixture, take_elsewhere: Callable[..., None]
) -> None:
    """A process of another machine that died a moment ago looks alive: the new run says whose orders it may repeat."""
    with Journal.open(durable_url) as other:
        before = other.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1"))
        take_elsewhere(durable_journal)
        LogicalRun.open(durable_journal, RunIdentity("f", "f.py:f", {}, "2", "2")).close("failed")
    [said] = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert f"since process {before.attempt.process.pid} on " in said and "start it again in a minute" in said


def _beaters() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ivcap-flows-heartbeat"]


def _eventually(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def own_beaters(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[threading.Thread]]:
    """Return a function that lists the heartbeat threads of this test. Another test's attempt may still be open."""
    monkeypatch.setattr(heartbeat, "_thread", None)
    before = set(threading.enumerate())
    return lambda: [thread for thread in _beaters() if thread not in before]


def test_one_thread_beats_while_anything_runs(
    sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch, own_beaters: Callable[[], list[threading.Thread]]
) -> None:
    """All runs of a process share one daemon thread for the heartbeat. It ends with the last run."""
    monkeypatch.setattr("ivcap_flows.journal.processes.HEARTBEAT_SECONDS", 0.02)
    runs = [LogicalRun.open(sqlite_journal, RunIdentity("f", "f.py:f", {}, str(n), str(n))) for n in range(3)]
    assert len(own_beaters()) == 1
    assert own_beaters()[0].daemon

    def heartbeat() -> Any:
        return sqlite_journal.runs.attempt(runs[0].attempt.id).process.heartbeat_at

    first = heartbeat()
    _eventually(lambda: heartbeat() > first)
    for run in runs:
        run.close("completed")
    _eventually(lambda: own_beaters() == [])
    last = heartbeat()
    time.sleep(0.1)
    assert heartbeat() == last


@pytest.mark.usefixtures("own_beaters")
def test_beat_survives_a_journal_that_is_away(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat that fails for any reason is tried again at the next interval."""
    monkeypatch.setattr("ivcap_flows.journal.processes.HEARTBEAT_SECONDS", 0.02)
    original, failures = sqlite_journal.processes.heartbeat, [0]

    def flaky() -> None:
        failures[0] += 1
        if failures[0] < 4:
            raise JournalError("disk full") if failures[0] < 3 else RuntimeError("can't start new thread")
        original()

    run = LogicalRun.open(sqlite_journal, RunIdentity("f", "f.py:f", {}, "1", "1"))
    monkeypatch.setattr(sqlite_journal.processes, "heartbeat", flaky)
    first = sqlite_journal.runs.attempt(run.attempt.id).process.heartbeat_at
    _eventually(lambda: sqlite_journal.runs.attempt(run.attempt.id).process.heartbeat_at > first)
    run.close("completed")


@pytest.mark.usefixtures("own_beaters")
def test_beat_survives_a_console_that_is_gone(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A logging handler that raises SystemExit does not end the heartbeat."""
    monkeypatch.setattr("ivcap_flows.journal.processes.HEARTBEAT_SECONDS", 0.02)
    original, failures = sqlite_journal.processes.heartbeat, [0]

    class Gone(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemExit(1)

    def flaky() -> None:
        failures[0] += 1
        if failures[0] < 3:
            raise JournalError("disk full")
        original()

    handler = Gone()
    logging.getLogger("ivcap_flows.durable").addHandler(handler)
    try:
        run = LogicalRun.open(sqlite_journal, RunIdentity("f", "f.py:f", {}, "1", "1"))
        first = sqlite_journal.runs.attempt(run.attempt.id).process.heartbeat_at
        monkeypatch.setattr(sqlite_journal.processes, "heartbeat", flaky)
        _eventually(lambda: sqlite_journal.runs.attempt(run.attempt.id).process.heartbeat_at > first)
    finally:
        logging.getLogger("ivcap_flows.durable").removeHandler(handler)
    run.close("completed")


def test_a_beat_that_could_not_begin_begins_with_the_next_run(
    sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch, own_beaters: Callable[[], list[threading.Thread]]
) -> None:
    """If the system could not start the heartbeat thread, the next run starts it."""

    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(threading.Thread, "start", none)
        heartbeat.start_heartbeat(sqlite_journal)
    heartbeat.start_heartbeat(sqlite_journal)
    assert len(own_beaters()) == 1
    heartbeat.stop_heartbeat(sqlite_journal)
    _eventually(lambda: own_beaters() == [])


def _locked(journal: Journal, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """Let the journal refuse the end of an attempt the given number of times."""
    close = journal.runs.close_attempt

    left = [JournalError("database is locked")] * times

    def locked(*arguments: Any) -> None:
        if left:
            raise left.pop()
        close(*arguments)

    monkeypatch.setattr(journal.runs, "close_attempt", locked)


def test_an_end_that_the_journal_cannot_take_is_told_long_before_the_next_beat(
    sqlite_journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    own_beaters: Callable[[], list[threading.Thread]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An end that the journal refused is written soon, and not only at the next heartbeat.

    Otherwise the run would stay `running`. The thread then ends.
    """
    monkeypatch.setattr("ivcap_flows.journal.processes.HEARTBEAT_SECONDS", 600.0)
    run = LogicalRun.open(sqlite_journal, RunIdentity("f", "f.py:f", {}, "1", "1"))
    _locked(sqlite_journal, monkeypatch, times=3)
    run.close("completed")
    assert f"run {run.run.id} ended as completed is told to the journal later: database is locked" in caplog.text
    _eventually(lambda: sqlite_journal.runs.get(run.run.id).outcome == "completed")
    _eventually(lambda: own_beaters() == [])


@pytest.mark.usefixtures("own_beaters")
def test_an_end_is_told_before_the_next_run_begins(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that the journal refused is written before the same flow begins again, so that the run is continued."""
    first = LogicalRun.open(sqlite_journal, RunIdentity("f", "f.py:f", {}, "1", "1"))
    _locked(sqlite_journal, monkeypatch, times=1)
    first.close("failed", "boom")
    second = LogicalRun.open(sqlite_journal, RunIdentity("f", "f.py:f", {}, "2", "2"))
    second.close("completed")
    assert [row.outcome for row in sqlite_journal.runs.attempts(first.run.id)] == ["failed", "completed"]


def test_an_end_is_told_when_the_process_ends(sqlite_url: str) -> None:
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
        assert [run.outcome for run in journal.runs.recent()] == ["completed"]


@pytest.mark.parametrize("lost", ["reply", "commit", "connection"])
def test_an_attempt_whose_begin_is_not_confirmed_is_ended(
    durable_journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    """The next run of the same command continues the run, although this process lives on and may seem to work on it.

    A reply is lost after the commit, or the connection before it; or it breaks while what was kept is read.
    """
    store = durable_journal._store
    LogicalRun.open(durable_journal, RunIdentity("f", "f.py:f", {}, "1", "1")).close("failed", "boom")
    real = store.write

    @contextmanager
    def unconfirmed() -> Iterator[Any]:
        with real() as connection:
            yield connection
            if lost == "commit":
                raise JournalError("the server was restarted")
        raise JournalError("the reply was lost")

    with monkeypatch.context() as away:
        if lost == "connection":
            away.setattr(durable_journal.intents, "where", _broken)
            opened = LogicalRun.open(durable_journal, RunIdentity("f", "f.py:f", {}, "2", "2"))
            assert "Continues run" in caplog.text and "the connection broke" in caplog.text
            opened.close("failed", "boom")
        else:
            away.setattr(store, "write", unconfirmed)
            with pytest.raises(JournalError):
                LogicalRun.open(durable_journal, RunIdentity("f", "f.py:f", {}, "2", "2"))
    again = LogicalRun.open(durable_journal, RunIdentity("f", "f.py:f", {}, "3", "3"))
    again.close("completed")
    [run] = durable_journal.runs.recent()
    expected = {"reply": ["failed", "lost", "completed"], "commit": ["failed", "completed"]}
    outcomes = [row.outcome for row in durable_journal.runs.attempts(run.id)]
    assert outcomes == expected.get(lost, ["failed", "failed", "completed"])


def _broken(**_: Any) -> Any:
    raise JournalError("the connection broke")
