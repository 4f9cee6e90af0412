"""Pruning: old runs are deleted with all that only they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.journal import schema
from ivcap_flows.journal.known_runs import ATTEMPTS, attempt_row
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.store import Store

__all__ = ["Pruning"]

_R, _A, _F = schema.runs, schema.attempts, schema.facts
_AT_ONCE: Final = 500
"""Keys per statement. Every version of SQLite accepts at least 999 values."""


class Pruning:
    """Deletes runs of one journal."""

    def __init__(self, store: Store, processes: Processes) -> None:
        self._store, self._processes = store, processes

    def prune(self, older_than_days: float, *, sinks: Sequence[str] = ()) -> int:
        """Delete runs that ended so long ago, with their facts, deliveries and run-scoped intents. Return their number.

        Intents of scope flow and account are never deleted, so that nothing is sent twice. The same holds for the
        spending intents of a deployed run, since Prefect may run it again under its old id. A run is kept while an
        attempt of it is running, while an effect of it is in doubt or an orphan, and until each of the `sinks` has its
        newest fact and no delivery to them is open.
        """
        intents = schema.intents
        with self._store.write() as connection:
            limit = self._store.now(connection) - timedelta(days=older_than_days)
            # Locked first, so that no attempt joins these runs and nothing is added to them after the decision.
            ended = sa.and_(_R.c.updated_at < limit, _R.c.outcome.in_(("completed", "abandoned")))
            held = connection.execute(sa.select(_R.c.id).where(ended).order_by(_R.c.id).with_for_update()).scalars()
            pruned = 0
            for ids in _portions(held.all()):
                old = self._prunable(connection, ids, sinks)
                paid = sa.and_(intents.c.spends, sa.exists().where(_R.c.id == intents.c.run_id, _R.c.deployed))
                of_run = sa.or_(intents.c.scope.like("run:%"), intents.c.scope.like("call:%"))
                gone = sa.and_(intents.c.run_id.in_(old), of_run, ~paid)
                connection.execute(sa.delete(intents).where(gone))
                pruned += connection.execute(sa.delete(_R).where(_R.c.id.in_(old))).rowcount
            return pruned

    def _prunable(self, connection: Connection, ids: Sequence[str], sinks: Sequence[str]) -> list[str]:
        """Return those of these ended runs that may be deleted."""
        intents, deliveries = schema.intents, schema.deliveries
        # An effect whose work has not ended keeps only a run that was given up: a completed run left it on purpose.
        given_up = sa.and_(intents.c.state == "done", intents.c.status.is_(None), _R.c.outcome == "abandoned")
        lives = sa.or_(intents.c.state == "sent", given_up)
        newest = sa.select(sa.func.max(_F.c.seq)).where(_F.c.run_id == _R.c.id).correlate(_R).scalar_subquery()
        told = sa.and_(
            deliveries.c.run_id == _R.c.id,
            deliveries.c.state == "delivered",
            deliveries.c.key == _R.c.id + "@" + sa.cast(newest, sa.Text),
        )
        left = sa.and_(deliveries.c.run_id == _R.c.id, deliveries.c.state != "delivered")
        named = [deliveries.c.sink == name for name in sinks]
        old = sa.select(_R.c.id).where(
            _R.c.id.in_(ids),
            ~sa.exists().where(intents.c.run_id == _R.c.id, lives),
            *(~sa.exists().where(left, name) for name in named),
            # A run without facts has nothing to deliver.
            *(sa.or_(sa.exists().where(told, name), newest.is_(None)) for name in named),
        )
        running = connection.execute(ATTEMPTS.where(_A.c.run_id.in_(ids), _A.c.outcome == "running")).mappings()
        now = self._store.now(connection)
        busy = {row.run_id for row in map(attempt_row, running) if self._processes.alive(row.process, now)}
        return [run_id for run_id in connection.execute(old).scalars() if run_id not in busy]


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split ids into portions for one statement each, since SQLite limits the number of values."""
    for begin in range(0, len(ids), _AT_ONCE):
        yield ids[begin : begin + _AT_ONCE]
