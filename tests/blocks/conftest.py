"""Prefect's API, where blocks are saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def prefect_api(prefect_settings: dict[Any, Any]) -> Iterator[None]:
    from prefect.settings import temporary_settings

    with temporary_settings(prefect_settings):
        yield
