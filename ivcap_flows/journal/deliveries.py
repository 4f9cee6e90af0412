"""What has reached which sink, and what waits to be tried again."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ivcap_flows.journal import schema
from ivcap_flows.journal.leases import Leases
from ivcap_flows.journal.rows import Cursor, DeliveryRow, DeliveryState, SendingRow
from ivcap_flows.journal.store import Store
from ivcap_flows.secrets import scrub_text

if TYPE_CHECKING:
    from ivcap_flows.http.server_clock import ServerTime

__all__ = ["Deliveries"]

_D, _C, _S, _F = schema.deliveries, schema.cursors, schema.sendings, schema.facts


class Deliveries:
    """The deliveries of one journal; each is known by its sink and a key that the sink chooses."""

    def __init__(self, store: Store, leases: Leases) -> None:
        self._store = store
        self._leases = leases

    def get(self, sink: str, key: str) -> DeliveryRow | None:
        """One delivery, None before the first try."""
        query = sa.select(_D).where(_D.c.sink == sink, _D.c.key == key)
        with self._store.read() as connection:
            row = connection.execute(query).mappings().first()
            return None if row is None else DeliveryRow(**row)

    def delivered(self, sink: str, key: str) -> bool:
        """Whether the sink has it."""
        row = self.get(sink, key)
        return row is not None and row.state == "delivered"

    def where(
        self,
        sink: str | None = None,
        *,
        state: DeliveryState | None = None,
        run_id: str | None = None,
        due: datetime | None = None,
        limit: int | None = 1000,
    ) -> list[DeliveryRow]:
        """Deliveries in order of their next try; `due` keeps the pending ones whose time has come by then, `limit`
        None gives all."""
        query = sa.select(_D).order_by(_D.c.next_try, _D.c.sink, _D.c.key).limit(limit)
        for column, value in ((_D.c.sink, sink), (_D.c.state, state), (_D.c.run_id, run_id)):
            if value is not None:
                query = query.where(column == value)
        if due is not None:
            query = query.where(_D.c.state == "pending", sa.or_(_D.c.next_try.is_(None), _D.c.next_try <= due))
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
        """Note the outcome of a try. What is delivered stays so: a later word of another state is ignored. Of a run the
        newest try tells all: what was left of its earlier keys is forgotten."""
        with self._store.write() as connection:
            row = {
                "sink": sink,
                "key": key,
                "run_id": run_id,
                "state": state,
                "reason": None if reason is None else scrub_text(reason),
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
            if run_id is not None:
                connection.execute(
                    sa.delete(_D).where(
                        _D.c.sink == sink, _D.c.run_id == run_id, _D.c.key != key, _D.c.state != "delivered"
                    )
                )

    def cursor(self, sink: str) -> Cursor:
        """How far the sink has come; at first nowhere."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(_C).where(_C.c.sink == sink)).mappings().first()
            return Cursor() if row is None else Cursor(row["seq"], tuple(row["behind"]))

    def advance(self, sink: str, cursor: Cursor) -> None:
        """Note how far the sink has come."""
        with self._store.write() as connection:
            self._store.upsert(connection, _C, {"sink": sink, "seq": cursor.seq, "behind": list(cursor.behind)})

    def runs_between(self, after: int, until: int) -> list[str]:
        """The runs with facts whose `seq` is above `after` and at most `until`, by the first of them."""
        first = sa.func.min(_F.c.seq)
        query = sa.select(_F.c.run_id).where(_F.c.seq > after, _F.c.seq <= until).group_by(_F.c.run_id).order_by(first)
        with self._store.read() as connection:
            return list(connection.execute(query).scalars())

    def left(self, sink: str) -> list[str]:
        """The runs that the sink was offered and has not got, the one that was tried the longest ago first."""
        query = sa.select(_D.c.run_id).where(_D.c.sink == sink, _D.c.state != "delivered", _D.c.run_id.is_not(None))
        with self._store.read() as connection:
            return list(dict.fromkeys(connection.execute(query.order_by(_D.c.updated_at, _D.c.key)).scalars()))

    def sending(self, sink: str, run_id: str) -> SendingRow | None:
        """When the sink last sent something of a run, if nobody has heard of the end of that."""
        query = sa.select(_S.c.sent_at, _S.c.sent_platform_time).where(_S.c.sink == sink, _S.c.run_id == run_id)
        with self._store.read() as connection:
            row = connection.execute(query).mappings().first()
            return None if row is None else SendingRow(**row)

    def note_sending(self, sink: str, run_id: str, time: ServerTime | None = None) -> None:
        """Note, before the first request and again while they go, that something of a run is sent now, which is `time`
        on the platform."""
        with self._store.write() as connection:
            moments = {
                "sent_at": self._store.now(connection),
                "sent_platform_time": None if time is None else time.latest,
            }
            self._store.upsert(connection, _S, {"sink": sink, "run_id": run_id, **moments})

    def end_sending(self, sink: str, run_id: str) -> None:
        """Note that each request was answered."""
        with self._store.write() as connection:
            connection.execute(sa.delete(_S).where(_S.c.sink == sink, _S.c.run_id == run_id))

    def lease(self, sink: str) -> AbstractContextManager[bool]:
        """The right to drain a sink: `with deliveries.lease(sink) as mine: if mine: ...`. Never waits."""
        return self._leases.hold(f"sink:{sink}")
