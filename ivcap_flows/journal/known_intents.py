"""What a journal knows of intents, to read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.journal import schema
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.rows import IntentRow, ProcessRow
from ivcap_flows.journal.states import State
from ivcap_flows.journal.store import Store

__all__ = ["KnownIntents", "row_of"]

_I = schema.intents
_AT_ONCE: Final = 500
"""Keys per statement. Every version of SQLite accepts at least 999 values."""
_BY_KEY: Final = sa.select(_I).where(_I.c.key == sa.bindparam("wanted"))
_LOCKED: Final = _BY_KEY.with_for_update()
# Each effect runs this, and building a statement takes longer than SQLite's work, so build it once.
_NEWEST = sa.select(_I).where(_I.c.base_key == sa.bindparam("base")).order_by(_I.c.generation.desc()).limit(1)

_ONLY = {
    "twice": _I.c.duplicates != [],
    "sent again": _I.c.sent_again,
    "unended": sa.and_(_I.c.state.in_(("sent", "done")), _I.c.status.is_(None)),
}


class KnownIntents:
    """The reading half of `Intents`."""

    def __init__(self, store: Store, processes: Processes) -> None:
        self._store, self._processes = store, processes

    def get(self, key: str) -> IntentRow | None:
        """Return an intent by its key, or None."""
        with self._store.read() as connection:
            return row_of(connection, key)

    def find_many(self, keys: Sequence[str]) -> dict[str, IntentRow]:
        """Return the intents under these keys, by key; keys without an intent are left out."""
        with self._store.read() as connection:
            found: dict[str, IntentRow] = {}
            for start in range(0, len(keys), _AT_ONCE):
                query = sa.select(_I).where(_I.c.key.in_(keys[start : start + _AT_ONCE]))
                found |= {row["key"]: IntentRow(**row) for row in connection.execute(query).mappings()}
            return found

    def newest(self, base_key: str) -> IntentRow | None:
        """Return the newest generation of an intent by its base key, or None."""
        with self._store.read() as connection:
            row = connection.execute(_NEWEST, {"base": base_key}).mappings().first()
            return None if row is None else IntentRow(**row)

    def where(
        self,
        *,
        run_id: str | None = None,
        noun: str | None = None,
        state: State | None = None,
        urn: str | None = None,
        mentions: str | None = None,
        only: Literal["twice", "sent again", "unended"] | None = None,
        newest: bool = False,
        limit: int | None = 1000,
    ) -> list[IntentRow]:
        """Return intents in the order of their creation, or with `newest` the newest first.

        `mentions` selects those whose request has this text as a value; `only` those with duplicates ("twice"), those
        that were sent once more after a doubt ("sent again"), or those that were sent and whose end is not known
        ("unended"). With `limit` None, return all.
        """
        created = _I.c.created_at.desc() if newest else _I.c.created_at
        query = sa.select(_I).order_by(created, _I.c.key).limit(limit)
        if mentions is not None:
            request = sa.type_coerce(_I.c.request, sa.Text)
            query = query.where(request.contains(f'"{mentions}"', autoescape=True))
        if only is not None:
            query = query.where(_ONLY[only])
        for column, value in ((_I.c.run_id, run_id), (_I.c.noun, noun), (_I.c.state, state), (_I.c.urn, urn)):
            if value is not None:
                query = query.where(column == value)
        with self._store.read() as connection:
            return [IntentRow(**row) for row in connection.execute(query).mappings()]

    def counts(self, run_id: str) -> dict[str, int]:
        """Return how many intents of each noun a run requested, those that it requested first coming first."""
        query = sa.select(_I.c.noun, sa.func.count()).where(_I.c.run_id == run_id, _I.c.state == "done")
        query = query.group_by(_I.c.noun).order_by(sa.func.min(_I.c.created_at))
        with self._store.read() as connection:
            return dict(connection.execute(query).tuples().all())

    def held(self, intent: IntentRow) -> bool:
        """Return whether a live process seems to hold an intent. Only for display: a claim checks again."""
        if intent.process_id is None:
            return False
        with self._store.read() as connection:
            now = self._store.now(connection)
            return self._processes.seems_held(self._processes.read(connection, intent.process_id), intent.token, now)

    def holder(self, intent: IntentRow) -> ProcessRow | None:
        """Return the process that claimed an intent, alive or not; None if nobody holds it."""
        if intent.process_id is None:
            return None
        with self._store.read() as connection:
            return self._processes.read(connection, intent.process_id)

    def unasked(self, run_id: str, attempt_number: int) -> list[IntentRow]:
        """Return the effects that earlier attempts of a run requested, and attempt `attempt_number` has not so far.

        One that was requested again after a failure counts as requested. Calls that have effects of their own do not
        count, nor do effects that the whole account shares.
        """
        asked = sa.select(_I.c.base_key).where(_I.c.run_id == run_id, _I.c.asked_attempt >= attempt_number)
        query = (
            sa.select(_I)
            .where(_I.c.run_id == run_id, _I.c.base_key.not_in(asked), _I.c.state.in_(("sent", "done")))
            .where(_I.c.subject.is_not(None), _I.c.scope.like("run:%") | _I.c.scope.like("flow:%"))
            .order_by(_I.c.created_at)
        )
        with self._store.read() as connection:
            return [IntentRow(**row) for row in connection.execute(query).mappings()]

    def outcomes_of_others(self, key: str, urns: Sequence[str]) -> set[str]:
        """Return those of the URNs that are the outcome of another key."""
        query = sa.select(_I.c.urn).where(_I.c.urn.in_(list(urns)), _I.c.key != key)
        with self._store.read() as connection:
            return {str(urn) for (urn,) in connection.execute(query)}

    def rivals(self, intent: IntentRow) -> dict[str, bool]:
        """Return the keys of the other sent intents with the same request: any of them may own an effect with this
        content. True if a live call still waits for its reply."""
        query = sa.select(_I).where(
            _I.c.noun == intent.noun,
            _I.c.platform == intent.platform,
            _I.c.account == intent.account,
            _I.c.state == "sent",
            _I.c.key != intent.key,
        )
        with self._store.read() as connection:
            rows = [IntentRow(**row) for row in connection.execute(query).mappings()]
            return {row.key: self._waits(connection, row) for row in rows if row.request == intent.request}

    def succeeded(
        self, *, besides: str, platform: str, account: str, noun: str, definition: str
    ) -> list[tuple[Any, str, datetime]]:
        """Return the request, URN and creation of what succeeded and was requested by no run `besides`, newest first.

        An order or job has the `definition` of its service at that time.
        """
        query = sa.select(_I.c.request, _I.c.urn, _I.c.created_at).where(
            _I.c.state == "done",
            _I.c.noun == noun,
            _I.c.status == "succeeded",
            _I.c.definition == definition,
            _I.c.platform == platform,
            _I.c.account == account,
            _I.c.run_id.is_distinct_from(besides),
        )
        with self._store.read() as connection:
            return [(*row,) for row in connection.execute(query.order_by(_I.c.created_at.desc()))]

    def _waits(self, connection: Connection, row: IntentRow) -> bool:
        if row.in_doubt or row.process_id is None:
            return False
        return self._processes.holds(self._processes.read(connection, row.process_id), row.token)


def row_of(connection: Connection, key: str, *, lock: bool = False) -> IntentRow | None:
    """Return the intent under a key, or None.

    With `lock` nobody else changes it until the transaction ends. SQLite has no row locks and needs none: its writers
    take turns.
    """
    found = connection.execute(_LOCKED if lock else _BY_KEY, {"wanted": key}).mappings().first()
    return None if found is None else IntentRow(**found)
