"""The state of a file as `stat` reports it: tells whether the file was changed, without reading it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ivcap_flows.errors import InputError

__all__ = ["FileState", "reading"]


@dataclass(frozen=True)
class FileState:
    """The facts that a file system keeps about a file.

    Any program can set the size and the modification time, as `cp -p` does. No program can set the change time: the
    file system sets it at each write, rename and change of the other times. Device and inode identify the file.
    """

    size: int
    """In bytes."""
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileState:
        """Return the present state of a regular file. Raises InputError if there is none at the path."""
        with reading(path):
            found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{os.fspath(path)} is no regular file.", path=os.fspath(path))
        return cls.from_stat(found)

    @classmethod
    def to_send(cls, path: str | os.PathLike[str]) -> FileState:
        """Return the state of a file to send. Raises InputError for content without a size, as in `/proc`."""
        state, name = cls.of(path), os.fspath(path)
        with reading(path), open(path, "rb", buffering=0) as file:
            if not state.size and file.read(1):
                raise InputError(
                    f"{name} has content but no size. Pass it as a stream: open({name!r}, 'rb').", path=name
                )
        return state

    @classmethod
    def from_stat(cls, found: os.stat_result) -> FileState:
        """Return the state in a result of `os.stat`."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn a failure to read the file or folder at a path into an InputError that names it.

    A path that no file system can have, with a NUL or half a surrogate pair, is a ValueError in Python.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{os.fspath(path)} cannot be read: {reason}.", path=os.fspath(path)) from error
