"""A temporary SQLite file, in which a batch keeps what would otherwise grow in memory with the number of its rows."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PAGE", "SpoolFile"]

PAGE: Final = 500
"""Rows and values per query."""


class SpoolFile:
    """A database without a name: SQLite keeps it in memory while it is small, and deletes it however the process ends.

    Thread-safe. Use it as a context manager.
    """

    def __init__(self, schema: str) -> None:
        self._lock = threading.RLock()
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;" + schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A thread of a cancelled batch may be in the middle of a query; closing SQLite then would crash.
        with self._lock:
            self._database.close()

    def _all(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query."""
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def _among(self, query: str, values: Sequence[str]) -> Iterator[Any]:
        """Run a query that ends in `IN` for any number of values."""
        for start in range(0, len(values), PAGE):
            part = values[start : start + PAGE]
            yield from self._all(f"{query} ({','.join('?' * len(part))})", *part)

    def _many(self, statement: str, values: Iterable[Sequence[Any] | Mapping[str, Any]]) -> None:
        """Run a statement for each of these values, in one transaction."""
        with self._lock, self._database:
            self._database.execute("BEGIN")
            self._database.executemany(statement, values)
