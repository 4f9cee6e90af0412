"""Deliveries: which records have reached which sink, and which are to be tried again."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from ivcap_flows.journal import schema
from ivcap_flows.journal.leases import Leases
from ivcap_flows.journal.observer import DeliveryRefused
from ivcap_flows.journal.rows import Cursor, DeliveryRow, DeliveryState, SendingRow
from ivcap_flows.journal.store import Store
from ivcap_flows.secrets import scrub_text

if TYPE_CHECKING:
    from ivcap_flows.http.server_clock import ServerTime

__all__ = ["Deliveries"]

_D, _C, _S, _F = schema.deliveries, schema.cursors, schema.sendings, schema.facts
_LEFT: Final[tuple[DeliveryState, ...]] = ("pending", "dead")
"""Every state but `delivered`. An index finds few rows by these names, and not by what they are not."""


class Deliveries:
    """The deliveries of one journal. A sink and a key that the sink chooses identify each."""

    def __init__(self, store: Store, leases: Leases) -> None:
        self._store = store
        self._leases = leases

    def get(self, sink: str, key: str) -> DeliveryRow | None:
        """Return a delivery, or None before the first try."""
        query = sa.select(_D).where(_D.c.sink == sink, _D.c.key == key)
        with self._store.read() as connection:
            row = connection.execute(query).mappings().first()
            return None if row is None else DeliveryRow(**row)

    def where(
        self,
        sink: str | None = None,
        *,
        state: DeliveryState | None = None,
        run_id: str | None = None,
        limit: int | None = 1000,
    ) -> list[DeliveryRow]:
        """Return deliveries in the order of their next try. With `limit` None, return all."""
        query = sa.select(_D).order_by(_D.c.next_try, _D.c.sink, _D.c.key).limit(limit)
        for column, value in ((_D.c.sink, sink), (_D.c.state, state), (_D.c.run_id, run_id)):
            if value is not None:
                query = query.where(column == value)
        with self._store.read() as connection:
            return [DeliveryRow(**row) for row in connection.execute(query).mappings()]

    def record(
        self,
        sink: str,
        key: str,
        state: DeliveryState,
        *,
        run_id: str | None = None,
        reason: str | None = None,
        next_try: datetime | None = None,
    ) -> None:
        """Store the outcome of a try.

        A delivery that was made stays `delivered`: another state is ignored afterwards. A try with a `run_id` deletes
        the run's deliveries to this sink under other keys that were not made.
        """
        with self._store.write() as connection:
            reason = None if reason is None else scrub_text(reason)
            row = {
                "sink": sink,
                "key": key,
                "run_id": run_id,
                "state": state,
                "reason": reason,
                "tries": 1,
                "next_try": next_try,
                "updated_at": self._store.now(connection),
            }
            if not self._store.insert_new(connection, _D, row):
                connection.execute(
                    sa.update(_D)
                    .where(_D.c.sink == sink, _D.c.key == key)
                    .where(sa.or_(_D.c.state != "delivered", sa.literal(state == "delivered")))
                    .values({**row, "tries": _D.c.tries + 1})
                )
            if state == "dead":
                self._store.note(DeliveryRefused(sink, run_id, reason))
            if run_id is not None:
                connection.execute(
                    sa.delete(_D).where(
                        _D.c.sink == sink, _D.c.run_id == run_id, _D.c.key != key, _D.c.state != "delivered"
                    )
                )

    def cursor(self, sink: str) -> Cursor:
        """Return how far the sink has come; before its first delivery, an empty `Cursor`."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(_C).where(_C.c.sink == sink)).mappings().first()
            return Cursor() if row is None else Cursor(row["seq"], tuple(row["behind"]))

    def advance(self, sink: str, cursor: Cursor) -> None:
        """Store how far the sink has come."""
        with self._store.write() as connection:
            self._store.upsert(connection, _C, {"sink": sink, "seq": cursor.seq, "behind": list(cursor.behind)})

    def runs_between(self, after: int, until: int) -> list[str]:
        """Return the runs with facts whose `seq` is above `after` and at most `until`, in the order of the first such
        fact."""
        first = sa.func.min(_F.c.seq)
        query = sa.select(_F.c.run_id).where(_F.c.seq > after, _F.c.seq <= until).group_by(_F.c.run_id).order_by(first)
        with self._store.read() as connection:
            return list(connection.execute(query).scalars())

    def left(self, sink: str) -> list[str]:
        """Return the runs whose delivery to the sink was tried and not made, the least recently tried first."""
        query = sa.select(_D.c.run_id).where(_D.c.sink == sink, _D.c.state.in_(_LEFT), _D.c.run_id.is_not(None))
        with self._store.read() as connection:
            return list(dict.fromkeys(connection.execute(query.order_by(_D.c.updated_at, _D.c.key)).scalars()))

    def sending(self, sink: str, run_id: str) -> SendingRow | None:
        """Return when the sink last began to send a run, or None if no such sending is still open."""
        query = sa.select(_S.c.sent_at, _S.c.sent_platform_time).where(_S.c.sink == sink, _S.c.run_id == run_id)
        with self._store.read() as connection:
            row = connection.execute(query).mappings().first()
            return None if row is None else SendingRow(**row)

    def note_sending(self, sink: str, run_id: str, time: ServerTime | None = None) -> None:
        """Store that a part of a run is being sent now, which is `time` on the platform.

        Call this before the first request, and again while requests are sent.
        """
        with self._store.write() as connection:
            moments = {
                "sent_at": self._store.now(connection),
                "sent_platform_time": None if time is None else time.latest,
            }
            self._store.upsert(connection, _S, {"sink": sink, "run_id": run_id, **moments})

    def end_sending(self, sink: str, run_id: str) -> None:
        """Store that every request of a sending got its reply."""
        with self._store.write() as connection:
            connection.execute(sa.delete(_S).where(_S.c.sink == sink, _S.c.run_id == run_id))

    def lease(self, sink: str) -> AbstractContextManager[bool]:
        """Try to take the lease on a sink, without waiting: `with deliveries.lease(sink) as mine: if mine: ...`."""
        return self._leases.hold(f"sink:{sink}")
