"""A claim ends with its call, so a process that gave up a call and lives on does not keep others from the effect."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from durable_platform import Platform, order, perform

from ivcap_flows.durable import Effect, Performed
from ivcap_flows.durable.heartbeat import start_heartbeat, stop_heartbeat
from ivcap_flows.errors import JournalError, UnreachableError
from ivcap_flows.http.session import Session
from ivcap_flows.journal import IntentRow, Journal, processes
from ivcap_flows.journal.store import Store

FORK = multiprocessing.get_context("fork")
SOMEBODY: dict[str, Any] = {"attempt": None, "platform": "https://x", "account": "urn:acc"}


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path / "platform")


@pytest.fixture
def child() -> Iterator[Callable[..., Any]]:
    """Return a function that starts a process and waits for its first message."""
    children = []

    def start(work: Callable[..., None], *args: Any) -> Any:
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=work, args=(*args, theirs), daemon=True)
        process.start()
        children.append(process)
        assert ours.poll(30)
        ours.recv()
        process.pipe = ours
        return process

    yield start
    for process in children:
        process.kill()
        process.join()


def run(effect: Effect[Any], journal: Journal, timeout: float = 20.0) -> Performed[Any]:
    return asyncio.run(asyncio.wait_for(perform(effect, journal=journal, **SOMEBODY), timeout))


def _give_up_and_stay(url: str, folder: Path, how: str, told: Any) -> None:
    """End a call, but keep the process alive, as a notebook or a service does."""
    journal = Journal.open(url)
    platform = Platform(folder, ["hang"] if how == "cancelled" else ["lost before"] * 3)

    async def call() -> None:
        asked = asyncio.create_task(perform(order(platform, visibility_delay=0.05), journal=journal, **SOMEBODY))
        while how == "cancelled" and not platform.sends:
            await asyncio.sleep(0.01)
        if how == "cancelled":
            asked.cancel()
        with contextlib.suppress(asyncio.CancelledError, UnreachableError):
            await asked

    asyncio.run(call())
    told.send("over")
    time.sleep(60)


@pytest.mark.parametrize("how", ["cancelled", "gave up"])
def test_a_call_that_ended_leaves_its_key_to_others(
    durable_url: str, durable_journal: Journal, platform: Platform, child: Callable[..., Any], how: str
) -> None:
    """After a call has ended, another process gets the key at once, although the first process lives.

    It looks, and then sends.
    """
    process = child(_give_up_and_stay, durable_url, platform.folder, how)
    began = time.monotonic()
    assert run(order(platform), durable_journal).how == "sent"
    assert time.monotonic() - began < 10 and len(platform.urns) == 1 and process.is_alive()


def test_the_user_decides_what_an_ended_call_left(
    durable_url: str, durable_journal: Journal, platform: Platform, child: Callable[..., Any]
) -> None:
    """The user can write off an intent in doubt although its process lives, since no call holds it any more."""
    process = child(_give_up_and_stay, durable_url, platform.folder, "cancelled")
    [row] = durable_journal.intents.where()
    assert (row.state, row.process_id, row.token) == ("sent", None, None)
    assert durable_journal.decisions.write_off(row.key).state == "dropped" and process.is_alive()


def _lose_the_journal(url: str, folder: Path, lost: Path, told: Any) -> None:
    """End a call while the journal cannot be written."""
    processes.HEARTBEAT_SECONDS = 0.05  # type: ignore[misc]
    journal = Journal.open(url)
    write = Store.write

    def no_more(store: Store) -> Any:
        if lost.exists():
            raise JournalError("the disk is full", url=store.url)
        return write(store)

    async def send(intent: IntentRow, progress: Any) -> Any:
        lost.touch()
        raise UnreachableError("time-out", sent=False)

    platform = Platform(folder)
    platform.send = send  # type: ignore[method-assign]
    Store.write = no_more  # type: ignore[assignment, method-assign]
    with contextlib.suppress(UnreachableError):
        run(order(platform), journal)
    told.send("over")
    time.sleep(60)


def test_an_end_that_could_not_be_written_is_told_with_a_heartbeat(
    durable_url: str, durable_journal: Journal, platform: Platform, child: Callable[..., Any], tmp_path: Path
) -> None:
    """If the end of a call could not be written, a heartbeat writes it as soon as the journal works again.

    Then others get the key.
    """
    lost = tmp_path / "lost"
    process = child(_lose_the_journal, durable_url, platform.folder, lost)
    [row] = durable_journal.intents.where()
    assert durable_journal.intents.held(row)
    lost.unlink()
    began = time.monotonic()
    assert run(order(platform), durable_journal).how == "sent"
    assert time.monotonic() - began < 10 and process.is_alive()


def test_the_heart_beats_until_the_journal_knows(sqlite_journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat thread runs until everything that is owed to the journal is written, and then ends."""
    from ivcap_flows.durable import heartbeat

    monkeypatch.setattr("ivcap_flows.journal.processes.HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "_thread", None)
    start_heartbeat(sqlite_journal)
    with sqlite_journal.leases.hold("x"):
        pass
    sqlite_journal.processes.owe("x", "a token")
    stop_heartbeat(sqlite_journal)
    end = time.monotonic() + 10
    while heartbeat._thread is not None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not sqlite_journal.untold


class _Counting(BaseHTTPRequestHandler):
    """An HTTP server that records what is posted to it."""

    def do_POST(self) -> None:
        self.server.taken.append(self.rfile.read(int(self.headers["content-length"])).decode())  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Counting) as listening:
        listening.taken = []  # type: ignore[attr-defined]
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening
        listening.shutdown()


