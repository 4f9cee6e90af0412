"""Which processes share a journal, and whether each is still alive; a killed process cannot write that itself.

A lock that this machine can see answers at once. For a process on another machine, only the heartbeat is known. What
such a process holds becomes free when this process has seen that the heartbeat stopped, not when a clock says so.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from platformdirs import user_data_path
from sqlalchemy.engine import Connection

from ivcap_flows.errors import JournalError
from ivcap_flows.forked import in_forked_child
from ivcap_flows.journal import schema
from ivcap_flows.journal.filesystems import network_file_system
from ivcap_flows.journal.process_locks import ENDED, Life, ProcessLocks, boot_id
from ivcap_flows.journal.rows import ProcessRow
from ivcap_flows.journal.states import OPEN
from ivcap_flows.journal.store import Store
from ivcap_flows.journal.untold import Untold

__all__ = ["HEARTBEAT_SECONDS", "SILENT_SECONDS", "Processes", "is_this"]

HEARTBEAT_SECONDS: Final = 10.0
"""Interval of the heartbeats of a process that holds something."""
SILENT_SECONDS: Final = 60.0
"""A process that is known by its heartbeat alone, and has had none for so long, counts as gone."""

_INATTENTION: Final = 3 * HEARTBEAT_SECONDS
"""Seconds between two looks at a process after which its silence counts from the second one."""

_T, _I, _L = schema.processes, schema.intents, schema.leases
_HEARTBEAT = (
    sa.update(_T)
    .where(_T.c.id == sa.bindparam("process"))
    .values(heartbeat_at=sa.bindparam("now", type_=_T.c.heartbeat_at.type))
)
_HEARTBEAT_AND_LOCK = _HEARTBEAT.values(lock=sa.bindparam("held", type_=sa.Text))
_DEATH = sa.update(_T).where(_T.c.id == sa.bindparam("process")).values(lock=ENDED)
_FREE_INTENT = (
    sa.update(_I)
    .where(_I.c.key == sa.bindparam("b_name"), _I.c.token == sa.bindparam("b_token"))
    .values(process_id=None, token=None)
)
_FREE_LEASE = sa.delete(_L).where(_L.c.name == sa.bindparam("b_name"), _L.c.token == sa.bindparam("b_token"))
_mine: set[str] = set()
"""The ids of this process, one for each of its journal objects that has taken something."""
_tokens: set[str] = set()
"""The claims that run in this process now, of all its journal objects. Sets change atomically."""
_heard: dict[str, tuple[datetime, float, float]] = {}
"""By process, the last heartbeat that this process saw, when it first saw it, and when it last looked, by its own
monotonic clock.

