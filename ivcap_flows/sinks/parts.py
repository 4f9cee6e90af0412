"""Folders for files that are being written. They are removed afterwards, even if their writer was killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["made", "part", "sync_folder"]

_PREFIX: Final = ".part-"
_LOCK: Final = "lock"
"""A file in each part that its writer keeps locked. The kernel releases the lock when the writer dies."""


@contextmanager
def part(folder: Path) -> Iterator[Path]:
    """Make a new folder within `folder`, and remove it at the end. First remove those of dead writers."""
    _remove_stale(folder)
    while True:
        own = Path(tempfile.mkdtemp(dir=folder, prefix=_PREFIX))
        try:
            lock = _locked(own, os.O_CREAT)
        except OSError:
            # A file system without locks. There, no part is ever taken for stale.
            lock = -1
        if lock is not None:
            break
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        if lock >= 0:
            os.close(lock)


def made(folder: Path) -> None:
    """Make a folder if it does not exist, and sync it to disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, if the file system has a call for that."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(opened)


def _remove_stale(folder: Path) -> None:
    for other in folder.glob(f"{_PREFIX}*"):
        # Leave what is not a part, what belongs to another user, and parts on a file system without locks.
        with contextlib.suppress(OSError):
            if any(other.iterdir()):
                lock = _locked(other)
                if lock is not None:
                    shutil.rmtree(other, ignore_errors=True)
                    os.close(lock)
            else:
                other.rmdir()


def _locked(own: Path, flags: int = 0) -> int | None:
    """Return the lock of a part; None if there is none or another has it. Raises OSError if locks do not work."""
    try:
        lock = os.open(own / _LOCK, os.O_RDWR | flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(own / _LOCK).st_ino == os.fstat(lock).st_ino:
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None
