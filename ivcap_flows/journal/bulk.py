"""Intents by the hundred: the same states, fences and leases as one by one, in one transaction a call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.journal import schema
from ivcap_flows.journal.claims import LEFT, fresh_row, rows_of
from ivcap_flows.journal.intents import Intents, sending, told, with_duplicates
from ivcap_flows.journal.rows import GIVEN_UP, LEAVES_WITHIN, RESEND, Claim, IntentRow, NewIntent, Settled
from ivcap_flows.journal.states import State, allowed

if TYPE_CHECKING:
    from ivcap_flows.http.server_clock import ServerTime

__all__ = ["BulkIntents"]

_I = schema.intents


class BulkIntents(Intents):
    """The intents of one journal, also many at a time.

    Of intents that another process has taken over meanwhile a call leaves out all and changes none: what it returns is
    what is still the caller's.
    """

    def find_many(self, keys: Sequence[str]) -> dict[str, IntentRow]:
        """The intents that there are under these keys."""
        with self._store.read() as connection:
            return self._rows(connection, keys)

    def note_many(self, wanted: Sequence[NewIntent]) -> None:
        """Write down what is going to be asked for, held by nobody yet; what is there already stays as it is."""
        wanted = [self._redaction.of_intent(each) for each in wanted]
        with self._store.write() as connection:
            self._store.take_turns(connection, *(f"key:{key}" for key in sorted(each.key for each in wanted)))
            now = self._store.now(connection)
            known = self._rows(connection, [each.key for each in wanted])
            serial = self._store.serial(connection)
            rows = [fresh_row(each, now, serial) | LEFT for each in wanted if each.key not in known]
            self._store.insert_all_new(connection, _I, rows)

    def claim_many(self, wanted: Sequence[NewIntent]) -> list[Claim]:
        """Ask for the right to cause each effect; see `Claims.take`."""
        return self._claims.take(wanted)

    def mark_sent_many(
        self, intents: Sequence[IntentRow], leaves_within: float = LEAVES_WITHIN, time: ServerTime | None = None
    ) -> list[IntentRow]:
        """One request with all of them is about to leave: the last point at which a newer claim stops it. `time` is
        the platform's."""
        with self._store.write() as connection:
            now = self._store.now(connection)
            each = {intent.key: sending(intent, now, time, leaves_within) for intent in intents}
            return self._move_many(connection, intents, "sent", {}, each)

    def mark_in_doubt_many(
        self, intents: Sequence[IntentRow], error: str, time: ServerTime | None = None
    ) -> list[IntentRow]:
        """The reply was lost; the claims stay. The visibility delay counts from now, by the platform's clock `time`."""
        with self._store.write() as connection:
            now = self._store.now(connection)
            each = {intent.key: sending(intent, now, time) for intent in intents}
            return self._move_many(connection, intents, "in_doubt", {"error": error}, each)

    def progress_many(self, intents: Sequence[IntentRow], progress: Any) -> list[IntentRow]:
        """Store what all of them, which are in one state, need to be gone on with."""
        with self._store.write() as connection:
            return self._move_many(connection, intents, intents[0].state, {"progress": progress}) if intents else []

    def leave_many(
        self, progress: Mapping[str, Any], errors: Mapping[str, str], intents: Sequence[IntentRow]
    ) -> list[IntentRow]:
        """Nobody knows what came of them, and looking again now is of no use; ends the claims. Both are by key."""
        values = {
            intent.key: {"progress": progress[intent.key], "error": errors[intent.key], **LEFT} for intent in intents
        }
        with self._store.write() as connection:
            moved = self._move_many(connection, intents, "in_doubt", {}, values)
        self._end_all(intents)
        return moved

    def settle_many(self, settled: Sequence[Settled]) -> list[IntentRow]:
        """The effects exist; ends the claims."""
        values = {
            one.intent.key: {
                "urn": one.urn,
                "outcome": self._redaction.of(one.outcome),
                "how": one.how,
                "matched_by": one.matched_by,
                "duplicates": list(one.duplicates),
                "error": None,
                **LEFT,
            }
            for one in settled
        }
        with self._store.write() as connection:
            moved = self._move_many(connection, [one.intent for one in settled], "accepted", {}, values)
        self._end_all([one.intent for one in settled])
        return moved

    def abandon_many(self, errors: Mapping[str, str], intents: Sequence[IntentRow]) -> list[IntentRow]:
        """Surely no effect came of them; ends the claims. `errors` says by key why."""
        values = {intent.key: {"error": errors[intent.key], "progress": None, **LEFT} for intent in intents}
        with self._store.write() as connection:
            moved = self._move_many(connection, intents, "abandoned", {}, values)
        self._end_all(intents)
        return moved

    def give_up(self, key: str) -> IntentRow:
        """The user's word on an intent in doubt: whatever came of it, it is not sent again by itself.

        DurabilityError while a live process is at it, or when it is not in doubt.
        """
        return self._decide(key, "abandoned", {"error": GIVEN_UP, "progress": None})

    def send_again(self, key: str) -> IntentRow:
        """The user's word on an intent in doubt or given up: it is sent once more, whatever came of it.

        DurabilityError while a live process is at it, or when there is no doubt.
        """
        row = self.get(key)
        if row is not None and row.state == "abandoned":
            with self._store.write() as connection:
                connection.execute(sa.update(_I).where(_I.c.key == key, _I.c.fence == row.fence).values(error=RESEND))
                return self._get(connection, key)
        return self._decide(key, "abandoned", {"error": RESEND, "progress": None})

    def release_many(self, intents: Iterable[IntentRow]) -> None:
        """End the claims and leave the intents as they stand, as `release` does."""
        self._claims.release(intents)

    def _move_many(
        self,
        connection: Connection,
        held: Sequence[IntentRow],
        after: State,
        common: dict[str, Any],
        each: Mapping[str, dict[str, Any]] | None = None,
    ) -> list[IntentRow]:
        """One arrow of the table for all that are still held as the caller knows them. Duplicates are added."""
        now = self._store.now(connection)
        rows = self._rows(connection, sorted(intent.key for intent in held), lock=True)
        moved: list[IntentRow] = []
        changes: list[dict[str, Any]] = []
        for intent in held:
            row = rows.get(intent.key)
            if row is None or row.fence != intent.fence or not allowed(row.state, after):
                continue
            changed = told({**common, **((each or {}).get(intent.key) or {})})
            values = {**changed, "state": after, "updated_at": now}
            if "duplicates" in values:
                values["duplicates"] = with_duplicates(row.duplicates, values["duplicates"], values["urn"])
            changes.append({"b_key": row.key, **{f"v_{name}": value for name, value in values.items()}})
            moved.append(replace(row, **values))
        if changes:
            names = [name.removeprefix("v_") for name in changes[0] if name != "b_key"]
            change = sa.update(_I).where(_I.c.key == sa.bindparam("b_key", type_=sa.Text))
            connection.execute(
                change.values({name: sa.bindparam(f"v_{name}", type_=_I.c[name].type) for name in names}), changes
            )
        return moved

    def _rows(self, connection: Connection, keys: Sequence[str], *, lock: bool = False) -> dict[str, IntentRow]:
        return rows_of(self._store, connection, keys, lock=lock)

    def _end_all(self, intents: Iterable[IntentRow]) -> None:
        for intent in intents:
            self._end(intent)
