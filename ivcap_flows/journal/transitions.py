"""Transitions: the changes of intents, along the arrows of the table of states, by those who may write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.errors import DurabilityError, FencedError
from ivcap_flows.journal import schema
from ivcap_flows.journal.claims import check_arrow
from ivcap_flows.journal.known_intents import row_of
from ivcap_flows.journal.observer import IntentMoved
from ivcap_flows.journal.rows import IntentRow
from ivcap_flows.journal.states import State
from ivcap_flows.journal.store import Store
from ivcap_flows.secrets import scrub_text

__all__ = ["Transitions"]

_I = schema.intents


# Each effect runs this several times, and building a statement takes longer than SQLite's work, so build it once.
@cache
def _change(*names: str) -> sa.Update:
    """Return the statement that changes these columns of one row."""
    new = {name: sa.bindparam(f"new_{name}", type_=_I.c[name].type) for name in names}
    return sa.update(_I).where(_I.c.key == sa.bindparam("moved", type_=sa.Text)).values(new)


class Transitions:
    """The transitions of one journal, each in a transaction of its caller."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def move(self, connection: Connection, held: IntentRow, after: State, values: dict[str, Any]) -> IntentRow:
        """Move an intent whose fence is still the caller's to the state `after`.

        New duplicates are added to those of the row. Raise FencedError if another process has taken the intent over,
        and DurabilityError if the table of states does not allow the change.
        """
        # Locked, so that nobody claims between the check of the fence and the write.
        row = self.get(connection, held.key, lock=True)
        self._check_fence(row, held)
        check_arrow(row, after, known=held.state)
        changed = {**values, "state": after, "updated_at": self._store.now(connection)}
        if changed.get("error") is not None:
            changed["error"] = scrub_text(changed["error"])
        if "duplicates" in changed:
            changed["duplicates"] = _with(row.duplicates, changed["duplicates"], changed.get("urn", row.urn))
        moved = replace(row, **changed)
        connection.execute(_change(*changed), {"moved": row.key, **{f"new_{name}": changed[name] for name in changed}})
        self._store.note(IntentMoved(row, moved))
        return moved

    def get(self, connection: Connection, key: str, *, lock: bool = False) -> IntentRow:
        """Return an intent. Raise DurabilityError if the journal does not have it."""
        row = row_of(connection, key, lock=lock)
        if row is None:
            raise DurabilityError(f"The journal {self._store.url} has no intent {key}.", key=key)
        return row

    def _check_fence(self, row: IntentRow, held: IntentRow) -> None:
        if row.fence != held.fence:
            raise FencedError(
                f"Another process has taken over the {row.noun} {row.key}, so this process no longer works on it.",
                key=row.key,
            )


def _with(known: Sequence[str], more: Sequence[str], urn: str | None) -> list[str]:
    """Return the known duplicates and the further ones, each once, without the effect itself."""
    return [*known, *(other for other in dict.fromkeys(more) if other not in known and other != urn)]
