"""Whether a process lives is decided by its lock or by its heartbeat, and by no clock."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
import sqlalchemy as sa

from ivcap_flows.durable.heartbeat import listen, start_heartbeat
from ivcap_flows.errors import DurabilityError
from ivcap_flows.journal import Journal, NewIntent, ProcessRow, processes, schema
from ivcap_flows.journal.process_locks import ProcessLocks
from ivcap_flows.journal.store import Store

FORK = multiprocessing.get_context("fork")
WANTED = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {"n": 1}, subject="service")
NOBODY = 65534
CLAIM = """
import sys, time
from ivcap_flows.journal import Journal, NewIntent
wanted = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {"n": 1}, subject="service")
print(Journal.open(sys.argv[1]).intents.claim(wanted).kind, flush=True)
time.sleep(60)
"""


def _claim_and_beat(url: str, told: Any) -> None:
    processes.HEARTBEAT_SECONDS = 0.05  # type: ignore[misc]
    journal = Journal.open(url)
    start_heartbeat(journal)
    journal.intents.mark_sent(journal.intents.claim(WANTED).intent)
    told.send("claimed")
    time.sleep(60)


def _rows(journal: Journal) -> list[ProcessRow]:
    """The processes that the journal has."""
    with journal._store.read() as connection:
        return [ProcessRow(**row) for row in connection.execute(sa.select(schema.processes)).mappings()]


@pytest.fixture
def holder(journal_url: str) -> Iterator[Callable[[], Any]]:
    """A process that holds the claim and sends heartbeats."""
    started = []

    def start() -> Any:
        ours, theirs = FORK.Pipe()
        child = FORK.Process(target=_claim_and_beat, args=(journal_url, theirs), daemon=True)
        child.start()
        started.append(child)
        assert ours.poll(30)
        return child

    yield start
    for child in started:
        child.kill()
        child.join()


def _set_clock(journal: Journal, monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    now = journal._store.now
    monkeypatch.setattr(journal._store, "now", lambda connection: now(connection) + by)


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize("hours", [pytest.param(1, marks=pytest.mark.long), -2])
def test_a_clock_that_was_set_takes_nothing_from_a_live_holder(
    journal: Journal,
    holder: Callable[[], Any],
    take_elsewhere: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    hours: int,
) -> None:
    """A holder whose heartbeat moves keeps its claim, whatever the journal's clock says."""
    # A busy machine may keep the holder from its next heartbeat for more than a second.
    monkeypatch.setattr(processes, "SILENT_SECONDS", 3.0)
    holder()
    take_elsewhere(journal)
    _set_clock(journal, monkeypatch, timedelta(hours=hours))
    end = time.monotonic() + 5
    while time.monotonic() < end:
        assert journal.intents.claim(WANTED).kind == "held"
        with pytest.raises(DurabilityError, match="is working on the"):
            journal.decisions.write_off(WANTED.key)
        time.sleep(0.05)


@pytest.mark.parametrize("hours", [*(pytest.param(each, marks=pytest.mark.long) for each in (1, 0)), -2])
def test_a_holder_whose_heart_stands_still_has_let_go(
    journal: Journal,
    holder: Callable[[], Any],
    take_elsewhere: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    hours: int,
) -> None:
    """A killed holder of another machine loses its claim without waiting for a clock that was set back to catch up."""
    monkeypatch.setattr(processes, "SILENT_SECONDS", 1.0)
    child = holder()
    child.kill()
    child.join()
    take_elsewhere(journal)
    _set_clock(journal, monkeypatch, timedelta(hours=hours))
    began = time.monotonic()
    while journal.intents.claim(WANTED).kind == "held":
        assert time.monotonic() < began + 5
        time.sleep(0.05)
    assert time.monotonic() - began >= 0.9


