"""Parks: what each run waits for that has left its process, as a note of the attempt that it left.

Nothing depends on these notes. The status of the orders shows whether a wait is over, Prefect knows which runs are
parked, and starts a run again also without a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import sqlalchemy as sa

from ivcap_flows.journal import schema
from ivcap_flows.journal.known_runs import ATTEMPTS, attempt_row
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.rows import AttemptRow, Park
from ivcap_flows.journal.store import Store

__all__ = ["Parks"]

_A, _R = schema.attempts, schema.runs
_UNENDED: Final = ("running", "parked", "lost")
"""Outcomes of a run that may be parked: one that was killed while it left is not known to be parked."""


class Parks:
    """The parks of one journal."""

    def __init__(self, store: Store, processes: Processes) -> None:
        self._store, self._processes = store, processes

    def note(self, attempt_id: str, park: Park | None) -> None:
        """Store that the run is about to leave this attempt's process; with None, that it stays."""
        noted = None
        if park is not None:
            noted = asdict(park) | {"began_at": park.began_at.isoformat(), "wake_at": park.wake_at.isoformat()}
        with self._store.write() as connection:
            connection.execute(sa.update(_A).where(_A.c.id == attempt_id).values(park=noted))

    def open(self) -> list[tuple[AttemptRow, Park]]:
        """Return the runs that may be parked now, each by its newest attempt, the earliest to wake first.

        Ask Prefect which of them are: it also wakes, cancels and deletes them.
        """
        of_run = _A.alias()
        newest = sa.select(sa.func.max(of_run.c.number)).where(of_run.c.run_id == _A.c.run_id, of_run.c.leads)
        chosen = (
            ATTEMPTS.join(_R, _A.c.run_id == _R.c.id)
            .where(_R.c.outcome.in_(_UNENDED), _A.c.leads, _A.c.park.is_not(None), _A.c.outcome.in_(_UNENDED))
            .where(_A.c.number == newest.scalar_subquery())
        )
        with self._store.read() as connection:
            attempts = [attempt_row(row) for row in connection.execute(chosen).mappings()]
        found = [(attempt, attempt.park) for attempt in attempts if attempt.park is not None]
        return sorted(found, key=lambda each: each[1].wake_at)

    def left(self, attempts: Sequence[AttemptRow]) -> set[str]:
        """Return the ids of those whose process is gone: by its lock, otherwise by the last heartbeat.

        The heartbeat is the one in the given rows; it is not read again.
        """
        with self._store.read() as connection:
            now = self._store.now(connection)
        return {attempt.id for attempt in attempts if not self._processes.alive(attempt.process, now)}