def _posted(platform: Platform, port: int, before: Callable[[], None] = lambda: None) -> Effect[Any]:
    """Return an order that is one request. `before` runs when the claim is marked as sent and nothing has left yet."""

    async def send(intent: IntentRow, progress: Any) -> Any:
        before()
        async with Session(f"http://127.0.0.1:{port}", platform="x", timeout=5.0) as session:
            await session.request("POST", "/orders", repeat="keyed", json=intent.key)
        return {"urn": platform.take(intent.key, intent.request)}

    platform.send = send  # type: ignore[method-assign]
    return order(platform, visibility_delay=0.2)


def _sleep_before_sending(url: str, folder: Path, port: int, told: Any) -> None:
    def sleep() -> None:
        told.send("asleep")
        os.kill(os.getpid(), signal.SIGSTOP)

    done = run(_posted(Platform(folder), port, sleep), Journal.open(url), 60)
    told.send((done.how, done.value))
    time.sleep(60)


def test_who_slept_does_not_send_on_an_old_claim(
    durable_url: str,
    durable_journal: Journal,
    platform: Platform,
    child: Callable[..., Any],
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
    take_elsewhere: Callable[..., None],
) -> None:
    """A process that was suspended just before it sends, and was overtaken, does not send when it wakes.

    It asks the journal first, and gets the other machine's order.
    """
    process = child(_sleep_before_sending, durable_url, platform.folder, server.server_port)
    end = time.monotonic() + 20
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < end
        time.sleep(0.01)
    take_elsewhere(durable_journal)
    monkeypatch.setattr(processes, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr("ivcap_flows.durable.submission.LEAVES_WITHIN", 0.0)
    assert run(_posted(platform, server.server_port), durable_journal).how == "sent"
    os.kill(process.pid, signal.SIGCONT)
    assert process.pipe.poll(20)
    assert process.pipe.recv() == ("kept", {"urn": platform.urns[0]})
    assert len(server.taken) == len(platform.urns) == 1


def _hold(url: str, folder: Path, told: Any) -> None:
    """Claim an effect, and stop with it, as by Ctrl-Z."""
    platform = Platform(folder)

    async def stopped(intent: IntentRow, progress: Any) -> dict[str, Any]:
        told.send("claimed")
        os.kill(os.getpid(), signal.SIGSTOP)
        return {"urn": platform.take(intent.key, intent.request)}

    platform.send = stopped  # type: ignore[method-assign]
    run(order(platform), Journal.open(url), 60)


def test_who_holds_a_key_is_named_to_the_one_who_waits(
    durable_url: str,
    durable_journal: Journal,
    platform: Platform,
    child: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A call that waits for a stopped process says which it is, since when and what to do; then it gets its outcome."""
    process = child(_hold, durable_url, platform.folder)

    async def wait() -> Performed[Any]:
        asked = asyncio.create_task(perform(order(platform), journal=durable_journal, **SOMEBODY))
        while f"process {process.pid} on" not in caplog.text:
            await asyncio.sleep(0.05)
        os.kill(process.pid, signal.SIGCONT)
        return await asked

    assert asyncio.run(asyncio.wait_for(wait(), 60)).how == "kept"
    [said] = [record.getMessage() for record in caplog.records if "Ctrl-Z" in record.getMessage()]
    assert "since 20" in said and "the order k1:" in said and len(platform.urns) == 1


@pytest.mark.catches("end on the loop")
def test_the_end_of_a_call_does_not_stop_the_loop(sqlite_journal: Journal, platform: Platform) -> None:
    """While the journal cannot be written, a cancelled call waits for it, and everything else on its loop goes on."""
    platform.faults = ["hang"]
    away = sqlite3.connect(sqlite_journal.url.removeprefix("sqlite:///"), isolation_level=None)

    async def cancel() -> None:
        asked = asyncio.create_task(perform(order(platform), journal=sqlite_journal, **SOMEBODY))
        while not platform.sends:
            await asyncio.sleep(0.01)
        away.execute("BEGIN IMMEDIATE")
        asked.cancel()
        for _ in range(10):
            await asyncio.sleep(0.02)
        assert not asked.done()
        away.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(cancel())
    away.close()
    [row] = sqlite_journal.intents.where()
    assert row.in_doubt and not sqlite_journal.intents.held(row)
