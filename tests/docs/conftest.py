"""The Prefect server that all examples of the pages report to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

# Test modules are imported one by one, so what they share has to be found.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def docs_prefect(prefect_server: dict[str, str]) -> Iterator[None]:
    """Heartbeats are off: they would outlive a flow."""
    settings = {
        PREFECT_API_URL: prefect_server["PREFECT_API_URL"],
        PREFECT_HOME: prefect_server["PREFECT_HOME"],
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_LOGGING_TO_API_ENABLED: False,
    }
    with temporary_settings(settings):
        yield
