"""What coroutines ask of a journal at once shares a commit; none is answered before it, none suffers from another's
failure, and threads take turns."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from on_record import wanted

from ivcap_flows.errors import JournalError
from ivcap_flows.journal.group_commit import GroupCommit
from ivcap_flows.journal.store import Store
from ivcap_flows.journal.transactions import Transactions


@pytest.fixture
def store(sqlite_url):
    made = Store(sqlite_url)
    with made.write() as connection:
        connection.exec_driver_sql("CREATE TABLE told (word TEXT)")
    yield made
    made.close()


@pytest.fixture
def commits(store):
    """What is on disk right before each commit."""
    seen = []
    sa.event.listen(store.engine, "commit", lambda connection: seen.append(words(store)))
    return seen


def words(store):
    """What is on disk, as another connection sees it."""
    with sqlite3.connect(store.engine.url.database) as connection:
        return {word for (word,) in connection.execute("SELECT word FROM told")}


def say(word):
    return lambda connection: connection.execute(sa.text("INSERT INTO told VALUES (:word)"), {"word": word})


async def at_once(store, *writes):
    """Request all of these while another write is under way. Return what each of them raised."""
    group_commit, begun, go = GroupCommit(store), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def first(connection):
        say("first")(connection)
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(10)

    def run(write):
        with store.write() as connection:
            write(connection)

    before = asyncio.create_task(group_commit.ask(run, first))
    await begun.wait()
    asked = [asyncio.create_task(group_commit.ask(run, write)) for write in writes]
    await asyncio.sleep(0)
    go.set()
    assert await before is None
    found = await asyncio.gather(*asked, return_exceptions=True)
    return [each if isinstance(each, BaseException) else None for each in found]


async def test_what_is_asked_at_once_is_one_commit(store, commits):
    """Requests that arrive during a write share the next commit. Each is on disk when its caller gets the answer, and
    reads its own writes before."""
    seen = []

    def write_and_read(connection):
        say("own")(connection)
        with store.read() as reading:
            seen.append(reading.exec_driver_sql("SELECT count(*) FROM told WHERE word = 'own'").scalar_one())

    assert await at_once(store, *(say(str(number)) for number in range(5)), write_and_read) == [None] * 6
    assert words(store) == {"first", "own", *"01234"}
    assert commits == [set(), {"first"}] and seen == [1]


async def test_a_call_that_fails_takes_back_its_own_alone(store):
    """A call that fails, by a wrong statement or an exception, is rolled back alone."""

    def wrong(connection):
        say("wrong")(connection)
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")

    def raising(connection):
        say("raising")(connection)
        raise KeyError("no")

    before, failed, raised, after = await at_once(store, say("before"), wrong, raising, say("after"))
    assert before is None and after is None
    assert isinstance(failed, JournalError) and isinstance(raised, KeyError)
    with store.write() as connection:
        say("later")(connection)
    assert words(store) == {"first", "before", "after", "later"}


async def test_a_transaction_that_the_database_takes_back_is_told_to_all_in_it(store):
    """If the database rolls a transaction back, as on a full disk, every call in it raises, and nothing is written."""

    def full(connection):
        connection.connection.dbapi_connection.execute("ROLLBACK")
        raise sa.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    errors = await at_once(store, say("before"), full, say("after"))
    assert all(isinstance(error, JournalError) and "rolled the transaction back" in str(error) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert words(store) == {"first"}


async def test_many_lose_nothing(store, commits):
    """Hundreds of writes on two loops, some of which fail, lose nothing and need far fewer commits than writes."""
    group_commit = GroupCommit(store)

    def run(number):
        with store.write() as connection:
            say(str(number))(connection)
            if number % 7 == 0:
                raise KeyError(number)

    async def some(numbers):
        found = await asyncio.gather(*(group_commit.ask(run, n) for n in numbers), return_exceptions=True)
        return {number for number, error in zip(numbers, found, strict=True) if error is None}

    here, there = await asyncio.gather(some(range(200)), asyncio.to_thread(asyncio.run, some(range(200, 400))))
    assert here | there == {number for number in range(400) if number % 7}
    assert words(store) == {str(number) for number in here | there}
    assert len(commits) < len(here | there) / 4


def test_threads_take_turns(store):
    """A thread waits for another thread's write and does not fail as SQLite alone would."""

    def run(number):
        with store.write() as connection:
            say(str(number))(connection)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(run, range(200)))
    assert words(store) == {str(number) for number in range(200)}


def test_whoever_waits_too_long_goes_by_the_database(store):
    """A thread that is stuck in its write does not block others for ever: SQLite then reports that it is busy."""
    transactions = Transactions(store.engine, lock_timeout=0.05, begun=lambda _: None)
    stuck, go = threading.Event(), threading.Event()

    def hold():
        with transactions.transaction():
            stuck.set()
            assert go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert stuck.wait(10)
    threading.Timer(0.2, go.set).start()
    with transactions.transaction() as connection:
        say("through")(connection)
    holder.join()
    assert words(store) == {"through"}


async def test_a_commit_that_fails_is_told_to_all_in_it(sqlite_journal, failing_commits):
    """A claim that was not committed can be made again, also as the first of a process. One whose outcome was not has
    not ended: its caller can release it, and others get the key."""
    intents, store = sqlite_journal.intents, sqlite_journal._store

    async def ask(call, some, **more):
        return await asyncio.gather(*(sqlite_journal.ask(call, each, **more) for each in some), return_exceptions=True)

    some = [wanted(f"k{number}") for number in range(3)]
    with failing_commits(store):
        assert all(isinstance(error, JournalError) for error in await ask(intents.claim, some))
    claims = await ask(intents.claim, some)
    assert [claim.kind for claim in claims] == ["new"] * 3
    sent = await ask(intents.mark_sent, [claim.intent for claim in claims])
    with failing_commits(store):
        failed = await ask(intents.settle, sent, urn="urn:o", outcome={}, how="sent")
    assert all(isinstance(error, JournalError) for error in failed)
    assert all(intents.held(row) for row in sent)
    for row in sent:
        intents.release(row)
    assert [(row.state, row.token) for row in intents.where()] == [("sent", None)] * 3


async def test_what_was_not_begun_when_its_caller_left_is_not_done(store):
    """Skip calls that were cancelled before they started: an order of a cancelled flow is not marked as sent."""
    group_commit, begun, go = GroupCommit(store), threading.Event(), threading.Event()

    def first():
        begun.set()
        assert go.wait(10)

    def run(word):
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

    def elsewhere():
        with pytest.raises(RuntimeError) as caught:
            asyncio.run(group_commit.ask(lambda: None))
        heard.append(str(caught.value))

    other = threading.Thread(target=elsewhere, daemon=True)

    def refused(*_):
        other.start()
        while len(group_commit._asked) < 2:
            time.sleep(0.01)
        raise RuntimeError("no thread can be had")

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.get_running_loop(), "run_in_executor", refused)
        with pytest.raises(RuntimeError, match="no thread"):
            await asyncio.wait_for(group_commit.ask(lambda: None), 10)
    await asyncio.to_thread(other.join, 10)
    assert heard == ["no thread can be had"]
    assert await asyncio.wait_for(group_commit.ask(lambda: "done"), 10) == "done"
