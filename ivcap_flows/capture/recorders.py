"""The recorder of this process for each journal: which journal is recorded into, and by whom."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ivcap_flows.capture.writer import Recorder

if TYPE_CHECKING:
    from ivcap_flows.journal import Journal

__all__ = ["journal", "process_recorder", "recorder", "use_journal"]

_lock = threading.Lock()
_recorders: dict[str, Recorder] = {}
_override: Recorder | None = None


def _forget_parent() -> None:
    """In a forked child: connections of the parent's must not be used."""
    global _lock
    _lock = threading.Lock()
    _recorders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def recorder() -> Recorder:
    """The recorder of the journal that the environment names, opened at the first use."""
    if _override is not None:
        return _override
    url = os.environ.get("IVCAP_FLOWS_JOURNAL", "")
    found = _recorders.get(url)
    if found is None:
        with _lock:
            found = _recorders.get(url)
            if found is None:
                from ivcap_flows.journal import Journal
                from ivcap_flows.settings import Settings

                found = _recorders[url] = Recorder(Journal.open(Settings.current().journal))
    return found


def process_recorder() -> Recorder | None:
    """The recorder if the journal was opened already, and None otherwise."""
    return _override or _recorders.get(os.environ.get("IVCAP_FLOWS_JOURNAL", ""))


def journal() -> Journal:
    """This process's journal. JournalError or ConfigurationError if it cannot be opened."""
    return recorder().journal


@contextlib.contextmanager
def use_journal(other: Journal) -> Iterator[Recorder]:
    """Record into another journal than the environment's while the block runs, in all threads of the process."""
    global _override
    before, _override = _override, Recorder(other)
    try:
        yield _override
    finally:
        _override.close()
        _override = before
