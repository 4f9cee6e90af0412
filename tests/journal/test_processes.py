"""Whether a process lives is decided by its lock or by its heartbeat, and by no clock."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from ivcap_flows.durable import heartbeat
from ivcap_flows.durable.heartbeat import listen
from ivcap_flows.errors import DurabilityError
from ivcap_flows.journal import Journal, NewIntent, ProcessRow, process_locks, processes, schema
from ivcap_flows.journal.process_locks import ProcessLocks

WANTED = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {"n": 1}, subject="service")
NOBODY = 65534
CLAIM = """
import sys
from ivcap_flows.journal import Journal, NewIntent
wanted = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {"n": 1}, subject="service")
journal = Journal.open(sys.argv[1])
for _ in sys.stdin:
    print(journal.intents.claim(wanted).kind, flush=True)
"""


def rows(journal):
    """The processes that the journal has."""
    with journal._store.read() as connection:
        return [ProcessRow(**row) for row in connection.execute(sa.select(schema.processes)).mappings()]


@pytest.fixture
def holder(journal_url, child):
    """A process that holds the claim."""

    def claim():
        with Journal.open(journal_url) as journal:
            yield journal.intents.mark_sent(journal.intents.claim(WANTED).intent).fence

    process = child(claim)
    assert process.said() == 1
    return process


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock of this process, which goes on by what is added to `now` alone."""
    scripted = SimpleNamespace(now=0.0)
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: scripted.now))
    return scripted


@pytest.fixture
def far(journal_url, journal, take_elsewhere, monkeypatch):
    """Returns the journal of a holder on another machine, seen by a journal whose clock is off by these hours."""
    with Journal.open(journal_url) as other:

        def see(hours):
            other.intents.mark_sent(other.intents.claim(WANTED).intent)
            take_elsewhere(journal)
            now = journal._store.now
            monkeypatch.setattr(journal._store, "now", lambda connection: now(connection) + timedelta(hours=hours))
            return other

        yield see


@pytest.mark.parametrize("hours", [1, 0, -2])
def test_a_claim_on_another_machine_lasts_as_long_as_its_holders_heartbeat(journal, far, clock, hours):
    """Whatever the journal's clock says: while the heartbeat moves it is held, and once that stands still it is free,
    without waiting for a clock that was set back to catch up. Silence counts only while somebody listens: the holder
    may have been suspended with who did not look for long."""
    holder = far(hours)

    def claims_after(*pauses):
        for seconds in pauses:
            clock.now += seconds
            yield journal.intents.claim(WANTED).kind

    for _ in range(4):
        holder.processes.heartbeat()
        assert set(claims_after(0, 29, 29)) == {"held"}
        with pytest.raises(DurabilityError, match="is working on the"):
            journal.decisions.write_off(WANTED.key)
    assert [*claims_after(31, 29, 29, 2)] == ["held", "held", "held", "doubt"]


def test_who_asks_once_listens_first(journal, far, clock, monkeypatch):
    """A short command listens first: it hears the heartbeats of a live holder, and none of a dead one."""
    holder, lives = far(1), True

    def sleep(seconds):
        clock.now += seconds
        if lives:
            holder.processes.heartbeat()

    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    listen(journal)
    assert journal.intents.claim(WANTED).kind == "held" and clock.now >= processes.SILENT_SECONDS
    lives = False
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
        lock = ProcessLocks(tmp_path).hold("parent")
        (tmp_path / "parent").read_bytes()
        theirs, ours = os.pipe()
        forked = os.fork()
        if forked == 0:
            os.write(ours, ProcessLocks(tmp_path).hold("child").encode())
            time.sleep(60)
            os._exit(0)
        yield forked, {"parent": lock, "child": os.read(theirs, 100).decode()}

    process = child(parent)
    (other, held), locks = process.said(), ProcessLocks(tmp_path)
    assert [locks.life(*each) for each in held.items()] == ["alive", "alive"]
    process.kill()
    assert [locks.life(*each) for each in held.items()] == ["dead", "alive"]
    os.kill(other, signal.SIGKILL)


def copied(folder):
    """To another place of the same machine."""
    shutil.copytree(folder, folder / "copy")
    return ProcessLocks(folder / "copy")


def put_back(folder):
    """From a backup, while the process lives."""
    shutil.copytree(folder, folder / "backup")
    (folder / "backup" / "x").replace(folder / "x")
    return ProcessLocks(folder)


def deleted(folder):
    """And what came after it may have its inode."""
    (folder / "x").unlink()
    (folder / "another").touch()
    (folder / "another").rename(folder / "x")
    return ProcessLocks(folder)


def pruned(folder):
    """With its row."""
    ProcessLocks(folder).forget(())
    return ProcessLocks(folder)


def bound(folder):
    """To another place, as a container sees a folder of its host."""
    (folder / "bound").mkdir()
    (folder / "bound" / "x").hardlink_to(folder / "x")
    return ProcessLocks(folder / "bound")


@pytest.mark.parametrize(
    ("become", "alive", "ended"),
    [
        (ProcessLocks, "alive", "dead"),
        (pruned, "alive", "dead"),
        (bound, "alive", "dead"),
        (copied, "unknown", "unknown"),
        (put_back, "unknown", "unknown"),
        (deleted, "unknown", "unknown"),
    ],
)
def test_only_the_very_file_proves_a_death(tmp_path, become, alive, ended):
    """While the process lives, and once it has ended, whatever has become of the folder in between."""
    first = ProcessLocks(tmp_path)
    lock = first.hold("x")
    locks = become(tmp_path)
    assert locks.life("x", lock) == alive
    first.release("x")
    assert locks.life("x", lock) == ended


