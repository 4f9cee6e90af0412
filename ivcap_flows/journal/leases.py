"""Named leases: rights that one process has at a time, such as draining a sink."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from ivcap_flows.journal import schema
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.store import Store

__all__ = ["Leases"]

_L = schema.leases


class Leases:
    """The leases of one journal.

    When a holder dies, its lease is free at once where its lock is seen. Elsewhere it is free when the heartbeat of the
    holder has stopped; see `Processes.holds`.
    """

    def __init__(self, store: Store, processes: Processes) -> None:
        self._store = store
        self._processes = processes

    @contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Try to hold a lease while the block runs, without waiting: `with leases.hold("x") as mine: if mine: ...`."""
        token = str(uuid.uuid4())
        with self._processes.taking(name, token):
            taken = self._take(name, token)
        try:
            yield taken
        finally:
            if taken:
                self._processes.release(name, token)

    def mine(self, name: str) -> bool:
        """Return whether this process still has a lease: another may have taken it while this one was suspended."""
        with self._store.read() as connection:
            token = connection.execute(sa.select(_L.c.token).where(_L.c.name == name)).scalar()
        return token is not None and self._processes.runs(token)

    def held(self, name: str) -> bool:
        """Return whether a live process seems to hold a lease."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(_L).where(_L.c.name == name)).mappings().first()
            if row is None:
                return False
            holder = self._processes.read(connection, row["process_id"])
            return self._processes.seems_held(holder, row["token"], self._store.now(connection))

    def _take(self, name: str, token: str) -> bool:
        with self._store.write() as connection:
            now = self._store.now(connection)
            process_id = self._processes.register_and_beat(connection, now)
            row = {"name": name, "process_id": process_id, "token": token, "taken_at": now}
            if not self._store.insert_new(connection, _L, row):
                held = connection.execute(sa.select(_L).where(_L.c.name == name).with_for_update()).mappings().first()
                if held is None:
                    return False
                holder = self._processes.read(connection, held["process_id"])
                if self._processes.holds(holder, held["token"]):
                    return False
                connection.execute(sa.update(_L).where(_L.c.name == name).values(row))
            self._processes.begin(token)
        return True
