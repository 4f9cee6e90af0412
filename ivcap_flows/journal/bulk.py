"""Intents by the hundred: the same states, fences and leases as one by one, in one transaction a call."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.journal import schema
from ivcap_flows.journal.intents import Intents, fresh_row
from ivcap_flows.journal.rows import Claim, IntentRow, NewIntent, ProcessRow
from ivcap_flows.journal.states import DONE, State, allowed

__all__ = ["GIVEN_UP", "RESEND", "BulkIntents", "Settled"]

GIVEN_UP: Final = "given up by the user"
"""Why an intent is abandoned that is not asked for again until the user says so."""
RESEND: Final = "to be sent again, by the user's word"
"""Why an intent is abandoned that is sent again, whatever there is of it."""

_I = schema.intents
_AT_ONCE: Final = 500
"""Keys in one statement; SQLite takes 999 values and more."""
_LEFT: Final[dict[str, Any]] = {"process_id": None, "token": None}


@dataclass(frozen=True)
class Settled:
    """The effect of an intent, as `Intents.settle_outcome` takes it."""

    intent: IntentRow
    urn: str
    outcome: Any
    how: str
    matched_by: str | None = None
    duplicates: Sequence[str] = ()


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
        with self._store.write() as connection:
            now = self._store.now(connection)
            known = self._rows(connection, [each.key for each in wanted])
            serial = self._store.serial(connection)
            rows = [fresh_row(each, now, serial) | _LEFT for each in wanted if each.key not in known]
            self._store.insert_all_new(connection, _I, rows)

    def claim_many(self, wanted: Sequence[NewIntent]) -> list[Claim]:
        """Ask for the right to cause each effect; the answers are in the order of the questions. See `claim`."""
        tokens = {each.key: str(uuid.uuid4()) for each in wanted}
        try:
            return self._claim_many(wanted, tokens)
        except BaseException:
            # The transaction may be on disk though its end was not heard of; nobody works on what it took.
            for token in tokens.values():
                self._processes.end(token)
            raise

    def mark_sent_many(self, intents: Sequence[IntentRow]) -> list[IntentRow]:
        """One request with all of them is about to leave: the last point at which a newer claim stops it."""
        with self._store.write() as connection:
            return self._move_many(connection, intents, "sent", {"sent_at": self._store.now(connection)})

    def mark_in_doubt_many(self, intents: Sequence[IntentRow], error: str) -> list[IntentRow]:
        """The reply was lost; the claims stay. The settling time counts from now."""
        with self._store.write() as connection:
            values = {"sent_at": self._store.now(connection), "error": error}
            return self._move_many(connection, intents, "in_doubt", values)

    def progress_many(self, intents: Sequence[IntentRow], progress: Any) -> list[IntentRow]:
        """Store what all of them, which are in one state, need to be gone on with."""
        with self._store.write() as connection:
            return self._move_many(connection, intents, intents[0].state, {"progress": progress}) if intents else []

    def leave_many(
        self, progress: Mapping[str, Any], errors: Mapping[str, str], intents: Sequence[IntentRow]
    ) -> list[IntentRow]:
        """Nobody knows what came of them, and looking again now is of no use; ends the claims. Both are by key."""
        values = {
            intent.key: {"progress": progress[intent.key], "error": errors[intent.key], **_LEFT} for intent in intents
        }
        with self._store.write() as connection:
            moved = self._move_many(connection, intents, "in_doubt", {}, values)
        self.release_many(intents)
        return moved

    def settle_many(self, settled: Sequence[Settled]) -> list[IntentRow]:
        """The effects exist; ends the claims."""
        values = {
            one.intent.key: {
                "urn": one.urn,
                "outcome": one.outcome,
                "how": one.how,
                "matched_by": one.matched_by,
                "duplicates": [*one.intent.duplicates, *one.duplicates],
                "error": None,
                **_LEFT,
            }
            for one in settled
        }
        with self._store.write() as connection:
            moved = self._move_many(connection, [one.intent for one in settled], "accepted", {}, values)
        self.release_many(one.intent for one in settled)
        return moved

    def abandon_many(self, errors: Mapping[str, str], intents: Sequence[IntentRow]) -> list[IntentRow]:
        """Surely no effect came of them; ends the claims. `errors` says by key why."""
        values = {intent.key: {"error": errors[intent.key], "progress": None, **_LEFT} for intent in intents}
        with self._store.write() as connection:
            moved = self._move_many(connection, intents, "abandoned", {}, values)
        self.release_many(intents)
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
        """Leave the claims as they stand. Needs no database."""
        for intent in intents:
            self.release(intent)

    def _claim_many(self, wanted: Sequence[NewIntent], tokens: dict[str, str]) -> list[Claim]:
        with self._store.write() as connection:
            if not self._store.is_sqlite:
                # In one order for all, or two callers would wait for each other.
                for key in sorted(tokens):
                    self._take_turn(connection, f"key:{key}")
            now = self._store.now(connection)
            serial = self._store.serial(connection)
            process_id = self._processes.mine(connection, now)
            # Locked, or a holder could go on from what is read here, and be done, before it is asked after.
            known = self._rows(connection, sorted(tokens), lock=True)
            holders: dict[str, ProcessRow] = {}
            claims: list[Claim] = []
            fresh: list[dict[str, Any]] = []
            taken: list[dict[str, Any]] = []
            for each in wanted:
                mine = {"process_id": process_id, "token": tokens[each.key]}
                row = known.get(each.key)
                if row is None:
                    fresh.append(fresh_row(each, now, serial) | mine)
                    claims.append(Claim("new", IntentRow(**fresh[-1])))
                    continue
                again = (row.run_id, row.asked_attempt) == (each.run_id, each.attempt_number)
                if row.state in DONE:
                    claims.append(Claim("kept", row, again))
                    continue
                last = None
                if row.process_id is not None:
                    if row.process_id not in holders:
                        holders[row.process_id] = self._processes.read(connection, row.process_id)
                    last = holders[row.process_id]
                if last is not None and self._processes.holds(last, row.token, now):
                    claims.append(Claim("held", row, again))
                    continue
                unsent = row.state in ("intent", "abandoned")
                after: State = "intent" if unsent else "in_doubt"
                self._check_arrow(row, after)
                sent_at = None if unsent else row.sent_at
                if row.state == "sent" and row.sent_at is not None and last is not None:
                    # The request can have left as late as its holder was last seen.
                    sent_at = max(row.sent_at, last.beat_at)
                values: dict[str, Any] = {
                    **mine,
                    "state": after,
                    "fence": row.fence + 1,
                    "updated_at": now,
                    "sent_at": sent_at,
                    "error": None if unsent else row.error,
                    "run_id": each.run_id if unsent else row.run_id,
                    "attempt_id": each.attempt_id if unsent else row.attempt_id,
                    "asked_attempt": each.attempt_number if unsent else row.asked_attempt,
                }
                taken.append({"b_key": row.key, **{f"v_{name}": value for name, value in values.items()}})
                claims.append(Claim("new" if unsent else "doubt", replace(row, **values), again))
            if fresh:
                connection.execute(sa.insert(_I), fresh)
            if taken:
                names = [name.removeprefix("v_") for name in taken[0] if name != "b_key"]
                change = sa.update(_I).where(_I.c.key == sa.bindparam("b_key", type_=sa.Text))
                connection.execute(
                    change.values({name: sa.bindparam(f"v_{name}", type_=_I.c[name].type) for name in names}), taken
                )
            for claim in claims:
                if claim.kind in ("new", "doubt"):
                    self._processes.begin(tokens[claim.intent.key])
            return claims

    def _move_many(
        self,
        connection: Connection,
        held: Sequence[IntentRow],
        after: State,
        common: dict[str, Any],
        each: Mapping[str, dict[str, Any]] | None = None,
    ) -> list[IntentRow]:
        """One arrow of the table for all that are still held as the caller knows them."""
        now = self._store.now(connection)
        rows = self._rows(connection, sorted(intent.key for intent in held), lock=True)
        moved: list[IntentRow] = []
        changes: list[dict[str, Any]] = []
        for intent in held:
            row = rows.get(intent.key)
            if row is None or row.fence != intent.fence or not allowed(row.state, after):
                continue
            values = {**common, **((each or {}).get(intent.key) or {}), "state": after, "updated_at": now}
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
        found: dict[str, IntentRow] = {}
        for start in range(0, len(keys), _AT_ONCE):
            query = sa.select(_I).where(_I.c.key.in_(keys[start : start + _AT_ONCE])).order_by(_I.c.key)
            if lock and not self._store.is_sqlite:
                query = query.with_for_update()
            for row in connection.execute(query).mappings():
                found[row["key"]] = IntentRow(**row)
        return found
