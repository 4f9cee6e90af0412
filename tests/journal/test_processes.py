"""Whether a process lives is decided by the process table or by its heartbeat, and by no clock."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from ivcap_flows.durable.heartbeat import listen, start_heartbeat
from ivcap_flows.errors import DurabilityError
from ivcap_flows.journal import Journal, NewIntent, ProcessRow, processes, schema
from ivcap_flows.journal.processes import boot_id, start_of

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


def _take_elsewhere(journal: Journal) -> None:
    """Make the journal know of the holder only what it would know of a process of another machine."""
    with journal._store.write() as connection:
        connection.execute(sa.update(schema.processes).values(boot="of another machine"))


def _set_clock(journal: Journal, monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    now = journal._store.now
    monkeypatch.setattr(journal._store, "now", lambda connection: now(connection) + by)


def _row(pid: int) -> ProcessRow:
    return ProcessRow("id", "host", boot_id(), pid, start_of(pid) or 0.0, datetime.now(timezone.utc))


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize("hours", [pytest.param(1, marks=pytest.mark.long), -2])
def test_a_clock_that_was_set_takes_nothing_from_a_live_holder(
    journal: Journal, holder: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """A holder whose heartbeat moves keeps its claim, whatever the journal's clock says."""
    # A busy machine may keep the holder from its next heartbeat for more than a second.
    monkeypatch.setattr(processes, "LISTEN_SECONDS", 2.0)
    monkeypatch.setattr(processes, "LEASE_SECONDS", 3.0)
    holder()
    _take_elsewhere(journal)
    _set_clock(journal, monkeypatch, timedelta(hours=hours))
    end = time.monotonic() + 5
    while time.monotonic() < end:
        assert journal.intents.claim(WANTED).kind == "held"
        with pytest.raises(DurabilityError, match="is working on the"):
            journal.intents.write_off(WANTED.key)
        time.sleep(0.05)


