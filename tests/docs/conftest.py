"""One Prefect server in the test's process for all examples of the pages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.testing.utilities import prefect_test_harness

# Test modules are imported one by one, so what they share has to be found.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def docs_prefect() -> Iterator[None]:
    """Ends with the examples, so that no other test meets it. Heartbeats are off: they would outlive a flow."""
    quiet = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOGGING_TO_API_ENABLED: False}
    with prefect_test_harness(), temporary_settings(quiet):
        yield
