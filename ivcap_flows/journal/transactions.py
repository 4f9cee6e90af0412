"""The write transactions of one process on SQLite: they take turns, and those of one thread can share a commit."""

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
    """Write transactions on SQLite. Each waits for the disk at its end, which is most of the time of a small write."""

    def __init__(self, engine: Engine, *, lock_timeout: float, begun: Callable[[Connection], None]) -> None:
        """`begun` is called at the begin of each transaction, which is rolled back if it raises."""
        self._engine = engine
        self._lock_timeout = lock_timeout
        self._begun = begun
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._turn = threading.Lock()
        self._mine = threading.local()
        self._process = os.getpid()

    @property
    def shared(self) -> Connection | None:
        """The connection of the `together` block that this thread is in, or None."""
        return getattr(self._mine, "connection", None)

    def when_on_disk(self, call: Callable[[], None]) -> None:
        """Run `call` when this thread's writes are on disk: now, or after the commit of its `together` block.

        If that commit fails, do not run it.
        """
        if self.shared is None:
            call()
        else:
            self._mine.later.append(call)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run a write that is on disk when the block ends, or when the `together` block around it ends.

        If the block fails, only its own changes are rolled back. Raise SQLAlchemyError if the write is not on disk.
        """
        shared = self.shared
        if shared is None:
            with self._own() as connection:
                yield connection
            return
        if not _stands(shared):
            raise _taken_back()
        # SQLAlchemy's own savepoints take as long as the write.
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
        """Make all writes of this thread in the block one transaction. Raise SQLAlchemyError if it is not on disk."""
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
            # In a forked child, a lock that a thread of the parent held would never be released.
            self._begin_anew()
        # A thread that holds the turn longer than this is stuck. Then the database itself decides who may write.
        turn = self._turn
        took = turn.acquire(timeout=self._lock_timeout)
        try:
            with self._engine.connect() as plain:
                connection = plain.execution_options(writes=True)
                with connection.begin():
                    self._begun(connection)
                    yield connection
                    if not _stands(connection):
                        raise _taken_back()
        finally:
            if took:
                turn.release()


def _taken_back() -> SQLAlchemyError:
    return InvalidRequestError("the database has rolled the transaction back")


def _stands(connection: Connection) -> bool:
    """Return whether the transaction is open. After some errors, such as a full disk, SQLite has rolled it back."""
    driver: Any = connection.connection.dbapi_connection
    return driver is not None and driver.in_transaction
