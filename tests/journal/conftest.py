"""An empty database, and a journal in it, on both kinds of database."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ivcap_flows.journal import Journal


@pytest.fixture
def new_database(postgresql_server: str) -> Callable[[], str]:
    """Makes an empty database; gives its URL."""

    def make() -> str:
        name = f"j{uuid.uuid4().hex}"
        with psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return postgresql_server.format(name)

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a journal that is still to be made."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state' / 'journal.sqlite'}"
    make: Callable[[], str] = request.getfixturevalue("new_database")
    return make()


@pytest.fixture
def journal(journal_url: str) -> Iterator[Journal]:
    with Journal.open(journal_url) as opened:
        yield opened