def test_a_disk_that_was_copied_whole_proves_nothing(tmp_path):
    """Its files have the same device and inode on the machine that starts from it: the boot is another."""
    lock = ProcessLocks(tmp_path, "a boot").hold("x")
    ProcessLocks(tmp_path).release("x")
    assert [ProcessLocks(tmp_path, boot).life("x", lock) for boot in ("a boot", "another")] == ["dead", "unknown"]


@pytest.mark.catches("a lock file known by its name")
def test_a_copied_home_takes_nothing_from_a_live_process(postgresql_url, child, tmp_path, monkeypatch):
    """With the journal on a server, and a second machine whose lock folder is a copy of the first's."""

    def claim():
        with Journal.open(postgresql_url) as journal:
            yield journal.intents.claim(WANTED).kind

    def claimed(home):
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / home))
        process = child(claim)
        return process, process.said()

    holder, first = claimed("first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    assert [first, claimed("second")[1], claimed("first")[1]] == ["new", "held", "held"]
    holder.kill()
    assert [claimed("second")[1], claimed("first")[1]] == ["held", "new"]


@pytest.mark.parametrize(("backend", "after"), [("sqlite", "dead"), ("postgresql", "unknown")])
def test_who_ended_with_the_machine(backend, after, request, child, tmp_path, monkeypatch):
    """All who use an SQLite journal run under one kernel, so the next boot knows that they are dead. Others may run
    elsewhere."""
    url = request.getfixturevalue(f"{backend}_url")

    def boot(number):
        (tmp_path / "boot").write_text(number)
        monkeypatch.setattr(process_locks, "_BOOT", tmp_path / "boot")

    def claim():
        with Journal.open(url) as journal:
            yield journal.intents.claim(WANTED).kind

    boot("1")
    holder = child(claim)
    assert holder.said() == "new"
    holder.kill()
    with Journal.open(url) as journal:
        [row] = rows(journal)
        assert journal.processes.life(row) == "dead"
    boot("2")
    with Journal.open(url) as journal:
        assert journal.processes.life(row) == after


@pytest.mark.catches("a file named before it is locked")
def test_no_probe_keeps_a_process_from_its_lock(tmp_path):
    """Who asks locks the file for a moment, and may be stopped in it."""
    locks = ProcessLocks(tmp_path)
    locks.hold("x")
    locks.release("x")
    asking = os.open(tmp_path / "x", os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    lock = locks.hold("x")
    os.close(asking)
    assert lock is not None and locks.life("x", lock) == "alive"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
    os.close(process_locks._held[tmp_path / "x"])
    assert locks.hold("x") not in (None, lock), "it is locked again by who has closed all descriptors"


@pytest.mark.catches("a lock that is not tried")
def test_where_no_lock_can_be_had_the_heartbeat_decides(tmp_path, journal, monkeypatch):
    """A folder that cannot be written, a home on a network, and a file system on which flock does nothing."""
    monkeypatch.setattr(processes, "network_file_system", lambda path: "nfs4")
    assert processes.lock_folder(SimpleNamespace(path=None, journal_id="j")) is None
    (tmp_path / "file").touch()
    for locks in (ProcessLocks(None), ProcessLocks(tmp_path / "file")):
        assert locks.hold("x") is None and locks.life("x", None) == "unknown"
    journal.intents.claim(WANTED)
    with monkeypatch.context() as patch:
        patch.setattr(process_locks, "fcntl", SimpleNamespace(**vars(fcntl) | {"flock": lambda file, how: None}))
        assert ProcessLocks(tmp_path).hold("x") is None and not (tmp_path / "x").exists()
        journal.processes.close()
        with journal._store.write() as connection:
            journal.processes.register_and_beat(connection, journal.now())
    [row] = rows(journal)
    monkeypatch.setattr(processes, "_mine", set())
    assert row.lock is None and journal.processes.life(row) == "unknown"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_sees_who_lives(tmp_path, child):
    """Also a user to whom nothing of the process is shown."""
    lock = ProcessLocks(tmp_path).hold("x")
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)

    def ask():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        yield ProcessLocks(tmp_path).life("x", lock)

    assert child(ask).said() == "alive"


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs unshare and root")
def test_processes_of_two_containers_see_each_other(sqlite_url, tmp_path):
    """Processes that share no process numbers see each other, and see a kill, by the folder that they share."""
    (tmp_path / "claim.py").write_text(CLAIM)
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, str(tmp_path / "claim.py"), sqlite_url]
    with ExitStack() as stack:

        def start():
            started = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True)
            stack.callback(stack.enter_context(started).kill)
            return started

        def claim(container):
            container.stdin.write("\n")
            container.stdin.flush()
            return container.stdout.readline().strip() or pytest.skip(container.stderr.read())

        first, second = start(), start()
        assert [claim(first), claim(second)] == ["new", "held"]
        first.kill()
        first.wait()
        # What is in a container is killed a little after what it was started by.
        while (kind := claim(second)) == "held":
            time.sleep(0.02)
        assert kind == "new"
