"""Decisions: what the user says of an effect that this package cannot or must not decide on."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.errors import DurabilityError, InputError
from ivcap_flows.identity import short_id
from ivcap_flows.journal import schema
from ivcap_flows.journal.claims import LEFT
from ivcap_flows.journal.processes import SILENT_SECONDS, Processes
from ivcap_flows.journal.redaction import Redaction
from ivcap_flows.journal.rows import FORGOTTEN, GIVEN_UP, RESEND, WRITTEN_OFF, IntentRow
from ivcap_flows.journal.states import OPEN, State
from ivcap_flows.journal.store import Store
from ivcap_flows.journal.transitions import Transitions

__all__ = ["Decisions"]

_I = schema.intents


class Decisions:
    """The user's decisions on the intents of one journal."""

    def __init__(self, store: Store, processes: Processes, redaction: Redaction) -> None:
        self._store, self._processes, self._redaction = store, processes, redaction
        self._transitions = Transitions(store)

    def resolve(self, key: str, *, urn: str, outcome: Any) -> IntentRow:
        """Settle an intent in doubt as the user decides: its effect is `urn`, and `outcome` is its JSON form.

        Raise DurabilityError while a live process holds the intent, and if it is done or dropped, and InputError if
        another request made the effect.
        """
        found = {"urn": urn, "outcome": self._redaction.of(outcome), "how": "adopted", "matched_by": "user"}
        return self._decide(key, "done", found)

    def write_off(self, key: str) -> IntentRow:
        """Drop an intent in doubt as the user decides: it had no effect, so the same may be sent again.

        Raise DurabilityError while a live process holds the intent, and if it is done or dropped.
        """
        return self._decide(key, "dropped", {"error": WRITTEN_OFF, "progress": None})

    def give_up(self, key: str) -> IntentRow:
        """Drop an intent in doubt as the user decides: whether it had an effect or not, it is not sent again
        automatically.

        Raise DurabilityError while a live process holds the intent, and if it is done or dropped.
        """
        return self._decide(key, "dropped", {"error": GIVEN_UP, "progress": None})

    def send_again(self, key: str) -> IntentRow:
        """Mark an intent in doubt, or a dropped one, to be sent again as the user decides, even if it had an effect.

        Raise DurabilityError while a live process holds the intent, and if it is neither in doubt nor dropped.
        """
        with self._store.write() as connection:
            row = self._transitions.get(connection, key, lock=True)
            if row.state == "dropped":
                connection.execute(sa.update(_I).where(_I.c.key == key, _I.c.fence == row.fence).values(error=RESEND))
                return self._transitions.get(connection, key)
        return self._decide(key, "dropped", {"error": RESEND, "progress": None})

    def take_over(self, key: str) -> IntentRow:
        """Store that the user takes care of an effect, such as an orphan, that no run waits for.

        Raise DurabilityError if the effect is not known to exist.
        """
        with self._store.write() as connection:
            row = self._done(connection, key)
            return self._transitions.move(connection, row, row.state, {"matched_by": "user"})

    def account_for(self, key: str, status: str) -> IntentRow:
        """Write off an effect that ended with `status` and that no run waits for, as the user decides.

        A later request for the same effect still gets this one, since it is paid for. Raise DurabilityError if the
        effect is not known to exist.
        """
        with self._store.write() as connection:
            row = self._done(connection, key)
            return self._transitions.move(connection, row, "done", {"status": status, "error": WRITTEN_OFF})

    def forget(self, key: str) -> IntentRow:
        """Drop an effect that the platform has lost, as the user decides: the same may be requested again.

        Raise DurabilityError if the effect is not known to exist.
        """
        with self._store.write() as connection:
            row = self._done(connection, key)
            values = {"error": FORGOTTEN, "status": None, "progress": None, "fence": row.fence + 1}
            return self._transitions.move(connection, row, "dropped", values)

    def _done(self, connection: Connection, key: str) -> IntentRow:
        row = self._transitions.get(connection, key, lock=True)
        if row.state != "done":
            raise DurabilityError(f"The {row.noun} {key} is {row.standing}: it is not known to exist.", key=key)
        return row

    def _decide(self, key: str, after: State, values: dict[str, Any]) -> IntentRow:
        with self._store.write() as connection:
            row = self._transitions.get(connection, key, lock=True)
            if row.state not in OPEN:
                raise DurabilityError(
                    f"The {row.noun} {key} is {row.standing}, not in doubt: there is nothing to decide.", key=key
                )
            if row.process_id is not None:
                holder = self._processes.read(connection, row.process_id)
                if self._processes.holds(holder, row.token):
                    raise DurabilityError(
                        f"Process {holder.pid} on {holder.host} is working on the {row.noun} {key}. Wait until it ends "
                        "or end it, then try again. If it has ended on another machine or in another container, wait "
                        f"{SILENT_SECONDS:.0f} s after its last heartbeat.",
                        key=key,
                    )
            if "urn" in values:
                self._check_is_of_no_other(connection, row, values["urn"])
            return self._transitions.move(connection, row, after, {**values, "fence": row.fence + 1, **LEFT})

    @staticmethod
    def _check_is_of_no_other(connection: Connection, row: IntentRow, urn: str) -> None:
        made = sa.select(_I.c.key).where(_I.c.urn == urn, _I.c.platform == row.platform, _I.c.key != row.key)
        other = connection.execute(made.where(_I.c.how.is_distinct_from("reused")).limit(1)).scalar()
        if other is not None:
            raise InputError(
                f"{urn} is what the {row.noun} {short_id(other)} became, so the {row.noun} {short_id(row.key)} is "
                "another one, or none.",
                key=row.key,
            )
