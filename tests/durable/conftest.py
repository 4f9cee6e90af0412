"""A journal on either database, and a platform that misbehaves on demand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcap_flows.journal import Journal

sys.path.insert(0, str(Path(__file__).parent))

from durable_platform import Platform


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def durable_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty journal, on either database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def durable_journal(durable_url: str) -> Iterator[Journal]:
    with Journal.open(durable_url) as journal:
        yield journal


@pytest.fixture
def platform() -> Platform:
    return Platform()
