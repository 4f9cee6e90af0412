"""Parked runs: which runs have left their process, what they wait for, and when Prefect wakes them.

These rows are notes; nothing depends on them. The status of the orders shows whether a wait is over, and Prefect starts
the run again, also without a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from ivcap_flows.journal import schema
from ivcap_flows.journal.observer import ParkEnded
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.rows import ParkRow, ParkState, ProcessRow, Wait
from ivcap_flows.journal.store import Store

__all__ = ["Parks"]

_K, _P = schema.parks, schema.processes
_PARKS = sa.select(
    *[column for column in _K.c if column.name != "process_id"],
    *[column.label(f"process_{column.name}") for column in _P.c],
).join_from(_K, _P, _K.c.process_id == _P.c.id)


class Parks:
    """The parks of one journal."""

    def __init__(self, store: Store, processes: Processes) -> None:
        self._store = store
        self._processes = processes

    def park(
        self,
        *,
        run_id: str,
        attempt_id: str,
        flow_run_id: str,
        platform: str,
        credentials: str | None,
        waits: Sequence[Wait],
        began_at: datetime,
        wake_at: datetime,
    ) -> ParkRow:
        """Store that the run is about to leave this process. An earlier park of the run counts as woken."""
        with self._store.write() as connection:
            now = self._store.now(connection)
            process_id = self._processes.mine(connection, now)
            self._close(connection, _K.c.run_id == run_id, "woken", None)
            last = connection.execute(sa.select(sa.func.max(_K.c.round)).where(_K.c.run_id == run_id)).scalar()
            row = {
                "run_id": run_id,
                "round": (last or 0) + 1,
                "attempt_id": attempt_id,
                "flow_run_id": flow_run_id,
                "process_id": process_id,
                "platform": platform,
                "credentials": credentials,
                "waits": [asdict(wait) for wait in waits],
                "state": "parked",
                "began_at": began_at,
                "parked_at": now,
                "wake_at": wake_at,
            }
            connection.execute(sa.insert(_K), row)
            chosen = _PARKS.where(_K.c.run_id == run_id, _K.c.round == row["round"])
            return _park(connection.execute(chosen).mappings().one())

    def end(self, park: ParkRow, state: ParkState, why: str | None = None) -> bool:
        """Store that a park has ended. Return False if it had ended already."""
        with self._store.write() as connection:
            where = sa.and_(_K.c.run_id == park.run_id, _K.c.round == park.round)
            return self._close(connection, where, state, why)

    def woke(self, run_id: str) -> list[ParkRow]:
        """Store that a run is running again. Return all its parks, oldest first."""
        with self._store.write() as connection:
            self._close(connection, _K.c.run_id == run_id, "woken", "by itself")
            rows = connection.execute(_PARKS.where(_K.c.run_id == run_id).order_by(_K.c.round)).mappings()
            return [_park(row) for row in rows]

    def of(self, run_id: str) -> list[ParkRow]:
        """Return the parks of a run, oldest first."""
        with self._store.read() as connection:
            rows = connection.execute(_PARKS.where(_K.c.run_id == run_id).order_by(_K.c.round)).mappings()
            return [_park(row) for row in rows]

    def open(self) -> list[ParkRow]:
        """Return the runs that are parked now, the earliest to wake first."""
        with self._store.read() as connection:
            rows = connection.execute(_PARKS.where(_K.c.state == "parked").order_by(_K.c.wake_at)).mappings()
            return [_park(row) for row in rows]

    def left(self, parks: Sequence[ParkRow]) -> list[ParkRow]:
        """Return those whose process is gone: by this machine's process table, otherwise by the last heartbeat.

        The heartbeat is the one in the given rows; it is not read again.
        """
        with self._store.read() as connection:
            now = self._store.now(connection)
        return [park for park in parks if not self._processes.alive(park.process, now)]

    def _close(self, connection: sa.engine.Connection, where: Any, state: ParkState, why: str | None) -> bool:
        open_ = sa.and_(where, _K.c.state == "parked")
        parks = [_park(row) for row in connection.execute(_PARKS.where(open_)).mappings()]
        values: dict[str, Any] = {"state": state, "why": why, "ended_at": self._store.now(connection)}
        done = connection.execute(sa.update(_K).where(open_).values(values))
        for park in parks if done.rowcount else ():
            self._store.note(ParkEnded(replace(park, **values)))
        return done.rowcount > 0


def _park(row: RowMapping) -> ParkRow:
    process: dict[str, Any] = {name[8:]: value for name, value in row.items() if name.startswith("process_")}
    own: dict[str, Any] = {name: value for name, value in row.items() if not name.startswith("process_")}
    own["waits"] = tuple(Wait(**wait) for wait in own["waits"])
    return ParkRow(**own, process=ProcessRow(**process))
