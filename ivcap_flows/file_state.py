"""What tells whether a file was changed, without reading it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from ivcap_flows.errors import InputError

__all__ = ["FileState"]


@dataclass(frozen=True)
class FileState:
    """The facts that a file system keeps of a file.

    The size and the modification time can be set by anybody, as `cp -p` does. The change time can not: the file system
    sets it at each write, rename and change of the other times. Device and inode tell one file from another.
    """

    size: int
    """In bytes."""
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileState:
        """The state of a regular file now. Raises InputError when there is none at the path."""
        try:
            found = os.stat(path)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError(f"{os.fspath(path)} cannot be read: {reason}.", path=os.fspath(path)) from error
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{os.fspath(path)} is no regular file.", path=os.fspath(path))
        return cls.from_stat(found)

    @classmethod
    def from_stat(cls, found: os.stat_result) -> FileState:
        """The state that a call of `stat` has found."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
