"""Commits that threads share: SQLite waits for the disk at each, and that wait is most of what a small write costs."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from sqlalchemy.engine import Connection, Engine, RootTransaction
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError

__all__ = ["SharedCommits"]

_MOST: Final = 32
"""Writes in one transaction; other processes wait for their turn meanwhile."""


class _Group:
    """One transaction, and the writes in it."""

    def __init__(self, connection: Connection, transaction: RootTransaction) -> None:
        self.connection = connection
        self.transaction = transaction
        self.writes = 0
        self.over = threading.Event()
        self.error: SQLAlchemyError | None = None

    def end(self) -> None:
        """Commit for all, or tell all why not."""
        self.error = InvalidRequestError("the commit was interrupted")
        try:
            if self.writes and not self.stands:
                raise InvalidRequestError("the database has taken the transaction back")
            if self.writes:
                self.transaction.commit()
            self.error = None
        except SQLAlchemyError as error:
            self.error = error
        finally:
            with suppress(SQLAlchemyError):
                if self.error is not None or not self.writes:
                    self.transaction.rollback()
            with suppress(SQLAlchemyError):
                self.connection.close()
            self.over.set()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """A write that can be taken back alone; SQLAlchemy's own savepoints cost as much as the write."""
        self.connection.exec_driver_sql("SAVEPOINT own")
        try:
            yield
        except BaseException:
            if self.stands:
                self.connection.exec_driver_sql("ROLLBACK TO own")
                self.connection.exec_driver_sql("RELEASE own")
            raise
        self.connection.exec_driver_sql("RELEASE own")

    @property
    def stands(self) -> bool:
        """Whether the transaction is open; after some errors, such as a full disk, SQLite has ended it by itself."""
        driver = self.connection.connection.dbapi_connection
        return bool(driver is not None and driver.in_transaction)


class SharedCommits:
    """The writes of one process to an SQLite database, one at a time, those that come at once in one transaction.

    A write that others wait behind leaves the transaction open for the next, and returns when the last has committed
    for all: what has returned is on disk. One that fails takes back its own changes alone.
    """

    def __init__(self, engine: Engine, *, patience: float) -> None:
        self._engine = engine
        self._patience = patience
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: deque[threading.Event] = deque()
        self._group: _Group | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A write that is on disk when the block ends. Raises SQLAlchemyError where it is not."""
        if self._process != os.getpid():
            # In a forked child nobody would ever give back what a thread of the parent held.
            self._begin_anew()
        turn = threading.Event()
        if not self._take(turn):
            # Whoever holds the turn is stuck; the database itself decides who may write.
            with self._connect() as connection, connection.begin():
                yield connection
            return
        group: _Group | None = None
        try:
            group = self._group = self._group or self._begun()
            if group.writes == 0:
                yield group.connection
            else:
                with group.apart():
                    yield group.connection
            group.writes += 1
        finally:
            self._leave(group)
        group.over.wait()
        if group.error is not None:
            raise group.error

    def _connect(self) -> Connection:
        return self._engine.connect().execution_options(writes=True)

    def _begun(self) -> _Group:
        connection = self._connect()
        try:
            return _Group(connection, connection.begin())
        except BaseException:
            connection.close()
            raise

    def _take(self, turn: threading.Event) -> bool:
        """Wait for the turn; False if it did not come in time."""
        with self._lock:
            if not self._busy:
                self._busy = True
                return True
            self._waiting.append(turn)
        try:
            turn.wait(self._patience)
        except BaseException:
            if not self._withdrew(turn):
                self._leave(self._group)
            raise
        return turn.is_set() or not self._withdrew(turn)

    def _withdrew(self, turn: threading.Event) -> bool:
        with self._lock:
            if turn.is_set():
                return False
            self._waiting.remove(turn)
            return True

    def _leave(self, group: _Group | None) -> None:
        """Give the turn on, with the transaction where it goes on, else when it has ended."""
        if group is not None:
            if 0 < group.writes < _MOST and group.stands and self._give_on():
                return
            self._group = None
            group.end()
        self._give_on(last=True)

    def _give_on(self, *, last: bool = False) -> bool:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
                return True
            if last:
                self._busy = False
            return False
