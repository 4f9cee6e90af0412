"""Write a file so that its name only ever has a whole one, which is on disk."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ensure_folder", "sync_folder", "whole_file", "write_private"]


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside `target`. At the end, sync it to disk and let it replace `target`.

    If the block fails, nothing is left. What a killed writer of this target left is removed first. If that writer was
    only suspended, it fails at the end, and can begin again.
    """
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        leftover.unlink(missing_ok=True)
    # Not by `mkstemp`: the file has the mode that the user's umask gives.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def write_private(target: Path, text: str) -> None:
    """Let a file with this text replace `target`; its owner alone can read it. Raise OSError if that fails.

    Once it returns, text and name are on disk. A full disk or a kill leaves no part of a file under this name.
    """
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # of mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def ensure_folder(folder: Path) -> None:
    """Make a folder if it does not exist, and sync the names of all new folders to disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, if it may be read and the file system has a call for that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
