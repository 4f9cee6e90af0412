"""What coroutines ask of a journal at once shares a commit; none is answered before it, none suffers from another's
failure, and threads take turns."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from ivcap_flows.errors import JournalError
from ivcap_flows.identity import key_of
from ivcap_flows.journal import Journal, NewIntent, RunIdentity
from ivcap_flows.journal.group_commit import GroupCommit
from ivcap_flows.journal.store import Store

Write = Callable[[sa.Connection], None]


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
    """Return what is on disk, as another connection sees it."""
    with sqlite3.connect(store.engine.url.database) as connection:
        return {word for (word,) in connection.execute("SELECT word FROM told")}


def say(word: str) -> Write:
    return lambda connection: connection.execute(sa.text("INSERT INTO told VALUES (:word)"), {"word": word})


async def at_once(store: Store, *writes: Write) -> list[BaseException | None]:
    """Request all of these while another write is under way. Return what each of them raised."""
    group_commit, begun, go = GroupCommit(store), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def first(connection: sa.Connection) -> None:
        say("first")(connection)
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(10)

    def run(write: Write) -> None:
        with store.write() as connection:
            write(connection)

    before = asyncio.create_task(group_commit.ask(run, first))
    await begun.wait()
    asked = [asyncio.create_task(group_commit.ask(run, write)) for write in writes]
    await asyncio.sleep(0)
    go.set()
    assert await before is None
    return [
        each if isinstance(each, BaseException) else None
        for each in await asyncio.gather(*asked, return_exceptions=True)
    ]


async def test_what_is_asked_at_once_is_one_commit(store, commits):
    """Requests that arrive during a write share the next commit. Each is on disk when its caller gets the answer."""
    assert await at_once(store, *(say(str(number)) for number in range(5))) == [None] * 5
    assert words(store) == {"first", *"01234"} and len(commits) == 2


async def test_an_answer_comes_when_all_is_on_disk(store):
    """A call is answered only when the commit of its whole group is on disk."""
    seen: list[set[str]] = []
    real = store.engine.dialect.do_commit

    def late(connection):
        seen.append(words(store))
        real(connection)

    store.engine.dialect.do_commit = late
    await at_once(store, say("a"), say("b"))
    assert seen == [set(), {"first"}] and words(store) == {"first", "a", "b"}


async def test_a_call_that_fails_takes_back_its_own_alone(store):
    """A call that fails, by a wrong statement or an exception, is rolled back alone."""

    def wrong(connection: sa.Connection) -> None:
        say("wrong")(connection)
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

    def raising(connection: sa.Connection) -> None:
        say("raising")(connection)
        raise KeyError("no")

    before, failed, raised, after = await at_once(store, say("before"), wrong, raising, say("after"))
    assert before is None and after is None
    assert isinstance(failed, JournalError) and isinstance(raised, KeyError)
    assert words(store) == {"first", "before", "after"}
    with store.write() as connection:
        say("later")(connection)
    assert "later" in words(store)


async def test_a_transaction_that_the_database_takes_back_is_told_to_all_in_it(store):
    """If the database rolls a transaction back, as on a full disk, every call in it raises, and nothing is written."""

    def full(connection: sa.Connection) -> None:
        connection.connection.dbapi_connection.execute("ROLLBACK")
        raise sa.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    errors = await at_once(store, say("before"), full, say("after"))
    assert all(isinstance(error, JournalError) and "rolled the transaction back" in str(error) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert words(store) == {"first"}


async def test_a_commit_that_fails_is_told_to_all_in_it(store):
    """If a commit fails, every call in it raises."""
    real, failures = store.engine.dialect.do_commit, [None, sqlite3.OperationalError("disk I/O error")]

    def failing(connection):
        failure = failures.pop(0) if failures else None
        if failure is not None:
            raise failure
        real(connection)

    store.engine.dialect.do_commit = failing
    assert all(isinstance(error, JournalError) for error in await at_once(store, say("a"), say("b")))
    with store.write() as connection:
        say("later")(connection)
    assert words(store) == {"first", "later"}


async def test_a_call_reads_what_it_has_written(store):
    """A call reads its own writes before they are committed."""
    seen: list[int] = []

    def write_and_read(connection: sa.Connection) -> None:
        say("own")(connection)
        with store.read() as reading:
            seen.append(reading.exec_driver_sql("SELECT count(*) FROM told WHERE word = 'own'").scalar_one())

    assert await at_once(store, say("other"), write_and_read) == [None, None]
    assert seen == [1]


async def test_many_lose_nothing(store, commits):
    """Hundreds of writes on two loops, some of which fail, lose nothing and need far fewer commits than writes."""
    group_commit = GroupCommit(store)

    def run(number: int) -> None:
        with store.write() as connection:
            say(str(number))(connection)
            if number % 7 == 0:
                raise KeyError(number)

    async def some(numbers: range) -> dict[int, BaseException | None]:
        found = await asyncio.gather(*(group_commit.ask(run, n) for n in numbers), return_exceptions=True)
        return dict(zip(numbers, found, strict=True))

    here, there = await asyncio.gather(some(range(200)), asyncio.to_thread(asyncio.run, some(range(200, 400))))
    kept = {str(number) for number, error in {**here, **there}.items() if error is None}
    assert words(store) == kept == {str(number) for number in range(400) if number % 7}
    assert len(commits) < len(kept) / 4


def test_threads_take_turns(store):
    """A thread waits for another thread's write and does not fail as SQLite alone would."""

    def run(number: int) -> None:
        with store.write() as connection:
            say(str(number))(connection)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(run, range(200)))
    assert words(store) == {str(number) for number in range(200)}


