"""What every test gets: an environment without settings of the user's, and state in a temporary folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

OURS = ("IVCAP_", "PROVENA_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--crash-rounds", type=int, default=1, help="how often each kill test is repeated")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the caller's leaks in; the journal and the embedded platforms live in the test's own folder."""
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path / 'journal.sqlite'}")
    monkeypatch.setenv("IVCAP_LOCAL_DIR", str(tmp_path / "ivcap-artifacts"))
