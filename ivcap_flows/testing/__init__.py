"""Pytest fixtures to test flows on the embedded platforms. Pytest loads them wherever the package is installed.

They import the package when a test first uses one. A test then looks like this:

    def test_my_flow(embedded_platform, ivcap_journal):
        my_flow()
        assert len(embedded_platform.requests("POST", "/1/orders")) == 1
        [run] = ivcap_journal.runs.recent()
        assert run.outcome == "completed"
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal
    from ivcap_flows.local import EmbeddedPlatform, PlatformControl

__all__ = ["embedded_platform", "ivcap_journal", "strict_recording"]


_RECORDING: Final = "ivcap_flows.capture"
"""The logger of what could not be recorded."""
_LONGEST: Final = 10.0
"""Seconds to wait for the recorder."""
_OTHER_LOGINS: Final = (
    "IVCAP_ACCESS_TOKEN",
    "IVCAP_BASE_URL",
    "IVCAP_CONTEXT",
    "IVCAP_FLOWS_IVCAP_BLOCK",
    "IVCAP_FLOWS_PROVENA_BLOCK",
    "PROVENA_CLIENT_SECRET",
    "PROVENA_DOMAIN",
)
"""The settings of real platforms that those of the embedded ones do not replace."""
_IDLE: Final = 3600.0
"""Seconds that a session may spend on tests that do not use the platforms, before these end."""


@pytest.fixture(scope="session")
def _embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPlatform]:
    from ivcap_flows import local

    embedded = local.ensure(tmp_path_factory.mktemp("embedded"), idle=_IDLE)
    yield embedded
    embedded.end_with_jobs()
    # Prefect's temporary server stops later and says so, when pytest has closed what it captured.
    logging.getLogger("prefect").setLevel(logging.WARNING)


@pytest.fixture
def embedded_platform(_embedded: EmbeddedPlatform, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlatformControl]:
    """Run one embedded platform for all tests of a session, and point the environment to it, whatever that named.

    The control object can inject faults, list the requests of the test, set the platform's clock, and make the platform
    as slow and limited as production (`be_like`). The platform and its jobs end with the session.
    """
    from ivcap_flows.local import PlatformControl

    control = PlatformControl(_embedded)
    control.clear_faults()
    control.forget_requests()
    for name in _OTHER_LOGINS:
        monkeypatch.delenv(name, raising=False)
    for name, value in _embedded.environment.items():
        monkeypatch.setenv(name, value)
    yield control
    control.clear_faults()
    control.reset_clock()
    control.be_itself()


@pytest.fixture
def ivcap_journal(tmp_path: Path) -> Iterator[Journal]:
    """Open an empty journal that records everything the test runs."""
    from ivcap_flows.capture import use_journal
    from ivcap_flows.journal import Journal

    with Journal.open(f"sqlite:///{tmp_path / 'journal.sqlite'}") as journal, use_journal(journal):
        yield journal


@pytest.fixture
def strict_recording() -> Iterator[None]:
    """Fail the test if an error kept something of what it ran from being recorded. A flow only logs such an error."""
    from ivcap_flows.capture.recorder_registry import process_recorder

    failures = _Failures()
    logger = logging.getLogger(_RECORDING)
    logger.addHandler(failures)
    try:
        yield
        recorder = process_recorder()
        if recorder is not None:
            recorder.flush(_LONGEST)
    finally:
        logger.removeHandler(failures)
    if failures.told:
        pytest.fail("\n\n".join(failures.told), pytrace=False)


class _Failures(logging.Handler):
    """Keeps the warnings about errors in recording, each with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning that comes with an error."""
        if record.exc_info or record.exc_text:
            self.told.append(self.format(record))
