"""Which processes share a journal, and whether each still lives: the witness that survives a kill.

On one machine the process table answers at once. Of another machine (or container) only the beat is known.
"""

from __future__ import annotations

import os
import socket
import uuid
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.journal import schema
from ivcap_flows.journal.rows import ProcessRow
from ivcap_flows.journal.store import Store

__all__ = ["BEAT_SECONDS", "LEASE_SECONDS", "Processes", "start_of"]

BEAT_SECONDS: Final = 10.0
"""How often a process that holds something says that it lives."""
LEASE_SECONDS: Final = 60.0
"""A process of another machine that was silent for so long counts as gone."""

_T = schema.processes
_BEAT = (
    sa.update(_T).where(_T.c.id == sa.bindparam("process")).values(beat_at=sa.bindparam("now", type_=_T.c.beat_at.type))
)
_tokens: set[str] = set()
"""The claims that run in this process now, whatever journal object made them. Sets change atomically."""


class Processes:
    """This process's row, made with the first thing that it takes, and the others'."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ids: dict[int, str] = {}
        """By process number: this process's, and that of the parent that it was forked from."""

    def mine(self, connection: Connection, now: datetime) -> str:
        """The id of this process in the journal; a forked child gets its own.

        It beats within the transaction that takes something, so that nothing is ever taken with an old beat.
        """
        pid = os.getpid()
        # Atomic, where a lock could be inherited as held.
        id_ = self._ids.setdefault(pid, str(uuid.uuid4()))
        if connection.execute(_BEAT, {"process": id_, "now": now}).rowcount == 0:
            row = ProcessRow(id_, socket.gethostname(), boot_id(), pid, start_of(pid) or 0.0, now)
            self._store.insert_new(connection, _T, vars(row))
        return id_

    def beat(self) -> None:
        """Say that this process lives; does nothing before its first attempt or claim."""
        mine = self._ids.get(os.getpid())
        if mine is None:
            return
        with self._store.write() as connection:
            connection.execute(_BEAT, {"process": mine, "now": self._store.now(connection)})

    def read(self, connection: Connection, process_id: str) -> ProcessRow:
        """One process by its id in the journal."""
        return ProcessRow(**connection.execute(sa.select(_T).where(_T.c.id == process_id)).mappings().one())

    def alive(self, process: ProcessRow, now: datetime) -> bool:
        """Whether the process runs: by this machine's process table, else by its beat."""
        if process.boot == boot_id():
            return start_of(process.pid) == process.started
        return now - process.beat_at < timedelta(seconds=LEASE_SECONDS)

    def holds(self, process: ProcessRow, token: str | None, now: datetime) -> bool:
        """Whether a live process is at the claim `token`; in this process the claim itself must still run."""
        if is_this(process):
            return token in _tokens
        return self.alive(process, now)

    def begin(self, token: str) -> None:
        """Count a claim as running in this process."""
        _tokens.add(token)

    def end(self, token: str) -> None:
        """The claim no longer runs; whoever asks next may take it over."""
        _tokens.discard(token)


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
    """When a process began; None if there is none, or only what is left of it until its parent looks.

    On Linux in clock ticks since boot, which a corrected clock does not change (proc(5), field 22 of `stat`).
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if psutil.LINUX:
            return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return process.create_time()
    except (psutil.Error, OSError):
        return None


def is_this(process: ProcessRow) -> bool:
    """Whether the row is this very process's, whichever journal object made it."""
    return process.boot == boot_id() and process.pid == os.getpid() and process.started == start_of(process.pid)
