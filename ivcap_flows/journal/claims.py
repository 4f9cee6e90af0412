"""Claims: the right to cause an effect, given to one call at a time and ended with that call.

A claim names the process and, by a token, the call in that process. It ends with the call, which is written to the
journal so that other processes see it, or with the process, which `Processes` detects.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.errors import DurabilityError, SpendLimitError
from ivcap_flows.journal import schema
from ivcap_flows.journal.observer import IntentMoved, LimitReached
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.redaction import Redaction
from ivcap_flows.journal.rows import Claim, IntentRow, NewIntent, ProcessRow
from ivcap_flows.journal.states import DONE, State, allowed
from ivcap_flows.journal.store import Store

__all__ = ["LEFT", "Claims", "check_arrow", "fresh_row", "rows_of"]

LEFT: Final[dict[str, Any]] = {"process_id": None, "token": None}
"""The holder's columns in the row of an intent that nobody holds."""

_I = schema.intents
_AT_ONCE: Final = 500
"""Keys per statement. Every version of SQLite accepts at least 999 values."""
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
_ASKED: Final = (
    sa.update(_I)
    .where(_I.c.base_key == sa.bindparam("b_base"), _I.c.run_id == sa.bindparam("b_run"))
    .where(_I.c.asked_attempt < sa.bindparam("b_asked"))
    .values(asked_attempt=sa.bindparam("b_asked"))
)


_BY_KEYS: Final = sa.select(_I).where(_I.c.key.in_(sa.bindparam("wanted", expanding=True))).order_by(_I.c.key)
_LOCKED: Final = _BY_KEYS.with_for_update()