def test_whoever_waits_too_long_goes_by_the_database(store, monkeypatch):
    """A thread that is stuck in its write does not block others for ever: SQLite then reports that it is busy."""
    monkeypatch.setattr(store._transactions, "_lock_timeout", 0.05)
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
    assert words(store) == {"through"}


async def test_a_journal_is_asked(sqlite_url):
    """A coroutine calls the journal's own methods, as tasks do."""
    with Journal.open(sqlite_url) as journal:
        run = (await journal.ask(journal.runs.open_attempt, RunIdentity("flow", "a.py:flow", {}, "1", "1"))).run.id
        numbers = [str(number) for number in range(64)]
        assert await asyncio.gather(*(journal.ask(journal.once.keep, run, n, n) for n in numbers)) == numbers
        assert [journal.once.get(run, number) for number in numbers] == numbers


async def test_first_claims_that_were_not_committed_are_claimed_again(sqlite_url):
    """If the first commit of a process fails, nothing of the process is in the journal, and its next claims succeed."""

    def wanted(number: int) -> NewIntent:
        told = {"platform": "p", "account": "a", "scope": "s", "noun": "order", "request": {"n": number}}
        return NewIntent(key=(key := key_of(**told)), base_key=key, **told)

    with Journal.open(sqlite_url) as journal:
        engine = journal._store.engine
        real = engine.dialect.do_commit

        def failing(connection):
            raise sqlite3.OperationalError("disk I/O error")

        engine.dialect.do_commit = failing
        asked = [journal.ask(journal.intents.claim, wanted(number)) for number in range(3)]
        failed = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, JournalError) for each in failed)
        engine.dialect.do_commit = real
        claims = await asyncio.gather(*(journal.ask(journal.intents.claim, wanted(number)) for number in range(3)))
        assert [claim.kind for claim in claims] == ["new"] * 3
        assert all(journal.intents.held(claim.intent) for claim in claims)


async def test_a_claim_whose_end_was_not_committed_can_still_be_given_back(sqlite_url):
    """A claim does not end if the commit of its outcome fails.

    Its caller can release it, and other processes get the key.
    """

    def wanted(number: int) -> NewIntent:
        told = {"platform": "p", "account": "a", "scope": "s", "noun": "order", "request": {"n": number}}
        return NewIntent(key=(key := key_of(**told)), base_key=key, **told)

    with Journal.open(sqlite_url) as journal:
        intents, engine = journal.intents, journal._store.engine
        sent = [intents.mark_sent(intents.claim(wanted(n)).intent) for n in range(3)]
        real = engine.dialect.do_commit

        def failing(connection):
            raise sqlite3.OperationalError("disk I/O error")

        engine.dialect.do_commit = failing
        outcome = {"urn": "urn:o", "outcome": {}, "how": "sent"}
        asked = [journal.ask(intents.settle, row, **outcome) for row in sent]
        failed = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, JournalError) for each in failed)
        engine.dialect.do_commit = real
        assert all(intents.held(row) for row in sent)
        for row in sent:
            intents.release(row)
        assert [(row.state, row.token) for row in intents.where()] == [("sent", None)] * 3


async def test_what_was_not_begun_when_its_caller_left_is_not_done(store):
    """Skip calls that were cancelled before they started: an order of a cancelled flow is not marked as sent."""
    group_commit, begun, go = GroupCommit(store), threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        assert go.wait(10)

    def run(word: str) -> None:
        with store.write() as connection:
            say(word)(connection)

    before = asyncio.create_task(group_commit.ask(first))
    await asyncio.to_thread(begun.wait, 10)
    asked = [asyncio.create_task(group_commit.ask(run, word)) for word in "ab"]
    await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(before, asked[1])
    assert words(store) == {"b"}


async def test_where_no_thread_can_be_had_all_who_ask_hear_of_it(store, monkeypatch):
    """If no thread can be started, as at the end of the interpreter, every caller gets the error.

    Later calls work as usual.
    """
    group_commit, heard = GroupCommit(store), []

    def elsewhere() -> None:
        with pytest.raises(RuntimeError) as caught:
            asyncio.run(group_commit.ask(lambda: None))
        heard.append(caught.value)

    other = threading.Thread(target=elsewhere, daemon=True)

    def refused(*_: object) -> None:
        other.start()
        while len(group_commit._asked) < 2:
            time.sleep(0.01)
        raise RuntimeError("no thread can be had")

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "run_in_executor", refused)
        with pytest.raises(RuntimeError, match="no thread"):
            await asyncio.wait_for(group_commit.ask(lambda: None), 10)
    await asyncio.to_thread(other.join, 10)
    assert [str(error) for error in heard] == ["no thread can be had"]
    assert await asyncio.wait_for(group_commit.ask(lambda: "done"), 10) == "done"
