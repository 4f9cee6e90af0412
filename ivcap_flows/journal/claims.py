"""Claims: the right to cause an effect, given to one call at a time and ended with that call.

A claim names the process and, by a token, the call in that process. It ends with the call, which is written to the
journal so that other processes see it, or with the process, which `Processes` detects.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.errors import DurabilityError, SpendLimitError
from ivcap_flows.journal import schema
from ivcap_flows.journal.known_intents import KnownIntents, row_of
from ivcap_flows.journal.observer import IntentMoved, LimitReached
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.redaction import Redaction
from ivcap_flows.journal.rows import Claim, IntentRow, NewIntent, ProcessRow
from ivcap_flows.journal.states import State, allowed
from ivcap_flows.journal.store import Store

__all__ = ["LEFT", "Claims", "check_arrow", "fresh_row"]

LEFT: Final[dict[str, Any]] = {"process_id": None, "token": None}
"""The holder's columns in the row of an intent that nobody holds."""

_I = schema.intents
_TAKEN: Final = (
    *("process_id", "token", "updated_at", "state", "fence", "sent_at", "lingering", "error"),
    *("run_id", "attempt_id", "asked_attempt", "spends", "definition", "reuse", "name"),
    "platform_time",
)
"""The columns that a claim changes."""
_TAKE: Final = (
    sa.update(_I)
    .where(_I.c.key == sa.bindparam("b_key", type_=sa.Text))
    .values({name: sa.bindparam(f"v_{name}", type_=_I.c[name].type) for name in _TAKEN})
)
_HOLDER_ENDED: Final = "the process that sent it has ended"
_ASKED: Final = (
    sa.update(_I)
    .where(_I.c.base_key == sa.bindparam("b_base"), _I.c.run_id == sa.bindparam("b_run"))
    .where(_I.c.asked_attempt < sa.bindparam("b_asked"))
    .values(asked_attempt=sa.bindparam("b_asked"))
)


