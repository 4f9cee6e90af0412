"""The Prefect server that all examples of the pages report to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import (
    temporary_settings,
)

# Test modules are imported one by one, so what they share has to be found; and so has what makes the pages.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "docs")]


@pytest.fixture(scope="module")
def docs_prefect(prefect_settings: dict[Any, Any]) -> Iterator[None]:
    """Heartbeats are off: they would outlive a flow."""
    with temporary_settings(prefect_settings):
        yield
