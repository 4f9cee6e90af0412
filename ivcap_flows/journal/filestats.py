"""The sha256 of files that have not changed since it was computed."""

from __future__ import annotations

import platform
from datetime import datetime

import sqlalchemy as sa

from ivcap_flows.file_state import FileState
from ivcap_flows.journal import schema
from ivcap_flows.journal.store import Store
from ivcap_flows.secrets import holds_secret

__all__ = ["FileStats"]

_F = schema.files


class FileStats:
    """A cache by machine and path. A file whose state differs counts as changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # A PostgreSQL database may serve many machines, and the same path differs from machine to machine.
        self._machine = "" if store.is_sqlite else f"{platform.node()}:"

    def known_sha256(self, path: str, state: FileState) -> str | None:
        """Return the digest of a file in exactly this state, or None if it is not known."""
        row = self._row(path, state)
        query = sa.select(_F.c.sha256).where(*(_F.c[name] == value for name, value in row.items()))
        with self._store.read() as connection:
            found: str | None = connection.execute(query).scalar()
            return found

    def remember_sha256(self, path: str, state: FileState, sha256: str) -> None:
        """Store the digest of a file in this state.

        The caller must make sure that the file cannot change again and keep the same state. A path that contains a
        secret is not stored.
        """
        if holds_secret(path):
            return
        with self._store.write() as connection:
            told = {"sha256": sha256, "recorded_at": self._store.now(connection)}
            self._store.upsert(connection, _F, {**self._row(path, state), **told})

    def forget(self, path: str) -> None:
        """Delete the digest of a file."""
        with self._store.write() as connection:
            connection.execute(sa.delete(_F).where(_F.c.path == self._machine + path))

    def prune(self, before: datetime) -> None:
        """Delete the digests that were stored before. A file that is still in use is read once more."""
        with self._store.write() as connection:
            connection.execute(sa.delete(_F).where(_F.c.recorded_at < before))

    def _row(self, path: str, state: FileState) -> dict[str, str | int]:
        return {
            "path": self._machine + path,
            "size": state.size,
            "mtime_ns": state.mtime_ns,
            "ctime_ns": state.ctime_ns,
            "inode": str(state.inode),
            "device": str(state.device),
        }
