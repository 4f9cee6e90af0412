"""The writes of one process to an SQLite database: they take turns, and those of one thread can share a commit."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError

__all__ = ["Transactions"]


class Transactions:
    """Transactions on SQLite. Each waits for the disk at its end, which is most of what a small write costs."""

    def __init__(self, engine: Engine, *, lock_timeout: float, on_commit: Callable[[str, int], None]) -> None:
        """`on_commit` is told, after each commit, the journal's id and how many there were."""
        self._engine = engine
        self._lock_timeout = lock_timeout
        self._on_commit = on_commit
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._turn = threading.Lock()
        self._mine = threading.local()
        self._process = os.getpid()

    @property
    def shared(self) -> Connection | None:
        """The connection of the block of `together` that this thread is in."""
        return getattr(self._mine, "connection", None)

    def when_on_disk(self, call: Callable[[], None]) -> None:
        """Call this once what the thread has written is on disk: now, or after the commit of the block of `together`
        that it is in. Where that fails, it is not called."""
        if self.shared is None:
            call()
        else:
            self._mine.later.append(call)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A write that is on disk when the block ends, or the block of `together` that it is in; what fails is taken
        back alone. Raises SQLAlchemyError where it is not."""
        shared = self.shared
        if shared is None:
            with self._own() as connection:
                yield connection
            return
        if not _stands(shared):
            raise _taken_back()
        # SQLAlchemy's own savepoints cost as much as the write.
        shared.exec_driver_sql("SAVEPOINT own")
        try:
            yield shared
        except BaseException:
            if _stands(shared):
                shared.exec_driver_sql("ROLLBACK TO own")
                shared.exec_driver_sql("RELEASE own")
            raise
        shared.exec_driver_sql("RELEASE own")

    @contextmanager
    def together(self) -> Iterator[None]:
        """All writes of this thread in the block are one transaction. Raises SQLAlchemyError as `transaction` does."""
        later: list[Callable[[], None]] = []
        with self._own() as connection:
            self._mine.connection, self._mine.later = connection, later
            try:
                yield
            finally:
                del self._mine.connection, self._mine.later
        for call in later:
            call()

    @contextmanager
    def _own(self) -> Iterator[Connection]:
        if self._process != os.getpid():
            # In a forked child nobody would ever give back what a thread of the parent held.
            self._begin_anew()
        # Whoever holds the turn for so long is stuck; the database itself then decides who may write.
        turn = self._turn
        took = turn.acquire(timeout=self._lock_timeout)
        try:
            with self._engine.connect() as plain:
                connection = plain.execution_options(writes=True)
                with connection.begin():
                    before = _driver(connection).total_changes
                    yield connection
                    if not _stands(connection):
                        raise _taken_back()
                    # What changed nothing needs no commit, so the count must not make it one.
                    changed = _driver(connection).total_changes != before
                    counted = _count(connection) if changed else None
                if counted is not None:
                    self._on_commit(*counted)
        finally:
            if took:
                turn.release()


def _taken_back() -> SQLAlchemyError:
    return InvalidRequestError("the database has taken the transaction back")


def _stands(connection: Connection) -> bool:
    """Whether the transaction is open; after some errors, such as a full disk, SQLite has ended it by itself."""
    driver = _driver(connection)
    return driver is not None and driver.in_transaction


def _count(connection: Connection) -> tuple[str, int]:
    """Count the transaction within itself, so that the count is lost with it: the journal's id, and how many."""
    connection.exec_driver_sql("UPDATE journal_info SET generation = generation + 1")
    id_, generation = connection.exec_driver_sql("SELECT id, generation FROM journal_info").one()
    return id_, generation


def _driver(connection: Connection) -> Any:
    return connection.connection.dbapi_connection
