"""Threads that write at once share a commit; none returns before it, and none suffers from another's failure."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Journal, RunIdentity
from ivcap_flows.journal.store import Store


@pytest.fixture
def store(sqlite_url):
    made = Store(sqlite_url)
    with made.write() as connection:
        connection.exec_driver_sql("CREATE TABLE told (word TEXT)")
    yield made
    made.close()


@pytest.fixture
def commits(store) -> list[float]:
    seen: list[float] = []
    sa.event.listen(store.engine, "commit", lambda connection: seen.append(time.monotonic()))
    return seen


def words(store: Store) -> set[str]:
    """What is on disk, seen by a connection of another's."""
    with sqlite3.connect(store.engine.url.database) as connection:
        return {word for (word,) in connection.execute("SELECT word FROM told")}


def at_once(store: Store, *writes: Callable[[sa.Connection], None]) -> list[Future[None]]:
    """Let all of these wait for the one that is writing, then let that one end."""
    begun, go = threading.Event(), threading.Event()

    def first(connection: sa.Connection) -> None:
        say("first")(connection)
        begun.set()
        assert go.wait(10)

    def run(write: Callable[[sa.Connection], None]) -> None:
        with store.write() as connection:
            write(connection)

    with ThreadPoolExecutor(len(writes) + 1) as threads:
        futures = [threads.submit(run, first)]
        assert begun.wait(10)
        for count, write in enumerate(writes, 1):
            futures.append(threads.submit(run, write))
            while len(store._commits._waiting) < count:
                time.sleep(0.001)
        go.set()
    return futures


def say(word: str) -> Callable[[sa.Connection], None]:
    return lambda connection: connection.execute(sa.text("INSERT INTO told VALUES (:word)"), {"word": word})


def test_writes_at_once_are_one_commit(store, commits):
    """And each is on disk when it returns."""
    futures = at_once(store, *(say(str(number)) for number in range(5)))
    assert [future.exception() for future in futures] == [None] * 6
    assert words(store) == {"first", *"01234"} and len(commits) == 1


def test_a_write_returns_when_all_is_on_disk(store):
    """Not when its own block has ended: what the last of the group waits for, all wait for."""
    seen: list[set[str]] = []
    real = store.engine.dialect.do_commit

    def late(connection):
        seen.append(words(store))
        real(connection)

    store.engine.dialect.do_commit = late
    at_once(store, say("a"), say("b"))
    assert seen == [set()] and words(store) == {"first", "a", "b"}


def test_a_write_that_fails_takes_back_its_own_alone(store):
    """Whether the statement is wrong or the caller raises."""

    def wrong(connection: sa.Connection) -> None:
        say("wrong")(connection)
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

    def raising(connection: sa.Connection) -> None:
        say("raising")(connection)
        raise KeyError("no")

    done, failed, raised, after = at_once(store, wrong, raising, say("after"))
    assert done.exception() is None and after.exception() is None
    assert isinstance(failed.exception(), JournalError) and isinstance(raised.exception(), KeyError)
    assert words(store) == {"first", "after"}
    with store.write() as connection:
        say("later")(connection)
    assert "later" in words(store)


def test_a_transaction_that_the_database_takes_back_is_told_to_all_in_it(store):
    """As on a full disk: what had not been committed is not there, and nobody is told that it is."""

    def full(connection: sa.Connection) -> None:
        connection.connection.dbapi_connection.execute("ROLLBACK")
        raise sa.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    done, failed, after = at_once(store, full, say("after"))
    assert isinstance(done.exception(), JournalError) and "taken the transaction back" in str(done.exception())
    assert isinstance(failed.exception(), JournalError) and after.exception() is None
    assert words(store) == {"after"}


def test_a_commit_that_fails_is_told_to_all_in_it(store):
    """None of them returns as if its write were on disk."""
    real, failures = store.engine.dialect.do_commit, [sqlite3.OperationalError("disk I/O error")]

    def failing(connection):
        if failures:
            raise failures.pop()
        real(connection)

    store.engine.dialect.do_commit = failing
    futures = at_once(store, say("a"), say("b"))
    assert all(isinstance(future.exception(), JournalError) for future in futures)
    with store.write() as connection:
        say("later")(connection)
    assert words(store) == {"later"}


def test_whoever_waits_too_long_goes_by_the_database(store, monkeypatch):
    """A thread that is stuck in its write does not hold the others for ever: SQLite itself says that it is busy."""
    monkeypatch.setattr(store._commits, "_patience", 0.05)
    stuck, go = threading.Event(), threading.Event()

    def hold() -> None:
        with store.write():
            stuck.set()
            assert go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert stuck.wait(10)
    threading.Timer(0.2, go.set).start()
    with store.write() as connection:
        say("through")(connection)
    holder.join()
    assert words(store) == {"through"} and not store._commits._waiting


def test_many_threads_lose_nothing(store, commits):
    """Hundreds of writes of eight threads, some of which fail, in fewer commits than writes."""

    def run(number: int) -> None:
        with store.write() as connection:
            say(str(number))(connection)
            if number % 7 == 0:
                raise KeyError(number)

    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(run, number) for number in range(400)]
    kept = {str(number) for number, future in enumerate(futures) if future.exception() is None}
    assert words(store) == kept == {str(number) for number in range(400) if number % 7}
    assert len(commits) < len(kept)


def test_a_journal_shares_commits(sqlite_url):
    """By its own methods, as tasks call them."""
    with Journal.open(sqlite_url) as journal, ThreadPoolExecutor(8) as threads:
        run = journal.runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, "1", "1")).run.id
        kept = list(threads.map(lambda number: journal.once.keep(run, str(number), str(number)), range(64)))
        assert kept == [str(number) for number in range(64)]
        assert [journal.once.get(run, str(number)) for number in range(64)] == kept
