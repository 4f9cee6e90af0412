"""Places for files that are being written, which are gone afterwards, even where their writer was killed."""

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
"""A file in each part that its writer keeps locked: the kernel gives it free when the writer dies."""


@contextmanager
def part(folder: Path) -> Iterator[Path]:
    """A new folder within `folder`, removed in the end. Those of dead writers are removed before."""
    _remove_stale(folder)
    while True:
        own = Path(tempfile.mkdtemp(dir=folder, prefix=_PREFIX))
        try:
            lock = _locked(own, os.O_CREAT)
        except OSError:
            # A file system without locks, where none of them is ever taken for stale.
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
    """Make a folder where there is none, and have it on disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, where the file system has a call for that."""
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
        # What is no part, is another user's, or lies on a file system without locks, stays.
        with contextlib.suppress(OSError):
            if any(other.iterdir()):
                lock = _locked(other)
                if lock is not None:
                    shutil.rmtree(other, ignore_errors=True)
                    os.close(lock)
            else:
                other.rmdir()


def _locked(own: Path, flags: int = 0) -> int | None:
    """The lock of a part; None where there is none or another has it. OSError where the file system has no locks."""
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
