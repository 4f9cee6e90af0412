"""The server of a monthly table, and platforms on which nothing was published yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcap_flows import local
from ivcap_flows.local import EmbeddedPlatform
from ivcap_flows.local.services.register import read_definition, register

sys.path.insert(0, str(Path(__file__).parent))

from table_server import TableServer, table_server

INDEX = Path(__file__).parents[2] / "flows/services/coastal_el_nino_index.yaml"


@pytest.fixture
def noaa() -> Iterator[TableServer]:
    """A real server on this machine, with the real series to the end of 2009."""
    with table_server() as server:
        yield server


@pytest.fixture
def platforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedPlatform]:
    """Embedded platforms of the test's own, with the service of the index."""
    embedded = local.ensure(tmp_path / "embedded", idle=600)
    for name, value in embedded.environment.items():
        monkeypatch.setenv(name, value)
    register(embedded.url, embedded.environment["IVCAP_JWT"], read_definition(INDEX), INDEX)
    yield embedded
    embedded.end()
