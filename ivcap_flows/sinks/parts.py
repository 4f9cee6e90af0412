"""Write a file so that its name only ever has a whole one."""

from __future__ import annotations

import errno
import glob
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["made", "sync_folder", "whole"]


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Yield the path of a file to write beside `target`, and give it that name at the end, on disk.

    If the block fails, nothing is left. What a killed writer of this target left is removed first. If that writer was
    only suspended, it fails at the end, and can begin again.
    """
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        left.unlink(missing_ok=True)
    own = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield own
        with own.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(own, target)
    except BaseException:
        own.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


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
