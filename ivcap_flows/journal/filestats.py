"""The sha256 of files that have not changed since it was computed."""

from __future__ import annotations

import platform
import time
from typing import Final

import sqlalchemy as sa

from ivcap_flows.journal import schema
from ivcap_flows.journal.store import Store

__all__ = ["FileStats"]

_F = schema.files
_CLOCK_GRAIN_NS: Final = 20_000_000


class FileStats:
    """A cache by machine, path, size, modification time and inode; another stat is another content."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # A database may serve many machines, whose paths have nothing in common.
        self._machine = "" if store.is_sqlite else f"{platform.node()}:"

    def known_sha256(self, path: str, *, size: int, mtime_ns: int, inode: int) -> str | None:
        """The digest of a file with just this stat, None if it was never remembered."""
        query = sa.select(_F.c.sha256).where(
            _F.c.path == self._machine + path, _F.c.size == size, _F.c.mtime_ns == mtime_ns, _F.c.inode == str(inode)
        )
        with self._store.read() as connection:
            found: str | None = connection.execute(query).scalar()
            return found

    def remember_sha256(self, path: str, *, size: int, mtime_ns: int, inode: int, sha256: str) -> None:
        """Keep a digest. A file changed within the last 20 ms is not kept: it can change again and look the same."""
        if time.time_ns() - mtime_ns < _CLOCK_GRAIN_NS:
            return
        with self._store.write() as connection:
            self._store.upsert(
                connection,
                _F,
                {
                    "path": self._machine + path,
                    "size": size,
                    "mtime_ns": mtime_ns,
                    "inode": str(inode),
                    "sha256": sha256,
                },
            )
