"""The recorder of this process for each journal, and the choice of the journal to record into."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ivcap_flows.capture.record_writer import Recorder
from ivcap_flows.errors import ConfigurationError
from ivcap_flows.forked import PerProcess
from ivcap_flows.in_prefect.events import emit

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal

__all__ = ["BACK_OFF", "back_off", "is_backing_off", "journal", "process_recorder", "recorder", "use_journal"]

BACK_OFF: Final = 30.0
"""Seconds for which a journal that could not be reached is left alone."""


@dataclass
class _Recorders:
    lock: threading.Lock = field(default_factory=threading.Lock)
    by_url: dict[str, Recorder] = field(default_factory=dict)


_recorders: Final = PerProcess(_Recorders)
"""A forked child must not use its parent's connections."""
_override: Recorder | None = None
_backing_off: tuple[Recorder | str, float] = "", 0.0
"""The journal that could not be reached, and until when it is left alone, by the clock of `time.monotonic`."""


def recorder() -> Recorder:
    """Return the recorder of the journal that the environment names. The first use opens the journal."""
    if _override is not None:
        return _override
    url, known = _named(), _recorders()
    found = known.by_url.get(url)
    if found is None:
        with known.lock:
            found = known.by_url.get(url)
            if found is None:
                from ivcap_flows.journal import Journal
                from ivcap_flows.settings import Settings

                opened = Journal.open(Settings.current().journal)
                opened.observe(emit)
                found = known.by_url[url] = Recorder(opened)
    return found


def process_recorder() -> Recorder | None:
    """Return the recorder if its journal is open already, otherwise None."""
    return _override or _recorders().by_url.get(_named())


def _named() -> str:
    return os.environ.get("IVCAP_FLOWS_JOURNAL", "")


def back_off() -> None:
    """Leave the journal alone for a while: if it is down, every task would wait for it."""
    global _backing_off
    _backing_off = _override or _named(), time.monotonic() + BACK_OFF


def is_backing_off() -> bool:
    """Whether the journal in use is left alone now."""
    which, until = _backing_off
    return time.monotonic() < until and which == (_override or _named())


def journal(*, deployed: bool = False) -> Journal:
    """Return this process's journal. Raises JournalError or ConfigurationError if it cannot be opened.

    Set `deployed` if the run belongs to a deployment: such a run is refused a journal by a relative path, since the
    folder in which a worker runs it, and with it the journal, is often another one each time.
    """
    found = recorder().journal
    if deployed and found.is_relative:
        raise ConfigurationError(
            f"The journal {found.url} of this deployed run has a relative path, and so is another one in each folder "
            "in which a worker runs it. Name an absolute path in IVCAP_FLOWS_JOURNAL, as in `sqlite:////data/flows/"
            "journal.sqlite`, or a PostgreSQL database."
        )
    return found


@contextlib.contextmanager
def use_journal(other: Journal) -> Iterator[Recorder]:
    """Record into another journal than the environment's while the block runs, in all threads of the process."""
    global _override
    other.observe(emit)
    before, _override = _override, Recorder(other)
    try:
        yield _override
    finally:
        _override.close()
        _override = before