def test_who_asks_once_listens_first(
    journal: Journal, holder: Callable[[], Any], take_elsewhere: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short command listens first: it hears the heartbeats of a live holder, and none of a dead one."""
    monkeypatch.setattr(processes, "SILENT_SECONDS", 0.5)
    child = holder()
    take_elsewhere(journal)
    _set_clock(journal, monkeypatch, timedelta(hours=1))
    listen(journal)
    assert journal.intents.claim(WANTED).kind == "held"
    child.kill()
    child.join()
    listen(journal)
    assert journal.processes.unheard() == 0.0 and journal.intents.claim(WANTED).kind == "doubt"


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_request_may_linger_whose_holder_only_seems_dead(
    journal: Journal,
    holder: Callable[[], Any],
    take_elsewhere: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: bool,
) -> None:
    """Whoever takes over from another machine knows that a request may still leave, and so does who comes after it."""
    monkeypatch.setattr(processes, "SILENT_SECONDS", 0.0)
    child = holder()
    if elsewhere:
        take_elsewhere(journal)
    else:
        child.kill()
        child.join()
    taken = journal.intents.claim(WANTED).intent
    assert taken.lingering is elsewhere
    journal.intents.release(taken)
    again = journal.intents.claim(WANTED).intent
    assert again.lingering is elsewhere and not journal.intents.mark_sent(again).lingering


@pytest.mark.catches("a lock that says nothing")
def test_what_a_lock_says(journal: Journal, holder: Callable[[], Any]) -> None:
    """A stopped process lives; a killed one does not, although its parent has not looked at it yet."""
    child = holder()
    [row] = _rows(journal)
    life = journal.processes.life
    os.kill(child.pid, signal.SIGSTOP)
    assert life(row) == "alive"
    os.kill(child.pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while life(row) == "alive":
        assert time.monotonic() < end
        time.sleep(0.01)
    assert (life(row), psutil.Process(child.pid).status()) == ("dead", psutil.STATUS_ZOMBIE)


def test_a_child_holds_nothing_of_its_parents(tmp_path: Path) -> None:
    """A process whose forked child lives on is dead when it is, and takes nothing from the child."""
    ours, theirs = FORK.Pipe()

    def parent() -> None:
        ProcessLocks(tmp_path).hold("parent")
        child = FORK.Process(target=grandchild)
        child.start()
        os.kill(os.getpid(), signal.SIGKILL)

    def grandchild() -> None:
        ProcessLocks(tmp_path).hold("child")
        theirs.send(os.getpid())
        time.sleep(60)

    process = FORK.Process(target=parent)
    process.start()
    child = ours.recv()
    process.join()
    locks = ProcessLocks(tmp_path)
    assert (locks.life("parent"), locks.life("child")) == ("dead", "alive")
    os.kill(child, signal.SIGKILL)


def test_a_lock_survives_who_reads_its_file(tmp_path: Path) -> None:
    """A process that copies the folder of its journal still lives for others."""

    def hold(told: Any) -> None:
        ProcessLocks(tmp_path).hold("x")
        (tmp_path / "x").read_bytes()
        told.send("read")
        time.sleep(60)

    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(theirs,))
    process.start()
    assert ours.recv() == "read"
    assert ProcessLocks(tmp_path).life("x") == "alive"
    process.kill()
    process.join()
    assert ProcessLocks(tmp_path).life("x") == "dead"


def test_where_no_lock_can_be_had_the_heartbeat_decides(
    journal: Journal, holder: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be written, and a home on a network, from which a lock does not reach other machines."""
    monkeypatch.setattr(processes, "network_file_system", lambda path: "nfs4")
    assert processes.lock_folder(cast(Store, SimpleNamespace(path=None, journal_id="j"))) is None
    (tmp := Path(tempfile.mkdtemp())).joinpath("file").touch()
    for locks in (ProcessLocks(None), ProcessLocks(tmp / "file")):
        locks.hold("x")
        assert locks.life("x") == "unknown"
    shutil.rmtree(tmp)


def test_the_lock_files_of_dead_processes_go_with_their_rows(journal: Journal, holder: Callable[[], Any]) -> None:
    """What a process holds keeps its row, and its row its file."""
    child = holder()
    child.kill()
    child.join()
    folder = processes.lock_folder(journal._store)
    assert folder is not None
    (folder / "of a process without a row").touch()
    journal.processes.prune(journal.now() + timedelta(days=1))
    [row] = _rows(journal)
    assert [each.name for each in folder.iterdir()] == [row.id]
    with journal._store.write() as connection:
        connection.execute(sa.delete(schema.intents))
    journal.processes.prune(journal.now() + timedelta(days=1))
    assert not [*folder.iterdir()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_sees_who_lives(tmp_path: Path) -> None:
    """Also a user to whom nothing of the process is shown."""
    ProcessLocks(tmp_path).hold("x")
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)

    def ask(told: Any) -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        told.send(ProcessLocks(tmp_path).life("x"))

    ours, theirs = FORK.Pipe()
    asking = FORK.Process(target=ask, args=(theirs,))
    asking.start()
    assert ours.recv() == "alive"
    asking.join()


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs unshare and root")
def test_processes_of_two_containers_see_each_other(sqlite_url: str, tmp_path: Path) -> None:
    """Processes that share no process numbers see each other, and see a kill, by the folder that they share."""
    (tmp_path / "claim.py").write_text(CLAIM)
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, str(tmp_path / "claim.py"), sqlite_url]
    said = []
    containers: list[subprocess.Popen[str]] = []
    with ExitStack() as stack:
        for _ in range(3):
            started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stack.callback(stack.enter_context(started).kill)
            containers.append(started)
            assert started.stdout is not None and started.stderr is not None
            said.append(started.stdout.readline().strip())
            if not said[0]:
                pytest.skip(started.stderr.read())
            if len(said) == 2:
                containers[0].kill()
                containers[0].wait()
    assert said == ["new", "held", "new"]


def test_silence_counts_only_while_somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that did not look for long counts from its next look: the holder may have been suspended with it.

    What it heard of processes that it no longer looks at is forgotten.
    """
    at = [0.0]
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: at[0]))
    monkeypatch.setattr(processes, "_heard", {})
    other = ProcessRow("other", "host", 1, datetime.now(timezone.utc))

    def silence(seconds: float) -> float:
        at[0] += seconds
        return processes._heard_for(other)

    assert [silence(0), silence(10), silence(20)] == [0, 10, 30]
    assert [silence(processes.SILENT_SECONDS), silence(20), silence(20)] == [0, 20, 40]
    other = replace(other, id="another")
    assert silence(10) == 0 and processes._heard.keys() == {"other", "another"}
    assert silence(30) == 30 and silence(31) == 0 and processes._heard.keys() == {"another"}
