"""Whether a process lives is decided by its lock or by its heartbeat, and by no clock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from ivcap_flows.durable.heartbeat import listen, start_heartbeat
from ivcap_flows.errors import DurabilityError
from ivcap_flows.journal import Journal, NewIntent, ProcessRow, processes, schema
from ivcap_flows.journal.process_locks import ProcessLocks

WANTED = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {"n": 1}, subject="service")
NOBODY = 65534
CLAIM = """
import sys, time
from ivcap_flows.journal import Journal, NewIntent
wanted = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {"n": 1}, subject="service")
print(Journal.open(sys.argv[1]).intents.claim(wanted).kind, flush=True)
time.sleep(60)
"""


def rows(journal):
    """The processes that the journal has."""
    with journal._store.read() as connection:
        return [ProcessRow(**row) for row in connection.execute(sa.select(schema.processes)).mappings()]


@pytest.fixture
def holder(journal_url, child):
    """A process that holds the claim and sends heartbeats."""

    def claim_and_beat():
        processes.HEARTBEAT_SECONDS = 0.05
        with Journal.open(journal_url) as journal:
            start_heartbeat(journal)
            yield journal.intents.mark_sent(journal.intents.claim(WANTED).intent).fence

    process = child(claim_and_beat)
    assert process.said() == 1
    return process


@pytest.fixture
def set_clock(journal, monkeypatch):
    now = journal._store.now
    return lambda hours: monkeypatch.setattr(
        journal._store, "now", lambda connection: now(connection) + timedelta(hours=hours)
    )


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize("hours", [*(pytest.param(each, marks=pytest.mark.long) for each in (1, 0)), -2])
def test_a_claim_on_another_machine_lasts_as_long_as_its_holders_heartbeat(
    journal, holder, take_elsewhere, monkeypatch, set_clock, hours
):
    """Whatever the journal's clock says: while the heartbeat moves it is held, and once that stands still it is free,
    without waiting for a clock that was set back to catch up."""
    # A busy machine may keep the holder from its next heartbeat for more than a second.
    monkeypatch.setattr(processes, "SILENT_SECONDS", 3.0)
    take_elsewhere(journal)
    set_clock(hours)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert journal.intents.claim(WANTED).kind == "held"
        with pytest.raises(DurabilityError, match="is working on the"):
            journal.decisions.write_off(WANTED.key)
        time.sleep(0.05)
    monkeypatch.setattr(processes, "SILENT_SECONDS", 1.0)
    holder.kill()
    began = time.monotonic()
    while journal.intents.claim(WANTED).kind == "held":
        assert time.monotonic() < began + 5
        time.sleep(0.05)
    assert time.monotonic() - began >= 0.9


def test_who_asks_once_listens_first(journal, holder, take_elsewhere, monkeypatch, set_clock):
    """A short command listens first: it hears the heartbeats of a live holder, and none of a dead one."""
    monkeypatch.setattr(processes, "SILENT_SECONDS", 0.5)
    take_elsewhere(journal)
    set_clock(1)
    listen(journal)
    assert journal.intents.claim(WANTED).kind == "held"
    holder.kill()
    listen(journal)
    assert journal.processes.unheard() == 0.0 and journal.intents.claim(WANTED).kind == "doubt"


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_request_may_linger_whose_holder_only_seems_dead(journal, holder, take_elsewhere, monkeypatch, elsewhere):
    """Whoever takes over from another machine knows that a request may still leave, and so does who comes after it."""
    monkeypatch.setattr(processes, "SILENT_SECONDS", 0.0)
    if elsewhere:
        take_elsewhere(journal)
    else:
        holder.kill()
    taken = journal.intents.claim(WANTED).intent
    assert taken.lingering is elsewhere
    journal.intents.release(taken)
    again = journal.intents.claim(WANTED).intent
    assert again.lingering is elsewhere and not journal.intents.mark_sent(again).lingering


@pytest.mark.catches("a lock that says nothing")
def test_what_a_lock_says(journal, holder):
    """A stopped process lives; a killed one does not, although its parent has not looked at it yet. Its lock file goes
    with its row, and both stay while it holds something."""
    [row] = rows(journal)
    life = journal.processes.life
    os.kill(holder.pid, signal.SIGSTOP)
    assert life(row) == "alive"
    holder.kill()
    assert life(row) == "dead"
    folder = processes.lock_folder(journal._store)
    (folder / "of a process without a row").touch()
    journal.processes.prune(journal.now() + timedelta(days=1))
    assert [each.name for each in folder.iterdir()] == [row.id]
    with journal._store.write() as connection:
        connection.execute(sa.delete(schema.intents))
    journal.processes.prune(journal.now() + timedelta(days=1))
    assert not [*folder.iterdir()]


def test_a_lock_is_its_process_own(tmp_path, child):
    """A forked child that lives on holds nothing of its parent's, and who reads the file, as a backup, ends no lock."""

    def parent():
        ProcessLocks(tmp_path).hold("parent")
        (tmp_path / "parent").read_bytes()

        forked = os.fork()
        if forked == 0:
            ProcessLocks(tmp_path).hold("child")
            time.sleep(60)
            os._exit(0)
        yield forked

    process = child(parent)
    other, locks, end = process.said(), ProcessLocks(tmp_path), time.monotonic() + 10
    assert locks.life("parent") == "alive"
    while locks.life("child") != "alive":
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    assert (locks.life("parent"), locks.life("child")) == ("dead", "alive")
    os.kill(other, signal.SIGKILL)