class Claims(KnownIntents):
    """The claiming part of `Intents`."""

    def __init__(self, store: Store, processes: Processes, redaction: Redaction) -> None:
        super().__init__(store, processes)
        self._redaction = redaction

    def claim(self, wanted: NewIntent, *, spend_limit: int | None = None, in_doubt: bool = False) -> Claim:
        """Request the right to cause an effect; with `in_doubt`, only if a request may have left, and to settle that.

        A claim of kind "new" or "doubt" is held until the intent is done, dropped or released, or the process ends.
        Raise SpendLimitError if the run already has `spend_limit` intents that spend.
        """
        wanted = self._redaction.of_intent(wanted)
        token = str(uuid.uuid4())
        try:
            with self._processes.taking(wanted.key, token), self._store.write() as connection:
                claim = self._claim(connection, wanted, token, spend_limit, in_doubt)
                if claim.kind in ("new", "doubt"):
                    self._processes.begin(token)
                return claim
        except SpendLimitError as error:
            self._store.tell(LimitReached(wanted.run_id, error))
            raise

    def release(self, intent: IntentRow) -> None:
        """End a claim and leave the intent in its state. One that has already ended stays as it is.

        Never raise JournalError: what cannot be written now is written with one of the next heartbeats.
        """
        if intent.token is not None and self._processes.runs(intent.token):
            self._processes.release(intent.key, intent.token)

    def _claim(
        self, connection: Connection, wanted: NewIntent, token: str, spend_limit: int | None, in_doubt: bool
    ) -> Claim:
        # A key without a row has nothing to lock, so callers take turns by name. For the limit, all claims of a run
        # take turns.
        limited = [] if spend_limit is None else [f"run:{wanted.run_id}"]
        self._store.take_turns(connection, *limited, f"key:{wanted.key}")
        now = self._store.now(connection)
        mine: dict[str, Any] = {"process_id": self._processes.register_and_beat(connection, now), "token": token}
        # Locked: otherwise a holder could change its row, or finish, before the check whether it still holds it.
        row = row_of(connection, wanted.key, lock=True)
        if row is None:
            values = fresh_row(wanted, now) | mine
            if wanted.key != wanted.base_key:
                _note_asked(connection, wanted)
            connection.execute(sa.insert(_I), values)
            self._check_limit(connection, wanted, spend_limit)
            return Claim("new", IntentRow(**values))
        if row.run_id == wanted.run_id and row.asked_attempt < wanted.attempt_number:
            row = replace(row, asked_attempt=wanted.attempt_number)
            _note_asked(connection, wanted)
        if row.state == "done" or (in_doubt and row.state != "sent"):
            return Claim("kept", row)
        if row.given_up:
            return Claim("given up", row)
        holder = None if row.process_id is None else self._processes.read(connection, row.process_id)
        if holder is not None and self._processes.holds(holder, row.token):
            return Claim("held", row)
        kind, taken = self._taken_over(row, wanted, holder)
        taken = replace(taken, **mine, updated_at=now, fence=row.fence + 1)
        check_arrow(row, taken.state)
        self._store.note(IntentMoved(row, taken))
        values = {f"v_{name}": getattr(taken, name) for name in _TAKEN}
        connection.execute(_TAKE, {"b_key": row.key, **values})
        if row.state == "dropped" or (kind == "new" and not row.spends):
            self._check_limit(connection, wanted, spend_limit)
        return Claim(kind, taken, resent=row.state == "dropped", wanted_anew=row.wanted_anew)

    def _taken_over(self, row: IntentRow, wanted: NewIntent, holder: ProcessRow | None) -> tuple[Any, IntentRow]:
        """Return the kind and the row of a claim on an intent that nobody holds."""
        if row.in_doubt:
            return "doubt", row
        if row.state == "sent":
            lingering = holder is not None and not self._processes.has_left(holder)
            return "doubt", replace(row, lingering=lingering, error=_HOLDER_ENDED)
        # Certainly never sent, so it starts again and belongs to the caller.
        return "new", replace(
            row,
            state="claimed",
            sent_at=None,
            lingering=False,
            error=None,
            run_id=wanted.run_id,
            attempt_id=wanted.attempt_id,
            asked_attempt=wanted.attempt_number,
            spends=wanted.spends,
            definition=wanted.definition,
            reuse=wanted.reuse,
            name=wanted.name,
            platform_time=row.platform_time or wanted.platform_time,
        )

    def _check_limit(self, connection: Connection, wanted: NewIntent, limit: int | None) -> None:
        if limit is None or not wanted.spends or wanted.run_id is None:
            return
        spending = (_I.c.run_id == wanted.run_id, _I.c.spends, _I.c.state != "dropped", _I.c.key != wanted.key)
        placed = connection.execute(sa.select(sa.func.count()).select_from(_I).where(*spending)).scalar_one()
        if placed >= limit:
            raise SpendLimitError(
                f"The run already has {placed} orders and jobs, and IVCAP_FLOWS_MAX_ORDERS allows {limit}, so the "
                f"{wanted.noun} for {wanted.subject} was not sent. If you want more, increase it.",
                limit=limit,
                placed=placed,
                service=wanted.subject,
            )


def _note_asked(connection: Connection, wanted: NewIntent) -> None:
    """Note for all generations of an effect that the attempt has asked for it: a call asks for all of them at once."""
    asked = {"b_base": wanted.base_key, "b_run": wanted.run_id, "b_asked": wanted.attempt_number}
    connection.execute(_ASKED, asked)


def check_arrow(row: IntentRow, after: State, *, known: State | None = None) -> None:
    """Raise DurabilityError if the table of states has no arrow from the row's state to `after`.

    `known` is the state that the caller knows. Only who knows that an effect is done takes that back: for others, a
    write that was cancelled, or seemed to fail, was done after all.
    """
    if not allowed(row.state, after) or (row.state == "done" and known != "done" != after):
        raise DurabilityError(f"The {row.noun} {row.key} is {row.state} and cannot become {after}.", key=row.key)


def fresh_row(wanted: NewIntent, now: datetime) -> dict[str, Any]:
    """Return the row of an intent that is requested for the first time."""
    nothing = dict.fromkeys(
        (
            *("sent_at", "progress", "urn", "outcome"),
            *("how", "matched_by", "status", "error"),
        )
    )
    return {
        **{name: value for name, value in vars(wanted).items() if name != "attempt_number"},
        **nothing,
        "asked_attempt": wanted.attempt_number,
        "state": "claimed",
        "fence": 1,
        "created_at": now,
        "updated_at": now,
        "duplicates": [],
        "lingering": False,
        "sent_again": False,
    }
