"""Which processes share a journal, and whether each still lives: the witness that survives a kill.

On one machine the process table answers at once. Of another machine (or container) only the heartbeat is known, and
what a process held there may be taken when its heartbeat was seen to stand still, not when a clock says so.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Final, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.errors import JournalError
from ivcap_flows.journal import schema
from ivcap_flows.journal.rows import ProcessRow
from ivcap_flows.journal.states import OPEN
from ivcap_flows.journal.store import Store

__all__ = ["HEARTBEAT_SECONDS", "LEASE_SECONDS", "LISTEN_SECONDS", "Processes", "is_this", "start_of"]

HEARTBEAT_SECONDS: Final = 10.0
"""How often a process that holds something says that it lives."""
LEASE_SECONDS: Final = 60.0
"""A process of another machine that was silent for so long counts as gone."""
LISTEN_SECONDS: Final = 2 * HEARTBEAT_SECONDS
"""So long this process listens itself before it believes the journal's clock that another is silent."""

Life = Literal["alive", "dead", "unknown"]

_T, _I, _L = schema.processes, schema.intents, schema.leases
_HEARTBEAT = (
    sa.update(_T)
    .where(_T.c.id == sa.bindparam("process"))
    .values(heartbeat_at=sa.bindparam("now", type_=_T.c.heartbeat_at.type))
)
_FREE_INTENT = (
    sa.update(_I)
    .where(_I.c.key == sa.bindparam("b_name"), _I.c.token == sa.bindparam("b_token"))
    .values(process_id=None, token=None)
)
_FREE_LEASE = sa.delete(_L).where(_L.c.name == sa.bindparam("b_name"), _L.c.token == sa.bindparam("b_token"))
_ENDED: Final = -1.0
_tokens: set[str] = set()
"""The claims that run in this process now, whatever journal object made them. Sets change atomically."""
_heard: dict[str, tuple[datetime, float]] = {}
"""By process, its last heartbeat that this one saw, and when it first saw it, by its own monotonic clock. That stands
still while this machine sleeps, so that whoever slept along with it is heard out first."""


class Processes:
    """This process's row, made with the first thing that it takes, and the others'."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ids: dict[int, str] = {}
        """By process number: this process's, and that of the parent that it was forked from."""
        self._owed: dict[str, str] = {}
        """By token, the key or lease of each claim that has ended, which the journal could not be told yet."""

    def mine(self, connection: Connection, now: datetime) -> str:
        """The id of this process in the journal; a forked child gets its own.

        The heartbeat is written by the transaction that takes something, so that nothing is taken with an old one.
        """
        pid = os.getpid()
        # Atomic, where a lock could be inherited as held.
        id_ = self._ids.setdefault(pid, str(uuid.uuid4()))
        if connection.execute(_HEARTBEAT, {"process": id_, "now": now}).rowcount == 0:
            row = ProcessRow(id_, socket.gethostname(), boot_id(), pid, start_of(pid) or 0.0, now)
            self._store.insert_new(connection, _T, vars(row))
        return id_

    def heartbeat(self) -> None:
        """Say that this process lives, and what it has left; does nothing before its first attempt or claim."""
        mine = self._ids.get(os.getpid())
        if mine is None:
            return
        owed = dict(self._owed)
        with self._store.write() as connection:
            connection.execute(_HEARTBEAT, {"process": mine, "now": self._store.now(connection)})
            self.free(connection, {name: token for token, name in owed.items()})
        for token in owed:
            self._owed.pop(token, None)

    @property
    def owes(self) -> bool:
        """Whether claims have ended that the journal still shows; the next heartbeat says so."""
        return bool(self._owed)

    def read(self, connection: Connection, process_id: str) -> ProcessRow:
        """One process by its id in the journal."""
        return ProcessRow(**connection.execute(sa.select(_T).where(_T.c.id == process_id)).mappings().one())

    def alive(self, process: ProcessRow, now: datetime) -> bool:
        """Whether the process seems to run: by this machine's process table, else by its heartbeat and a clock.

        Good enough to be shown. What lets something be taken asks `holds`.
        """
        life = _life(process)
        return life == "alive" or (life == "unknown" and not _is_overdue(process, now))

    def seems_held(self, process: ProcessRow, token: str | None, now: datetime) -> bool:
        """As `holds`, for what is only shown: of another machine the journal's clock is believed at once."""
        return token in _tokens if is_this(process) else self.alive(process, now)

    def holds(self, process: ProcessRow, token: str | None, now: datetime) -> bool:
        """Whether a live process is at the claim `token`; in this process the claim itself must still run.

        A process known by its heartbeat alone has let go when that stood still for `LEASE_SECONDS` since this process
        first asked, or for `LISTEN_SECONDS` where the journal's clock, too, says that it is overdue. So whoever gets
        True may ask again.
        """
        if is_this(process):
            return token in _tokens
        life = _life(process)
        return life == "alive" or (life == "unknown" and not self._is_silent(process, now))

    def has_left(self, process: ProcessRow) -> bool:
        """Whether surely nothing leaves any more on a claim of this process that does not hold."""
        return is_this(process) or _life(process) == "dead"

    def unheard(self) -> float:
        """For how many seconds to listen until it can be told whether overdue holders of other machines live.

        For a command that asks only once; 0 where nothing is held by such a process.
        """
        with self._store.read() as connection:
            now = self._store.now(connection)
            claims = sa.select(_I.c.process_id).where(_I.c.state.in_(OPEN), _I.c.process_id.is_not(None))
            holders = sa.union(claims, sa.select(_L.c.process_id))
            rows = connection.execute(sa.select(_T).where(_T.c.id.in_(holders))).mappings().all()
        silent = [
            _heard_for(process)
            for process in (ProcessRow(**row) for row in rows)
            if _life(process) == "unknown" and _is_overdue(process, now)
        ]
        return max((LISTEN_SECONDS - seconds for seconds in silent if seconds < LISTEN_SECONDS), default=0.0)

    def begin(self, token: str) -> None:
        """Count a claim as running in this process."""
        _tokens.add(token)

    def runs(self, token: str) -> bool:
        """Whether a claim of this process has not ended."""
        return token in _tokens

    def end(self, token: str) -> None:
        """The claim no longer runs; in this process whoever asks next may take it over."""
        _tokens.discard(token)

    def free(self, connection: Connection, tokens: Mapping[str, str]) -> None:
        """Write down that claims have ended, by the key or lease of each, so that other processes may take over."""
        rows = [{"b_name": name, "b_token": token} for name, token in tokens.items()]
        for statement in (_FREE_INTENT, _FREE_LEASE):
            if rows:
                connection.execute(statement, rows)

    @contextmanager
    def taking(self, tokens: Mapping[str, str]) -> Iterator[None]:
        """Take claims or leases within the block, by the key or lease of each; one that fails leaves none behind."""
        try:
            yield
        except JournalError:
            # The commit may be on disk though its end was not heard of; nobody works on what it took.
            self.owe(tokens)
            raise
        except BaseException:
            for token in tokens.values():
                self.end(token)
            raise

    def release(self, tokens: Mapping[str, str]) -> None:
        """End claims and leases, and write that down. Never raises JournalError: what cannot be written now is written
        with one of the next heartbeats."""
        try:
            with self._store.write() as connection:
                self.free(connection, tokens)
        except JournalError:
            self.owe(tokens)
        finally:
            for token in tokens.values():
                self._store.when_on_disk(partial(self.end, token))

    def owe(self, tokens: Mapping[str, str]) -> None:
        """These claims have ended, and the journal cannot be told now: a heartbeat does it."""
        for name, token in tokens.items():
            self.end(token)
            self._owed[token] = name

    def _is_silent(self, process: ProcessRow, now: datetime) -> bool:
        seconds = _heard_for(process)
        return seconds >= LEASE_SECONDS or (seconds >= LISTEN_SECONDS and _is_overdue(process, now))