def test_where_no_lock_can_be_had_the_heartbeat_decides(tmp_path, monkeypatch):
    """A folder that cannot be written, and a home on a network, from which a lock does not reach other machines."""
    monkeypatch.setattr(processes, "network_file_system", lambda path: "nfs4")
    assert processes.lock_folder(SimpleNamespace(path=None, journal_id="j")) is None
    (tmp_path / "file").touch()
    for locks in (ProcessLocks(None), ProcessLocks(tmp_path / "file")):
        locks.hold("x")
        assert locks.life("x") == "unknown"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_sees_who_lives(tmp_path, child):
    """Also a user to whom nothing of the process is shown."""
    ProcessLocks(tmp_path).hold("x")
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)

    def ask():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        yield ProcessLocks(tmp_path).life("x")

    assert child(ask).said() == "alive"


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs unshare and root")
def test_processes_of_two_containers_see_each_other(sqlite_url, tmp_path):
    """Processes that share no process numbers see each other, and see a kill, by the folder that they share."""
    (tmp_path / "claim.py").write_text(CLAIM)
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, str(tmp_path / "claim.py"), sqlite_url]
    said, containers = [], []
    with ExitStack() as stack:
        for _ in range(3):
            started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stack.callback(stack.enter_context(started).kill)
            containers.append(started)
            said.append(started.stdout.readline().strip())
            if not said[0]:
                pytest.skip(started.stderr.read())
            if len(said) == 2:
                containers[0].kill()
                containers[0].wait()
    assert said == ["new", "held", "new"]


def test_silence_counts_only_while_somebody_listens(monkeypatch):
    """A process that did not look for long counts from its next look: the holder may have been suspended with it.

    What it heard of processes that it no longer looks at is forgotten.
    """
    at = [0.0]
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: at[0]))
    monkeypatch.setattr(processes, "_heard", {})
    other = ProcessRow("other", "host", 1, datetime.now(timezone.utc))

    def silence(seconds):
        at[0] += seconds
        return processes._heard_for(other)

    assert [silence(0), silence(10), silence(20)] == [0, 10, 30]
    assert [silence(processes.SILENT_SECONDS), silence(20), silence(20)] == [0, 20, 40]
    other = replace(other, id="another")
    assert silence(10) == 0 and processes._heard.keys() == {"other", "another"}
    assert silence(30) == 30 and silence(31) == 0 and processes._heard.keys() == {"another"}