class Claims:
    """The claims of one journal."""

    def __init__(self, store: Store, processes: Processes, redaction: Redaction) -> None:
        self._store = store
        self._processes = processes
        self._redaction = redaction

    def take(self, wanted: Sequence[NewIntent], *, spend_limit: int | None = None) -> list[Claim]:
        """Request the right to cause each effect, in one transaction; return a `Claim` for each, in the same order.

        A claim of kind "new" or "doubt" is held until the intent is done, abandoned or released, or the process ends.
        Raise SpendLimitError if the run already has `spend_limit` intents that spend.
        """
        wanted = [self._redaction.of_intent(each) for each in wanted]
        tokens = {each.key: str(uuid.uuid4()) for each in wanted}
        try:
            with self._processes.taking(tokens), self._store.write() as connection:
                claims = self._take(connection, wanted, tokens, spend_limit)
                for claim in claims:
                    if claim.kind in ("new", "doubt"):
                        self._processes.begin(tokens[claim.intent.key])
                return claims
        except SpendLimitError as error:
            self._store.tell(LimitReached(wanted[0].run_id, error))
            raise

    def release(self, intents: Iterable[IntentRow]) -> None:
        """End these claims and leave the intents in their states. Claims that have already ended are skipped.

        Never raise JournalError: what cannot be written now is written with one of the next heartbeats.
        """
        tokens = {
            intent.key: intent.token
            for intent in intents
            if intent.token is not None and self._processes.runs(intent.token)
        }
        if tokens:
            self._processes.release(tokens)

    def _take(
        self, connection: Connection, wanted: Sequence[NewIntent], tokens: dict[str, str], spend_limit: int | None
    ) -> list[Claim]:
        # A key without a row has nothing to lock, so callers take turns by name. For the limit, all claims of a run
        # take turns. Names are sorted, or two callers could wait for each other.
        runs = {f"run:{each.run_id}" for each in wanted} if spend_limit is not None else set()
        self._store.take_turns(connection, *sorted(runs), *(f"key:{key}" for key in sorted(tokens)))
        now = self._store.now(connection)
        process_id = self._processes.register_and_beat(connection, now)
        # Locked: otherwise a holder could change its row, or finish, before the check whether it still holds it.
        known = rows_of(connection, sorted(tokens), lock=True)
        holders: dict[str, ProcessRow] = {}
        claims: list[Claim] = []
        fresh: list[dict[str, Any]] = []
        taken: list[dict[str, Any]] = []
        asked: list[dict[str, Any]] = []
        spending: list[NewIntent] = []
        for each in wanted:
            mine: dict[str, Any] = {"process_id": process_id, "token": tokens[each.key]}
            row = known.get(each.key)
            if row is None:
                fresh.append(fresh_row(each, now) | mine)
                claims.append(Claim("new", IntentRow(**fresh[-1])))
                spending.append(each)
                if each.key != each.base_key:
                    # The call asks for all generations of its effect at once.
                    asked.append(_asked(each))
                continue
            if row.run_id == each.run_id and row.asked_attempt < each.attempt_number:
                row = replace(row, asked_attempt=each.attempt_number)
                asked.append(_asked(each))
            if row.state in DONE:
                claims.append(Claim("kept", row))
                continue
            if row.given_up:
                claims.append(Claim("given up", row))
                continue
            holder = None
            if row.process_id is not None:
                if row.process_id not in holders:
                    holders[row.process_id] = self._processes.read(connection, row.process_id)
                holder = holders[row.process_id]
                if self._processes.holds(holder, row.token):
                    claims.append(Claim("held", row))
                    continue
            claim = Claim(*self._taken_over(row, each, holder), resent=row.state == "abandoned")
            claim = replace(claim, intent=replace(claim.intent, **mine, updated_at=now, fence=row.fence + 1))
            check_arrow(row, claim.intent.state)
            self._store.note(IntentMoved(row.state, claim.intent))
            if row.state == "abandoned" or (claim.kind == "new" and not row.spends):
                spending.append(each)
            taken.append({"b_key": row.key, **{f"v_{name}": getattr(claim.intent, name) for name in _TAKEN}})
            claims.append(claim)
        for statement, rows in ((_ASKED, asked), (sa.insert(_I), fresh), (_TAKE, taken)):
            if rows:
                connection.execute(statement, rows)
        for each in spending:
            self._check_limit(connection, each, spend_limit)
        return claims

    def _taken_over(self, row: IntentRow, wanted: NewIntent, holder: ProcessRow | None) -> tuple[Any, IntentRow]:
        """Return the kind and the row of a claim on an intent that nobody holds."""
        if row.state == "sent":
            lingering = holder is not None and not self._processes.has_left(holder)
            return "doubt", replace(row, state="in_doubt", lingering=lingering)
        if row.state not in ("intent", "abandoned"):
            return "doubt", row
        # Certainly never sent, so it starts again and belongs to the caller.
        return "new", replace(
            row,
            state="intent",
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
        spending = (_I.c.run_id == wanted.run_id, _I.c.spends, _I.c.state != "abandoned", _I.c.key != wanted.key)
        placed = connection.execute(sa.select(sa.func.count()).select_from(_I).where(*spending)).scalar_one()
        if placed >= limit:
            raise SpendLimitError(
                f"The run already has {placed} orders and jobs, and max_orders allows {limit}, so the {wanted.noun} "
                f"for {wanted.subject} was not sent. If you want more, increase IVCAP_FLOWS_MAX_ORDERS.",
                limit=limit,
                placed=placed,
                service=wanted.subject,
            )


def _asked(wanted: NewIntent) -> dict[str, Any]:
    return {
        "b_base": wanted.base_key,
        "b_run": wanted.run_id,
        "b_asked": wanted.attempt_number,
    }


def check_arrow(row: IntentRow, after: State) -> None:
    """Raise DurabilityError if the table of states has no arrow from the row's state to `after`."""
    if not allowed(row.state, after):
        raise DurabilityError(f"The {row.noun} {row.key} is {row.state} and cannot become {after}.", key=row.key)


def rows_of(connection: Connection, keys: Sequence[str], *, lock: bool = False) -> dict[str, IntentRow]:
    """Return the intents under these keys, by key; keys without an intent are left out.

    With `lock` nobody else changes them until the transaction ends. SQLite has no row locks and needs none: its writers
    take turns.
    """
    found: dict[str, IntentRow] = {}
    for start in range(0, len(keys), _AT_ONCE):
        some = {"wanted": keys[start : start + _AT_ONCE]}
        for row in connection.execute(_LOCKED if lock else _BY_KEYS, some).mappings():
            found[row["key"]] = IntentRow(**row)
    return found


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
        "state": "intent",
        "fence": 1,
        "created_at": now,
        "updated_at": now,
        "duplicates": [],
        "lingering": False,
        "sent_again": False,
    }
