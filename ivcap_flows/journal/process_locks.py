"""Locks that show which processes of this machine live: each holds one on a file of its own.

The kernel releases a lock when its process ends, whatever ended it, also for processes of other containers that share
the folder. It stays while the process is stopped (Ctrl-Z), and for a process of another user.

A file without a lock proves a death only if it is the very file that was locked: no file of a copied folder is locked.
So `hold` returns what identifies the file, the journal keeps it, and `life` compares. Where the file will not be, the
journal keeps `ENDED` in its place.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from ivcap_flows.forked import PerProcess, in_forked_child

__all__ = ["ENDED", "Life", "ProcessLocks", "boot_id"]

Life = Literal["alive", "dead", "unknown"]

ENDED: Final = "ended"
"""Stands for the lock of a process that was proven dead by it."""
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_IN_MAKING: Final = ".new"
_held: Final[dict[Path, int]] = {}
"""The descriptors of the files that this process has locked."""
_turn: Final = PerProcess(threading.Lock)


class ProcessLocks:
    """The lock files of the processes that share a journal, in one folder; None: there are none.

    `boot` identifies the run of the kernel, where other machines may have the same folder; see `boot_id`.

    These are flock(2) locks: unlike fcntl's, they are not released when the process closes another descriptor of the
    file, as a backup does that reads the folder. A forked child would inherit them, and gives them back at once.
    """

    def __init__(self, folder: Path | None, boot: str = "") -> None:
        self._folder, self._boot = folder, boot

    def hold(self, process: str) -> str | None:
        """Lock a file for this process until its end, or `release`. Return what identifies the file.

        Return None where no file can be locked, and a lock would hold nobody.
        """
        if self._folder is None:
            return None
        path = self._folder / process
        with _turn():
            with suppress(KeyError, OSError):
                return self._identity(_held[path])
            # Not locked yet, or the process has closed all its descriptors.
            _held.pop(path, None)
            self._lock(path)
            return self._identity(_held[path]) if path in _held else None

    def _lock(self, path: Path) -> None:
        # The file gets its name when it is locked. So nobody finds it before, neither to ask nor to delete it.
        unnamed = self._in_making(path)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Noted first, so that a child that another thread forks now closes it.
            _held[path] = os.open(unnamed, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(_held[path], fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._keeps_out(unnamed):
                unnamed.replace(path)
                return
        self.release(path.name)
        with suppress(OSError):
            unnamed.unlink()

    @staticmethod
    def _in_making(path: Path) -> Path:
        return path.with_name(path.name + _IN_MAKING)

    @staticmethod
    def _keeps_out(path: Path) -> bool:
        """Return whether there is a lock on a file that keeps others out: on some file systems, flock does nothing."""
        file = os.open(path, os.O_RDONLY)
        try:
            return _is_locked(file)
        finally:
            os.close(file)

    def _identity(self, file: int) -> str:
        status = os.fstat(file)
        return f"{self._boot} {status.st_dev} {status.st_ino}"

    def release(self, process: str) -> None:
        """Give up the lock of this process, if it holds one."""
        file = None if self._folder is None else _held.pop(self._folder / process, None)
        if file is not None:
            os.close(file)

    def life(self, process: str, lock: str | None) -> Life:
        """Return whether another process lives, whose `hold` returned `lock`.

        "unknown" if it has no lock, if its file is not here or cannot be read, and if the file here is another one.
        """
        if lock == ENDED:
            return "dead"
        if self._folder is None or lock is None:
            return "unknown"
        try:
            file = os.open(self._folder / process, os.O_RDONLY)
        except OSError:
            return "unknown"
        try:
            if _is_locked(file):
                return "alive"
            return "dead" if self._identity(file) == lock else "unknown"
        except OSError:
            return "unknown"
        finally:
            os.close(file)

    def forget(self, known: Collection[str]) -> None:
        """Delete the files without a lock, but for those of the processes in `known`."""
        for path in self._folder.iterdir() if self._folder is not None and self._folder.is_dir() else ():
            with suppress(OSError):
                if path.name not in known and path.suffix != _IN_MAKING and not self._keeps_out(path):
                    path.unlink()


def boot_id() -> str | None:
    """Return what identifies this run of this machine's kernel, or None if the system does not say.

    A machine that starts from a copy of another's disk has files of the same device and inode, and another boot id.
    """
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _is_locked(file: int) -> bool:
    """Return whether another descriptor has locked a file. Raise OSError if that cannot be known."""
    try:
        # Shared: two processes that look at the same moment do not take each other for the holder.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _give_back() -> None:
    """Leave the locks of a forked child to its parent."""
    for file in _held.values():
        os.close(file)
    _held.clear()


in_forked_child(_give_back)
