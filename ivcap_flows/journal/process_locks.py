"""Locks that show which processes of this machine live: each holds one on a file of its own.

The kernel releases a lock when its process ends, whatever ended it, also for processes of other containers that share
the folder. It stays while the process is stopped (Ctrl-Z), and for a process of another user.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final, Literal

from ivcap_flows.forked import in_forked_child

__all__ = ["Life", "ProcessLocks"]

Life = Literal["alive", "dead", "unknown"]

_held: Final[dict[str, int]] = {}
"""The descriptors of the locks of this process, by its ids."""


class ProcessLocks:
    """The lock files of the processes that share a journal, in one folder; None: there are none.

    These are flock(2) locks: unlike fcntl's, they are not released when the process closes another descriptor of the
    file, as a backup does that reads the folder. A forked child would inherit them, and gives them back at once.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def hold(self, process: str) -> None:
        """Lock the file of this process until its end, or `release`. Where no file can be locked, do nothing."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self._folder / process, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Another thread of this process was first.
            os.close(file)
        except OSError:
            # A file without a lock would say that the process is dead.
            os.close(file)
            (self._folder / process).unlink(missing_ok=True)
        else:
            _held[process] = file

    def release(self, process: str) -> None:
        """Give up the lock of this process, if it holds one."""
        file = _held.pop(process, None)
        if file is not None:
            os.close(file)

    def life(self, process: str) -> Life:
        """Return whether another process lives; "unknown" if its file is not here, or cannot be read."""
        if self._folder is None:
            return "unknown"
        try:
            file = os.open(self._folder / process, os.O_RDONLY)
        except OSError:
            return "unknown"
        try:
            # Shared: two processes that look at the same moment do not take each other for the holder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "alive"
        except OSError:
            return "unknown"
        else:
            return "dead"
        finally:
            os.close(file)

    def forget(self, known: Collection[str]) -> None:
        """Delete the files of dead processes, but for those in `known`."""
        for file in self._folder.iterdir() if self._folder is not None and self._folder.is_dir() else ():
            if file.name not in known and self.life(file.name) == "dead":
                file.unlink(missing_ok=True)


def _give_back() -> None:
    """Leave the locks of a forked child to its parent."""
    for file in _held.values():
        os.close(file)
    _held.clear()


in_forked_child(_give_back)