That clock may run on while this process is suspended. The other process may have been suspended with it, so it gets its
time to continue.
"""


class Processes:
    """The rows of the processes of one journal. This process gets its row when it first takes something."""

    def __init__(self, store: Store, untold: Untold) -> None:
        self._store, self._untold = store, untold
        self._locks = process_locks(store)
        self._ids: dict[int, str] = {}
        """Ids by process number: this process's, and that of the parent that it was forked from."""

    def register_and_beat(self, connection: Connection, now: datetime) -> str:
        """Return the id of this process in the journal; a forked child gets its own.

        Also write the heartbeat, so that the transaction that takes something never does it with an old heartbeat.
        """
        pid = os.getpid()
        # `setdefault` is atomic. A lock could be held at a fork, and the child would inherit it held.
        id_ = self._ids.setdefault(pid, str(uuid.uuid4()))
        lock = self._locks.hold(id_)
        _mine.add(id_)
        if connection.execute(_HEARTBEAT_AND_LOCK, {"process": id_, "now": now, "held": lock}).rowcount == 0:
            self._store.insert_new(connection, _T, vars(ProcessRow(id_, socket.gethostname(), pid, now, lock)))
        return id_

    def close(self) -> None:
        """Count as ended: the journal is closed. If it is used again, this process lives again."""
        id_ = self._ids.get(os.getpid())
        if id_ is not None:
            _mine.discard(id_)
            self._locks.release(id_)

    def announce(self) -> None:
        """Be known as a process that uses the journal, before it takes anything."""
        with self._store.write() as connection:
            self.register_and_beat(connection, self._store.now(connection))

    def heartbeat(self) -> None:
        """Write this process's heartbeat.

        Do nothing before the process's first attempt or claim.
        """
        mine = self._ids.get(os.getpid())
        if mine is None:
            return
        with self._store.write() as connection:
            connection.execute(_HEARTBEAT, {"process": mine, "now": self._store.now(connection)})

    def prune(self, before: datetime) -> None:
        """Delete processes without a heartbeat since then, except those that an attempt, claim or lease names.

        A live one among them, which holds nothing now, gets its row again when it takes something.
        """
        holders = (schema.attempts, _I, _L)
        held = (sa.exists().where(table.c.process_id == _T.c.id) for table in holders)
        silent = _T.c.heartbeat_at < before - timedelta(seconds=SILENT_SECONDS)
        with self._store.write() as connection:
            connection.execute(sa.delete(_T).where(silent, *(~each for each in held)))
            known = set(connection.execute(sa.select(_T.c.id)).scalars())
        self._locks.forget(known)

    def life(self, process: ProcessRow) -> Life:
        """Return the state of a process by its lock."""
        return "alive" if is_this(process) else self._locks.life(process.id, process.lock)

    def read(self, connection: Connection, process_id: str) -> ProcessRow:
        """Return a process by its id in the journal."""
        return ProcessRow(**connection.execute(sa.select(_T).where(_T.c.id == process_id)).mappings().one())

    def alive(self, process: ProcessRow, now: datetime) -> bool:
        """Return whether the process seems to run: by its lock, else by its heartbeat and a clock.

        This is enough for display, and for which run is continued. Use `holds` to decide whether something may be
        taken.
        """
        life = self.life(process)
        return life == "alive" or (life == "unknown" and not _is_overdue(process, now))

    def living(self, connection: Connection) -> list[ProcessRow]:
        """Return the processes that seem to run, the one with the newest heartbeat first."""
        now = self._store.now(connection)
        rows = connection.execute(sa.select(_T).order_by(_T.c.heartbeat_at.desc())).mappings().all()
        return [process for row in rows if self.alive(process := ProcessRow(**row), now)]

    def note_deaths(self, connection: Connection) -> None:
        """Write which processes are dead by their locks, for a place where these are not."""
        processes = (ProcessRow(**row) for row in connection.execute(sa.select(_T)).mappings().all())
        dead = [{"process": process.id} for process in processes if self.life(process) == "dead"]
        if dead:
            connection.execute(_DEATH, dead)

    def seems_held(self, process: ProcessRow, token: str | None, now: datetime) -> bool:
        """Return what `holds` does, for display only, by the journal's clock where only the heartbeat is known."""
        return token in _tokens if is_this(process) else self.alive(process, now)

    def holds(self, process: ProcessRow, token: str | None) -> bool:
        """Return whether a live process holds the claim `token`; in this process the claim itself must still run.

        A process that is known only by its heartbeat holds nothing once this process has seen the heartbeat stand
        still for `SILENT_SECONDS`, whatever a clock says. So after True, ask again later.
        """
        if is_this(process):
            return token in _tokens
        life = self.life(process)
        return life == "alive" or (life == "unknown" and _heard_for(process) < SILENT_SECONDS)

    def has_left(self, process: ProcessRow) -> bool:
        """Return whether certainly no request of the process can still leave, for a claim that it no longer holds."""
        return is_this(process) or self.life(process) == "dead"

    def unheard(self) -> float:
        """Return for how many seconds to listen until it is known whether overdue holders without a lock are alive.

        This is for a command that asks only once. Return 0 if no such process holds anything.
        """
        with self._store.read() as connection:
            now = self._store.now(connection)
            claims = sa.select(_I.c.process_id).where(_I.c.state.in_(OPEN), _I.c.process_id.is_not(None))
            holders = sa.union(claims, sa.select(_L.c.process_id))
            rows = connection.execute(sa.select(_T).where(_T.c.id.in_(holders))).mappings().all()
        silent = [
            _heard_for(process)
            for process in (ProcessRow(**row) for row in rows)
            if self.life(process) == "unknown" and _is_overdue(process, now)
        ]
        return max([0.0, *(SILENT_SECONDS - seconds for seconds in silent)])

    def begin(self, token: str) -> None:
        """Count a claim as running in this process."""
        _tokens.add(token)

    def runs(self, token: str) -> bool:
        """Return whether a claim of this process has not ended."""
        return token in _tokens

    def end(self, token: str) -> None:
        """Count a claim as ended; in this process, the next call may take the intent over."""
        _tokens.discard(token)

    def _free(self, name: str, token: str) -> None:
        """Write that a claim or lease has ended, so that other processes may take over."""
        with self._store.write() as connection:
            for statement in (_FREE_INTENT, _FREE_LEASE):
                connection.execute(statement, {"b_name": name, "b_token": token})

    @contextmanager
    def taking(self, name: str, token: str) -> Iterator[None]:
        """Take a claim or lease in the block; if the block fails, end it."""
        try:
            yield
        except JournalError:
            # The commit may be on disk although it was not confirmed; no call works on what it took.
            self.owe(name, token)
            raise
        except BaseException:
            self.end(token)
            raise

    def release(self, name: str, token: str) -> None:
        """End a claim or lease, and write that.

        Never raise JournalError: what cannot be written now is written with one of the next heartbeats.
        """
        try:
            self._free(name, token)
        except JournalError:
            self.owe(name, token)
        finally:
            self._store.when_on_disk(partial(self.end, token))

    def owe(self, name: str, token: str) -> None:
        """End a claim or lease in this process, and let that be written later."""
        self.end(token)
        self._untold.add(partial(self._free, name, token))


