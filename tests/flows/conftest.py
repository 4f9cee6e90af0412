"""The server of a monthly table, for the tests that extract one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from table_server import TableServer, table_server


@pytest.fixture
def noaa() -> Iterator[TableServer]:
    """A real server on this machine, with the real series to the end of 2009."""
    with table_server() as server:
        yield server
