"""Writes that failed because the journal could not be written. They are repeated until it can."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ivcap_flows.errors import JournalError
from ivcap_flows.secrets import logger_of

__all__ = ["Untold"]

logger = logger_of("ivcap_flows.journal")


class Untold:
    """The writes that this process still owes one journal, oldest first. Each may happen twice."""

    def __init__(self) -> None:
        self._writes: deque[Callable[[], object]] = deque()
        self.heard: Callable[[], object] = lambda: None
        """Called when a write is added, to let somebody repeat it."""

    def __bool__(self) -> bool:
        return bool(self._writes)

    def add(self, write: Callable[[], object]) -> None:
        """Add a write that failed."""
        self._writes.append(write)
        self.heard()

    def forget(self) -> None:
        """Leave the writes to others: this process is a fork of the one that owes them."""
        self._writes.clear()

    def write(self) -> None:
        """Repeat the writes. Raise JournalError if the journal still cannot be written."""
        while self._writes:
            write = self._writes[0]
            try:
                write()
            except JournalError as error:
                if error.retryable:
                    raise
                logger.warning("The journal cannot be told what happened: %s", error)
            with suppress(ValueError):  # another thread has written it
                self._writes.remove(write)