def _heard_for(process: ProcessRow) -> float:
    """For how many seconds this process has seen the same heartbeat of another."""
    now = time.monotonic()
    heard, since = _heard.get(process.id, (None, now))
    if heard != process.heartbeat_at:
        since = now
        _heard[process.id] = (process.heartbeat_at, now)
    return now - since


def _is_overdue(process: ProcessRow, now: datetime) -> bool:
    """Whether a process that lives would have another heartbeat by now; one from the future is from before a step
    back of the clock."""
    age = (now - process.heartbeat_at).total_seconds()
    return not -HEARTBEAT_SECONDS <= age < LEASE_SECONDS


def _life(process: ProcessRow) -> Life:
    """What this machine's process table says of a process."""
    if process.boot != boot_id():
        return "unknown"
    started = start_of(process.pid)
    if started is None or process.started == 0.0:
        # It may be hidden from this user, so that nothing is said by not seeing it.
        return "unknown" if _exists(process.pid) else "dead"
    return "alive" if started == process.started else "dead"


def _exists(pid: int) -> bool:
    """Whether any process has this number, of whatever user."""
    if os.name != "posix":
        import psutil

        return psutil.pid_exists(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@cache
def boot_id() -> str:
    """What changes wherever process numbers begin anew: the boot, and on Linux the PID namespace of a container.

    The host's name is no part of it on Linux: it changes with the network, and many machines are called `localhost`.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        return f"{boot.read_text().strip()}/{Path('/proc/self/ns/pid').readlink()}"
    import psutil

    return f"{socket.gethostname()}/{int(psutil.boot_time())}"


def start_of(pid: int) -> float | None:
    """When a process began; None where that cannot be read, as of a process that is not there.

    One that ended, and that its parent has not looked at, began at no time that any other has. On Linux in clock ticks
    since boot, which a corrected clock does not change (proc(5), field 22 of `stat`).
    """
    if not Path("/proc/self/stat").exists():
        return _start_by_psutil(pid)
    mine = pid == os.getpid()
    try:
        if not mine and os.readlink("/proc/self") != str(os.getpid()):
            # It shows the numbers of another PID namespace.
            return None
        stat = Path("/proc/self/stat" if mine else f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return _ENDED if state in ("Z", "X") else float(fields[18])


def _start_by_psutil(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return _ENDED if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.Error, OSError):
        return None


def is_this(process: ProcessRow) -> bool:
    """Whether the row is this very process's, whichever journal object made it."""
    if process.boot != boot_id() or process.pid != os.getpid():
        return False
    return process.started == (start_of(process.pid) or 0.0)


def _forget_parent() -> None:
    """In a forked child: claims that run are the parent's, and the PID namespace may be another."""
    _tokens.clear()
    boot_id.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
