"""Detect intents that a journal has lost, by the idempotency records that it left on a platform.

An SQLite journal has a seal, which shows a loss when the journal is opened. A PostgreSQL server that lost commits, such
as a standby that was behind when it took over, has no seal: there the idempotency records show the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.journal import schema
from ivcap_flows.journal.rows import Stated
from ivcap_flows.journal.store import Store

__all__ = ["Losses"]

_I = schema.intents
_J = schema.journal_info


class Losses:
    """The losses of one journal."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def among(self, stated: Sequence[Stated]) -> list[Stated]:
        """Return those that this journal has lost: it does not have them, and it did not prune them."""
        with self._store.read() as connection:
            return self._lost(connection, stated)

    def note(self, stated: Stated) -> bool:
        """Store the first intent that shows a loss, for the user. Return whether this is that first one."""
        with self._store.write() as connection:
            if not self._lost(connection, [stated]):
                return False
            loss = {"key": stated.key, "serial": stated.serial, "created-at": stated.created_at.isoformat()}
            return connection.execute(sa.update(_J).where(_J.c.loss.is_(None)).values(loss=loss)).rowcount == 1

    def noted(self) -> dict[str, Any] | None:
        """Return the stored intent that shows a loss: its `key`, `serial` and `created-at`.

        Return None if there is none, or if the user has accepted the loss.
        """
        with self._store.read() as connection:
            found: dict[str, Any] | None = connection.execute(sa.select(_J.c.loss)).scalar()
            return found

    def accept(self, serial: int) -> None:
        """Accept, for the user, that intents up to this serial are lost. New intents get higher serials."""
        with self._store.write() as connection:
            values: dict[str, Any] = {
                "loss": None,
                "forgotten": sa.case((_J.c.forgotten < serial, serial), else_=_J.c.forgotten),
            }
            if self._store.is_sqlite:
                values["generation"] = sa.case((_J.c.generation < serial, serial), else_=_J.c.generation)
            elif self._store.serial(connection) < serial:
                connection.execute(sa.text("SELECT setval('intent_serials', :serial)"), {"serial": serial})
            connection.execute(sa.update(_J).values(values))

    def _lost(self, connection: Connection, stated: Sequence[Stated]) -> list[Stated]:
        forgotten = connection.execute(sa.select(_J.c.forgotten)).scalar_one()
        later = [one for one in stated if one.serial > forgotten]
        rows = connection.execute(sa.select(_I.c.key, _I.c.created_at).where(_I.c.key.in_([one.key for one in later])))
        known = {(key, created_at) for key, created_at in rows}
        return [one for one in later if (one.key, one.created_at) not in known]
