"""Values that a logical run computes in one attempt and reuses in its later attempts."""

from __future__ import annotations

import sqlalchemy as sa

from ivcap_flows.journal import schema
from ivcap_flows.journal.store import Store

__all__ = ["Once"]

_O = schema.once


class Once:
    """The recorded values of one journal, as JSON text by run and name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, run_id: str, name: str) -> str | None:
        """Return the recorded JSON text, or None if there is none yet."""
        with self._store.read() as connection:
            found: str | None = connection.execute(
                sa.select(_O.c.value).where(_O.c.run_id == run_id, _O.c.name == name)
            ).scalar()
            return found

    def keep(self, run_id: str, name: str, value: str) -> str:
        """Record a value unless one is recorded already. Return the recorded value."""
        with self._store.write() as connection:
            row = {"run_id": run_id, "name": name, "value": value, "recorded_at": self._store.now(connection)}
            if self._store.insert_new(connection, _O, row):
                return value
            found: str = connection.execute(
                sa.select(_O.c.value).where(_O.c.run_id == run_id, _O.c.name == name)
            ).scalar_one()
            return found