def _heard_for(process: ProcessRow) -> float:
    """Return for how many seconds this process has seen the same heartbeat of another."""
    now = time.monotonic()
    for id_ in [id_ for id_, (_, _, looked) in list(_heard.items()) if now - looked > _INATTENTION]:
        _heard.pop(id_, None)
    heard, since, _ = _heard.get(process.id, (None, now, now))
    if heard != process.heartbeat_at:
        since = now
    _heard[process.id] = (process.heartbeat_at, since, now)
    return now - since


def _is_overdue(process: ProcessRow, now: datetime) -> bool:
    """Return whether a live process would have a newer heartbeat by now.

    A heartbeat from the future counts as overdue: it was written before the clock was set back.
    """
    age = (now - process.heartbeat_at).total_seconds()
    return not -HEARTBEAT_SECONDS <= age < SILENT_SECONDS


def process_locks(store: Store) -> ProcessLocks:
    """Return the locks of the processes that use a journal on this machine.

    All processes that use the file of an SQLite journal run under one kernel. So those that ended with the machine are
    known to be dead, by files that are the same after a boot. A journal on a server has other machines, too.
    """
    boot = "" if store.is_sqlite else boot_id()
    return ProcessLocks(None) if boot is None else ProcessLocks(lock_folder(store), boot)


def lock_folder(store: Store) -> Path | None:
    """Return the folder of the lock files: beside the file of the journal; with PostgreSQL, among the user's data.

    There is none on a network file system, where a process may lose its lock while it lives.
    """
    if store.path is not None:
        return store.path.resolve().with_name(f"{store.path.name}-processes")
    folder = user_data_path("ivcap-flows", appauthor=False) / "processes" / store.journal_id
    return None if network_file_system(folder) else folder


def is_this(process: ProcessRow) -> bool:
    """Return whether the row is this process's, also if another journal object made it."""
    return process.id in _mine


def _forget_parent() -> None:
    """Reset a forked child: ids and running claims are the parent's."""
    _mine.clear()
    _tokens.clear()


in_forked_child(_forget_parent)
