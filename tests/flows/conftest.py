"""Platforms on which nothing was published yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from on_platforms import register_examples

from ivcap_flows import local
from ivcap_flows.local import EmbeddedPlatform

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def platforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedPlatform]:
    """Embedded platforms of the test's own, with the services of the examples."""
    embedded = local.ensure(tmp_path / "embedded", idle=600)
    try:
        for name, value in embedded.environment.items():
            monkeypatch.setenv(name, value)
        register_examples(embedded)
        yield embedded
    finally:
        embedded.end()
