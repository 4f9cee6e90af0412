"""Intents: every effect is written here before it is sent, so that it is neither lost nor sent twice.

A holder claims a key and gets a fencing number; each later write names it and is refused once another has claimed.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.errors import DurabilityError, FencedError, InDoubtError, SpendLimitError
from ivcap_flows.journal import schema
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.rows import Claim, IntentRow, NewIntent
from ivcap_flows.journal.states import DONE, OPEN, State, allowed
from ivcap_flows.journal.store import Store

__all__ = ["WRITTEN_OFF", "Intents", "fresh_row"]

WRITTEN_OFF: Final = "written off by the user"
"""The error of what the user has given up."""

_I = schema.intents
# What each effect needs several times is put together once: that takes longer than SQLite does.
_NEWEST = sa.select(_I).where(_I.c.base_key == sa.bindparam("base")).order_by(_I.c.generation.desc()).limit(1)
_BY_KEY = sa.select(_I).where(_I.c.key == sa.bindparam("wanted"))
_LOCKED = _BY_KEY.with_for_update()


@cache
def _moving(*names: str) -> sa.Update:
    """The change of these columns in the row that the holder knows."""
    held = [_I.c[name] == sa.bindparam(f"held_{name}", type_=_I.c[name].type) for name in ("key", "fence", "state")]
    new = {name: sa.bindparam(f"new_{name}", type_=_I.c[name].type) for name in names}
    return sa.update(_I).where(*held).values(new)


class Intents:
    """The intents of one journal."""

    def __init__(self, store: Store, processes: Processes) -> None:
        self._store = store
        self._processes = processes

    def claim(self, wanted: NewIntent, *, spend_limit: int | None = None) -> Claim:
        """Ask for the right to cause an effect; see `Claim` for the answers.

        A claim of kind "new" or "doubt" is held until the intent is done or abandoned, or `release` is called, or
        the process ends. With `spend_limit`, SpendLimitError when the run has as many spending intents already.
        """
        token = str(uuid.uuid4())
        try:
            return self._claim(wanted, spend_limit, token)
        except BaseException:
            # A transaction may be on disk though its end was not heard of; nobody works on what it took.
            self._processes.end(token)
            raise

    def _claim(self, wanted: NewIntent, spend_limit: int | None, token: str) -> Claim:
        with self._store.write() as connection:
            if not self._store.is_sqlite:
                # Before the first row there is nothing to lock; the limit needs all claims of a run to take turns.
                turns = [f"run:{wanted.run_id}"] if spend_limit is not None else []
                for name in (*turns, f"key:{wanted.key}"):
                    self._take_turn(connection, name)
            now = self._store.now(connection)
            process_id = self._processes.mine(connection, now)
            holder = {"process_id": process_id, "token": token, "updated_at": now}
            owner = {"run_id": wanted.run_id, "attempt_id": wanted.attempt_id}
            fresh = {**fresh_row(wanted, now, self._store.serial(connection)), **holder}
            if self._store.insert_new(connection, _I, fresh):
                self._check_limit(connection, wanted, spend_limit)
                self._processes.begin(token)
                return Claim("new", IntentRow(**fresh))

            # Locked, or its holder could go on from what is read here, and be done, before it is asked after.
            row = self._get(connection, wanted.key, lock=True)
            again = (row.run_id, row.asked_attempt) == (wanted.run_id, wanted.attempt_number)
            if row.run_id == wanted.run_id and row.asked_attempt < wanted.attempt_number:
                asked = sa.update(_I).where(_I.c.base_key == wanted.base_key, _I.c.run_id == wanted.run_id)
                connection.execute(asked.values(asked_attempt=wanted.attempt_number))
            if row.state in DONE:
                return Claim("kept", self._get(connection, wanted.key), again)
            last = None if row.process_id is None else self._processes.read(connection, row.process_id)
            if last is not None and self._processes.holds(last, row.token, now):
                return Claim("held", row, again)
            # What was surely never sent begins anew and belongs to whoever asks now.
            unsent = row.state in ("intent", "abandoned")
            after: State = "intent" if unsent else "in_doubt"
            self._check_arrow(row, after)
            values: dict[str, Any] = {**holder, "state": after, "fence": row.fence + 1}
            if unsent:
                values |= {**owner, "asked_attempt": wanted.attempt_number, "sent_at": None, "error": None}
                values |= {"spends": wanted.spends, "definition": wanted.definition, "reuse": wanted.reuse}
            elif row.state == "sent" and row.sent_at is not None and last is not None:
                # The request can have left as late as its holder was last seen.
                values["sent_at"] = max(row.sent_at, last.beat_at)
            connection.execute(sa.update(_I).where(_I.c.key == wanted.key).values(values))
            if row.state == "abandoned" or (unsent and not row.spends):
                self._check_limit(connection, wanted, spend_limit)
            self._processes.begin(token)
            return Claim("new" if unsent else "doubt", self._get(connection, wanted.key), again)

    def mark_sent(self, intent: IntentRow) -> IntentRow:
        """The request is about to leave: the last point at which a newer claim stops it."""
        with self._store.write() as connection:
            return self._move(connection, intent, "sent", {"sent_at": self._store.now(connection)})

    def mark_in_doubt(self, intent: IntentRow, error: str) -> IntentRow:
        """The reply was lost; the claim stays. The settling time counts from now."""
        with self._store.write() as connection:
            values = {"sent_at": self._store.now(connection), "error": error}
            return self._move(connection, intent, "in_doubt", values)

    def progress(self, intent: IntentRow, progress: Any) -> IntentRow:
        """Store what a resumable effect needs to go on, such as the URL of an upload."""
        with self._store.write() as connection:
            return self._move(connection, intent, intent.state, {"progress": progress})

    def settle_outcome(
        self,
        intent: IntentRow,
        *,
        urn: str | None,
        outcome: Any,
        how: str,
        matched_by: str | None = None,
        duplicates: Sequence[str] = (),
    ) -> IntentRow:
        """The effect exists; ends the claim. `how` is "sent", "adopted" or "reused", `outcome` its JSON form.

        InDoubtError if it is known by its content alone and another key has taken it meanwhile.
        """
        with self._store.write() as connection:
            if matched_by == "content" and urn is not None:
                if not self._store.is_sqlite:
                    self._take_turn(connection, f"urn:{urn}")
                if connection.execute(sa.select(_I.c.key).where(_I.c.urn == urn, _I.c.key != intent.key)).first():
                    raise InDoubtError(
                        f"{urn} was taken for another {intent.noun} meanwhile.", key=intent.key, candidates=[urn]
                    )
            known = [*intent.duplicates, *(other for other in duplicates if other not in intent.duplicates)]
            values = {"urn": urn, "outcome": outcome, "how": how, "matched_by": matched_by}
            values |= {"duplicates": known, "error": None, **_LEFT}
            row = self._move(connection, intent, "accepted", values)
        self._end(intent)
        return row

    def abandon(self, intent: IntentRow, error: str) -> IntentRow:
        """Surely no effect came of it; ends the claim, and the same may be asked for again."""
        with self._store.write() as connection:
            row = self._move(connection, intent, "abandoned", {"error": error, "progress": None, **_LEFT})
        self._end(intent)
        return row

    def release(self, intent: IntentRow) -> None:
        """Leave the claim as it stands; what has left stays in doubt for whoever asks next. Needs no database."""
        self._end(intent)

    def finish(self, key: str, status: str, outcome: Any = None) -> IntentRow | None:
        """The platform's work has ended with `status`; needs no claim, since it can only be seen, not caused.

        `outcome` replaces the stored one if given. None for a key that this journal does not have; an intent that is
        not known to be accepted stays as it is.
        """
        with self._store.write() as connection:
            row = self._find(connection, key)
            if row is None or row.state not in DONE:
                return row
            values = {"status": status} if outcome is None else {"status": status, "outcome": outcome}
            return self._move(connection, row, "terminal", values)

    def note_duplicates(self, key: str, urns: Sequence[str]) -> None:
        """Keep the URNs of further effects that were found under a key that is done."""
        with self._store.write() as connection:
            row = self._get(connection, key)
            known = [*row.duplicates, *(urn for urn in urns if urn not in row.duplicates and urn != row.urn)]
            self._move(connection, row, row.state, {"duplicates": known})

    def resolve(self, key: str, *, urn: str, outcome: Any) -> IntentRow:
        """The user's word on an intent in doubt: the effect is `urn`, of which `outcome` is the JSON form.

        DurabilityError while a live process is at it, or when it is not in doubt.
        """
        found = {"urn": urn, "outcome": outcome, "how": "adopted", "matched_by": "user"}
        return self._decide(key, "accepted", found)

    def write_off(self, key: str) -> IntentRow:
        """The user's word on an intent in doubt: no effect came of it, so that the same may be sent again.

        DurabilityError while a live process is at it, or when it is not in doubt.
        """
        return self._decide(key, "abandoned", {"error": WRITTEN_OFF, "progress": None})

    def take_over(self, key: str) -> IntentRow:
        """The user's word on an effect that exists: whoever waited for it is gone, and the user sees to it.

        DurabilityError where it is not known to exist.
        """
        with self._store.write() as connection:
            row = self._get(connection, key, lock=True)
            if row.state not in DONE:
                raise DurabilityError(
                    f"The {row.noun} {key} is {row.state}, so there is nothing to take over.", key=key
                )
            return self._move(connection, row, row.state, {"matched_by": "user"})

    def account_for(self, key: str, status: str) -> IntentRow:
        """The user's word on an effect that ended with `status` and that nobody waits for: it is written off.

        It stays the answer to whoever asks for it again, since it is paid for.
        """
        with self._store.write() as connection:
            row = self._get(connection, key, lock=True)
            return self._move(connection, row, "terminal", {"status": status, "error": WRITTEN_OFF})

    def restore(self, wanted: NewIntent, created_at: datetime, *, urn: str | None, outcome: Any) -> bool:
        """Write down an intent of another journal, from what the platform tells of it; False where the key is known.

        One without a `urn` is in doubt from now on.
        """
        with self._store.write() as connection:
            row = {**fresh_row(wanted, created_at, self._store.serial(connection)), **_LEFT}
            if not self._store.insert_new(connection, _I, row):
                return False
            if urn is None:
                doubt = {"sent_at": self._store.now(connection), "error": "known from its key aspect alone"}
                self._move(connection, IntentRow(**row), "in_doubt", doubt)
            else:
                known = {"urn": urn, "outcome": outcome, "how": "adopted", "matched_by": "key"}
                self._move(connection, IntentRow(**row), "accepted", known)
            return True

    def _decide(self, key: str, after: State, values: dict[str, Any]) -> IntentRow:
        with self._store.write() as connection:
            row = self._get(connection, key, lock=True)
            now = self._store.now(connection)
            if row.state not in OPEN:
                raise DurabilityError(
                    f"The {row.noun} {key} is {row.state}, not in doubt, so there is nothing to decide.", key=key
                )
            if row.process_id is not None:
                holder = self._processes.read(connection, row.process_id)
                if self._processes.holds(holder, row.token, now):
                    raise DurabilityError(
                        f"The {row.noun} {key} is being worked on by process {holder.pid} on {holder.host}. "
                        "Wait for it or end it, then try again.",
                        key=key,
                    )
            if row.state == "sent":
                row = self._move(connection, row, "in_doubt", {})
            return self._move(connection, row, after, {**values, "fence": row.fence + 1, **_LEFT})

    def get(self, key: str) -> IntentRow | None:
        """An intent by its key."""
        with self._store.read() as connection:
            return self._find(connection, key)

    def newest(self, base_key: str) -> IntentRow | None:
        """The newest generation under a key."""
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
        twice: bool = False,
        newest: bool = False,
        limit: int | None = 1000,
    ) -> list[IntentRow]:
        """Intents in the order of their making, or the `newest` first; `limit` None gives all.

        With `mentions` only those whose request has this text as a value, with `twice` only those with duplicates.
        """
        order = (_I.c.serial.desc(),) if newest else (_I.c.created_at, _I.c.key)
        query = sa.select(_I).order_by(*order).limit(limit)
        if mentions is not None:
            request = sa.type_coerce(_I.c.request, sa.Text)
            query = query.where(request.contains(f'"{mentions}"', autoescape=True))
        if twice:
            query = query.where(_I.c.duplicates != [])
        for column, value in ((_I.c.run_id, run_id), (_I.c.noun, noun), (_I.c.state, state), (_I.c.urn, urn)):
            if value is not None:
                query = query.where(column == value)
        with self._store.read() as connection:
            return [IntentRow(**row) for row in connection.execute(query).mappings()]

    def held(self, intent: IntentRow) -> bool:
        """Whether a live process is at an intent."""
        if intent.process_id is None:
            return False
        with self._store.read() as connection:
            now = self._store.now(connection)
            return self._processes.holds(self._processes.read(connection, intent.process_id), intent.token, now)

    def unasked(self, wanted: NewIntent) -> list[IntentRow]:
        """Effects on the same subject that earlier attempts of the run caused and this attempt has not asked for."""
        query = (
            sa.select(_I)
            .where(_I.c.run_id == wanted.run_id, _I.c.noun == wanted.noun, _I.c.subject == wanted.subject)
            .where(_I.c.asked_attempt < wanted.attempt_number, _I.c.base_key != wanted.base_key)
            .where(_I.c.state.in_(("sent", "in_doubt", "accepted", "terminal")), ~_I.c.scope.like("call:%"))
            .order_by(_I.c.created_at)
        )
        with self._store.read() as connection:
            return [IntentRow(**row) for row in connection.execute(query).mappings()]

    def claimed_by_others(self, key: str, urns: Sequence[str]) -> set[str]:
        """Which of the URNs are the outcome of another key."""
        query = sa.select(_I.c.urn).where(_I.c.urn.in_(list(urns)), _I.c.key != key)
        with self._store.read() as connection:
            return {str(urn) for (urn,) in connection.execute(query)}

    def rivals(self, intent: IntentRow) -> int:
        """How many other intents may be the cause of an effect of the same content: sent, and not known to be done."""
        query = sa.select(_I).where(
            _I.c.noun == intent.noun,
            _I.c.platform == intent.platform,
            _I.c.account == intent.account,
            _I.c.state.in_(("sent", "in_doubt")),
            _I.c.key != intent.key,
        )
        with self._store.read() as connection:
            rows = connection.execute(query).mappings()
            return sum(IntentRow(**row).request == intent.request for row in rows)

    def _take_turn(self, connection: Connection, name: str) -> None:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    def _check_limit(self, connection: Connection, wanted: NewIntent, limit: int | None) -> None:
        if limit is None or not wanted.spends or wanted.run_id is None:
            return
        spending = (_I.c.run_id == wanted.run_id, _I.c.spends, _I.c.state != "abandoned", _I.c.key != wanted.key)
        placed = connection.execute(sa.select(sa.func.count()).select_from(_I).where(*spending)).scalar_one()
        if placed >= limit:
            raise SpendLimitError(
                f"The run has asked for {placed} of at most {limit} (max_orders), so the {wanted.noun} "
                f"for {wanted.subject} was not sent. Raise IVCAP_FLOWS_MAX_ORDERS if this is meant.",
                limit=limit,
                placed=placed,
                service=wanted.subject,
            )

    def _check_arrow(self, row: IntentRow, after: State) -> None:
        if not allowed(row.state, after):
            raise DurabilityError(f"The {row.noun} {row.key} is {row.state} and cannot become {after}.", key=row.key)

    def _move(self, connection: Connection, held: IntentRow, after: State, values: dict[str, Any]) -> IntentRow:
        """One arrow of the table. The row is locked by the update itself, so state and fence are checked with it."""
        changed = {**values, "state": after, "updated_at": self._store.now(connection)}
        # Who has the newest fence and state knows the rest of the row, so it is read only where that is not so.
        row = held
        if not allowed(held.state, after) or not self._moved(connection, held, changed):
            row = self._get(connection, held.key)
            if row.fence == held.fence:
                self._check_arrow(row, after)
            if row.fence != held.fence or not self._moved(connection, row, changed):
                raise FencedError(f"Another process has taken over the {row.noun} {row.key}.", key=row.key)
        return replace(row, **changed)

    def _moved(self, connection: Connection, row: IntentRow, changed: dict[str, Any]) -> bool:
        held = {"held_key": row.key, "held_fence": row.fence, "held_state": row.state}
        values = {f"new_{name}": value for name, value in changed.items()}
        return connection.execute(_moving(*changed), held | values).rowcount == 1

    def _find(self, connection: Connection, key: str, *, lock: bool = False) -> IntentRow | None:
        # SQLite has no such lock and needs none: its writers take turns.
        row = connection.execute(_LOCKED if lock else _BY_KEY, {"wanted": key}).mappings().first()
        return None if row is None else IntentRow(**row)

    def _get(self, connection: Connection, key: str, *, lock: bool = False) -> IntentRow:
        row = self._find(connection, key, lock=lock)
        if row is None:
            raise DurabilityError(f"The journal {self._store.url} has no intent {key}.", key=key)
        return row

    def _end(self, intent: IntentRow) -> None:
        if intent.token is not None:
            self._processes.end(intent.token)


_LEFT: dict[str, Any] = {"process_id": None, "token": None}


def fresh_row(wanted: NewIntent, now: datetime, serial: int) -> dict[str, Any]:
    """The row of an intent that nobody has asked for before."""
    nothing = dict.fromkeys(("sent_at", "progress", "urn", "outcome", "how", "matched_by", "status", "error"))
    return {
        **{name: value for name, value in vars(wanted).items() if name != "attempt_number"},
        **nothing,
        "asked_attempt": wanted.attempt_number,
        "state": "intent",
        "fence": 1,
        "serial": serial,
        "created_at": now,
        "updated_at": now,
        "duplicates": [],
    }
