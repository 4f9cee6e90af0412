"""Who waits for whom on PostgreSQL: nobody without end, and no two for each other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict

from ivcap_flows.errors import JournalError, SpendLimitError
from ivcap_flows.journal import Journal, NewIntent, RunIdentity, store
from ivcap_flows.journal.store import Store

FORK = multiprocessing.get_context("fork")
WANTED = NewIntent("k1:a", "k1:a", "order", "https://x", "ada", "account", {"n": 1}, subject="service", spends=True)
OTHER = replace(WANTED, key="k1:b", base_key="k1:b")
ROOT = RunIdentity("f", "f.py:f", {}, "root", "root")


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    made = new_database()
    Journal.open(made).close()
    return made


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    with Journal.open(url) as opened:
        yield opened


def _wait_for_waiters(url: str, number: int) -> None:
    end = time.monotonic() + 20
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            asked = (
                "SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_database d ON d.oid = database OR database IS NULL"
            )
            found = connection.execute(f"{asked} WHERE NOT granted AND d.datname = current_database()").fetchone()
            if found is not None and found[0] >= number:
                return
            assert time.monotonic() < end, "nobody waits"
            time.sleep(0.02)


def _step(journal: Journal, thread: str, words: str, call: Callable[[], object], *, after: bool = False) -> None:
    """Run `call` in the thread of this name, before or after it runs a statement with these words."""

    def reached(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread().name == thread and words in statement:
            call()

    sa.event.listen(journal._store.engine, f"{'after' if after else 'before'}_cursor_execute", reached)


def _run(name: str, call: Callable[[], object], failed: list[BaseException]) -> threading.Thread:
    def body() -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body, name=name)
    thread.start()
    return thread


def test_a_subflow_begins_while_an_order_is_claimed(journal: Journal) -> None:
    """Both need the rows of the run and of the process."""
    run = journal.runs.open_attempt(ROOT).run
    held, inserts, failed = threading.Event(), threading.Event(), list[BaseException]()
    _step(journal, "subflow", "FOR NO KEY UPDATE", held.set, after=True)
    _step(journal, "subflow", "FOR UPDATE", held.set, after=True)
    _step(journal, "subflow", "UPDATE processes", lambda: inserts.wait(5) and time.sleep(0.5))
    _step(journal, "claim", "INSERT INTO intents", inserts.set)
    subflow = _run("subflow", lambda: journal.runs.open_attempt(replace(ROOT, flow_run_id="child")), failed)
    assert held.wait(10)
    claim = _run("claim", lambda: journal.intents.claim(replace(WANTED, run_id=run.id)), failed)
    for thread in (subflow, claim):
        thread.join(20)
    assert failed == [] and inserts.is_set()


def _open_and_die(url: str) -> None:
    Journal.open(url).runs.open_attempt(ROOT)
    os._exit(1)


def test_a_lost_attempt_is_ended_by_two(url: str, journal: Journal) -> None:
    """By one that has looked for all that are lost, and by another that knows how it ended."""
    child = FORK.Process(target=_open_and_die, args=(url,))
    child.start()
    child.join()
    [run] = journal.runs.recent()
    [attempt] = journal.runs.attempts(run.id)
    held, reaped, failed = threading.Event(), threading.Event(), list[BaseException]()
    _step(journal, "close", "FOR NO KEY UPDATE", held.set, after=True)
    _step(journal, "close", "UPDATE attempts", lambda: reaped.wait(1.5))
    _step(journal, "reap", "UPDATE attempts", reaped.set, after=True)
    close = _run("close", lambda: journal.runs.close_attempt(attempt.id, "failed"), failed)
    assert held.wait(10)
    reap = _run("reap", journal.runs.reap, failed)
    for thread in (close, reap):
        thread.join(20)
    assert failed == []
    assert [each.outcome for each in journal.runs.attempts(run.id)] == ["failed"]


def test_an_isolation_level_of_the_database_is_not_used(url: str) -> None:
    """Who waited for its turn sees what was written in the turn before, such as the order that reached the limit."""
    with psycopg.connect(url, autocommit=True) as connection:
        name = conninfo_to_dict(url)["dbname"]
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    with Journal.open(url) as journal, Journal.open(url) as other, ThreadPoolExecutor(1) as pool:
        run_id = journal.runs.open_attempt(ROOT).run.id
        held = threading.Event()
        _step(journal, "first", "INSERT INTO intents", lambda: (held.set(), _wait_for_waiters(url, 1)))
        failed: list[BaseException] = []
        order = replace(WANTED, run_id=run_id)
        first = _run("first", lambda: journal.intents.claim(order, spend_limit=1), failed)
        assert held.wait(10)
        second = pool.submit(other.intents.claim, replace(OTHER, run_id=run_id), spend_limit=1)
        first.join(20)
        with pytest.raises(SpendLimitError):
            second.result(20)
        assert failed == []


def _stop_in_a_transaction(url: str, told: Any) -> None:
    journal = Journal.open(url)
    with journal._store.write() as connection:
        journal._store.take_turns(connection, f"key:{WANTED.key}")
        told.send("stopping")
        os.kill(os.getpid(), signal.SIGSTOP)


def test_a_process_that_is_suspended_in_a_transaction_holds_nobody_up(
    url: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server undoes its transaction and ends its locks; a suspended laptop may never come back."""
    monkeypatch.setattr(store, "BUSY_SECONDS", 4.0)
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_stop_in_a_transaction, args=(url, theirs))
    child.start()
    try:
        assert ours.poll(20)
        assert journal.intents.claim(WANTED).kind == "new"
    finally:
        child.kill()
        child.join()


def test_a_wait_for_a_lock_ends(url: str, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on SQLite, the error says what to look for."""
    monkeypatch.setattr(store, "BUSY_SECONDS", 1.0)
    with psycopg.connect(url) as blocker:
        blocker.execute("LOCK TABLE intents")
        with pytest.raises(JournalError, match="Another process has been writing for more than 1 s"):
            journal.intents.claim(WANTED)


def test_a_server_that_vanishes_is_noticed(url: str) -> None:
    """The connection asks for keepalives of a minute, unless the URL has other values."""
    for given, expected in (("", "30"), ("?keepalives_idle=7", "7")):
        opened = Store(url.replace("?", f"{given}&" if given else "?", 1))
        with opened.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            found = {each.keyword: each.val for each in driver.pgconn.info}
        assert found[b"keepalives_idle"] == expected.encode() and found[b"tcp_user_timeout"] == b"60000"
        opened.close()