@pytest.mark.parametrize("hours", [*(pytest.param(each, marks=pytest.mark.long) for each in (1, 0)), -2])
def test_a_holder_whose_heart_stands_still_has_let_go(
    journal: Journal, holder: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """A killed holder of another machine loses its claim without waiting for a clock that was set back to catch up."""
    monkeypatch.setattr(processes, "LISTEN_SECONDS", 0.3)
    monkeypatch.setattr(processes, "LEASE_SECONDS", 1.0)
    child = holder()
    child.kill()
    child.join()
    _take_elsewhere(journal)
    _set_clock(journal, monkeypatch, timedelta(hours=hours))
    began = time.monotonic()
    while journal.intents.claim(WANTED).kind == "held":
        assert time.monotonic() < began + 5
        time.sleep(0.05)
    assert time.monotonic() - began >= (0.3 if hours else 0.6)


def test_who_asks_once_listens_first(
    journal: Journal, holder: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short command listens first: it hears the heartbeats of a live holder, and none of a dead one."""
    monkeypatch.setattr(processes, "LISTEN_SECONDS", 0.5)
    child = holder()
    _take_elsewhere(journal)
    _set_clock(journal, monkeypatch, timedelta(hours=1))
    listen(journal)
    assert journal.intents.claim(WANTED).kind == "held"
    child.kill()
    child.join()
    listen(journal)
    assert journal.runs.unheard() == 0.0 and journal.intents.claim(WANTED).kind == "doubt"


def test_the_doubt_counts_from_the_death_of_the_holder(journal: Journal, holder: Callable[[], Any]) -> None:
    """The visibility delay counts from the death of the holder, which may have sent at any time before."""
    child = holder()
    marked = journal.intents.get(WANTED.key)
    assert marked is not None and marked.sent_at is not None
    time.sleep(0.3)
    child.kill()
    child.join()
    taken = journal.intents.claim(WANTED).intent
    assert taken.sent_at is not None and taken.may_send_until is None
    assert marked.sent_at + timedelta(seconds=0.3) <= taken.sent_at <= journal.now()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_doubt_counts_no_longer_than_a_holder_may_send(
    journal: Journal, holder: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """The visibility delay counts at the latest from when the holder's permission to send ended.

    A holder elsewhere may still send.
    """
    monkeypatch.setattr(processes, "LISTEN_SECONDS", 0.0)
    monkeypatch.setattr(processes, "LEASE_SECONDS", 0.0)
    child = holder()
    marked = journal.intents.get(WANTED.key)
    assert marked is not None and marked.sent_at is not None and marked.may_send_until is not None
    assert marked.may_send_until > journal.now() + timedelta(seconds=30)
    if elsewhere:
        _take_elsewhere(journal)
        expected = marked.may_send_until
    else:
        child.kill()
        child.join()
        expected = marked.sent_at + timedelta(seconds=0.001)
        with journal._store.write() as connection:
            connection.execute(sa.update(schema.intents).values(may_send_until=expected))
    assert journal.intents.claim(WANTED).intent.sent_at == expected


def test_a_clock_that_was_set_back_makes_nobody_wait_for_hours(
    journal: Journal, holder: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was set back does not move the end of a holder's permission to send further away."""
    monkeypatch.setattr(processes, "LISTEN_SECONDS", 0.0)
    monkeypatch.setattr(processes, "LEASE_SECONDS", 0.0)
    holder()
    _take_elsewhere(journal)
    _set_clock(journal, monkeypatch, -timedelta(hours=2))
    sent_at = journal.intents.claim(WANTED).intent.sent_at
    assert sent_at is not None and sent_at < journal.now() + timedelta(seconds=110)


def test_what_the_process_table_says(journal: Journal) -> None:
    """A process with the number of another and a different start time is not that process, nor is a missing number."""
    holds = journal.intents._processes.holds
    child = FORK.Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    row = _row(child.pid or 0)
    assert holds(row, "t", journal.now()) and not holds(replace(row, started=row.started + 1), "t", journal.now())
    os.kill(child.pid or 0, signal.SIGKILL)
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not holds(row, "t", journal.now()), "what is left of it until its parent looks is no process"
    child.join()
    assert not holds(row, "t", journal.now())


def test_a_process_that_cannot_be_seen_is_not_dead(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a process's start time is hidden, its heartbeat decides."""
    monkeypatch.setattr(processes, "LISTEN_SECONDS", 0.0)
    holds = journal.intents._processes.holds
    child = FORK.Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    now = journal.now()
    row = replace(_row(child.pid or 0), heartbeat_at=now)
    monkeypatch.setattr(processes, "start_of", lambda pid: None)
    assert holds(row, "t", now) and not holds(replace(row, heartbeat_at=now - timedelta(hours=1)), "t", now)
    child.kill()
    child.join()
    assert not holds(row, "t", now), "nobody has the number any more"


def _ask_as_nobody(row: ProcessRow, told: Any) -> None:
    """Ask as another user, to whom /proc shows nothing of root's processes."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    private, new_namespace = 0x40000 | 0x4000, 0x20000
    if (
        libc.unshare(new_namespace)
        or libc.mount(b"none", b"/", None, private, None)
        or libc.mount(b"proc", b"/proc", b"proc", 0, b"hidepid=2")
    ):
        told.send("cannot")
        return
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    seen = Path(f"/proc/{row.pid}/stat").exists()
    store: Any = None
    told.send((seen, processes.Processes(store).holds(row, "t", row.heartbeat_at)))


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="needs root on Linux")
def test_another_users_process_is_not_dead_where_proc_hides_it() -> None:
    """With hidepid=2, another user's process is visible only by its number, and is not taken for dead."""
    child = FORK.Process(target=time.sleep, args=(60,), daemon=True)
    child.start()
    row = _row(child.pid or 0)
    ours, theirs = FORK.Pipe()
    asking = FORK.Process(target=_ask_as_nobody, args=(row, theirs), daemon=True)
    asking.start()
    said = ours.recv()
    asking.join()
    child.kill()
    child.join()
    if said == "cannot":
        pytest.skip("no mount namespaces here")
    assert said == (False, True)


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs unshare and root")
@pytest.mark.parametrize(
    "mounts",
    [pytest.param(["--mount-proc"], id="own /proc"), pytest.param([], id="the host's /proc", marks=pytest.mark.long)],
)
def test_processes_of_one_container_see_each_other(sqlite_url: str, mounts: list[str], tmp_path: Path) -> None:
    """Processes in one PID namespace see each other, and see a kill, even if /proc shows the numbers of another."""
    (tmp_path / "claim.py").write_text(CLAIM)
    ask = '"$0" "$1" "$2" & '
    script = f"{ask} first=$!; read _; {ask} read _; kill -9 $first; wait $first; {ask} wait"
    command = ["unshare", "--pid", "--fork", "--kill-child", *mounts, "sh", "-c", script]
    command += [sys.executable, str(tmp_path / "claim.py"), sqlite_url]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True) as container:
        try:
            assert container.stdin is not None and container.stdout is not None
            said = [container.stdout.readline().strip()]
            if not said[0]:
                assert container.stderr is not None
                pytest.skip(container.stderr.read())
            for _ in range(2):
                # The next is started, and the first killed, once this one has said how it found the claim.
                print(file=container.stdin, flush=True)
                said.append(container.stdout.readline().strip())
        finally:
            container.kill()
    assert said == ["new", "held", "new"]


def test_silence_counts_only_while_somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that did not look for long counts from its next look: the holder may have been suspended with it.

    What it heard of processes that it no longer looks at is forgotten.
    """
    at = [0.0]
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: at[0]))
    monkeypatch.setattr(processes, "_heard", {})
    other = replace(_row(1), id="other")

    def silence(seconds: float) -> float:
        at[0] += seconds
        return processes._heard_for(other)

    assert [silence(0), silence(10), silence(20)] == [0, 10, 30]
    assert [silence(processes.LEASE_SECONDS), silence(20), silence(20)] == [0, 20, 40]
    other = replace(_row(1), id="another")
    assert silence(10) == 0 and processes._heard.keys() == {"other", "another"}
    assert silence(30) == 30 and silence(31) == 0 and processes._heard.keys() == {"another"}
