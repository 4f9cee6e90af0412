"""A journal that is still to be made, and one that is made and empty, on both databases."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ivcap_flows.journal import Journal


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
    return new_database(request.getfixturevalue("postgresql_server"))


@pytest.fixture
def journal(journal_url: str) -> Iterator[Journal]:
    with Journal.open(journal_url) as opened:
        yield opened
