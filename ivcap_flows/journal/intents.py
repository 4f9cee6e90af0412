"""Intents: every effect is written here before it is sent, so that it is neither lost nor sent twice.

A holder claims a key and gets a fencing token. Each later write names the token, and is refused once another process
has claimed the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.errors import DurabilityError, InDoubtError, JournalError
from ivcap_flows.journal import schema
from ivcap_flows.journal.claims import LEFT, Claims
from ivcap_flows.journal.known_intents import row_of
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.redaction import Redaction
from ivcap_flows.journal.rows import IntentRow
from ivcap_flows.journal.store import Store
from ivcap_flows.journal.transitions import Transitions
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.http.server_clock import ServerTime

__all__ = ["Intents"]

logger = logger_of("ivcap_flows.journal")

_I = schema.intents


class Intents(Claims):
    """The intents of one journal.

    A method that writes raises FencedError if another process has taken the intent over, and DurabilityError if the
    table of states does not allow the change.
    """

    def __init__(self, store: Store, processes: Processes, redaction: Redaction) -> None:
        super().__init__(store, processes, redaction)
        self._transitions = Transitions(store)

    def mark_sent(self, intent: IntentRow, time: ServerTime | None = None) -> IntentRow:
        """Mark an intent as sent: its request leaves now, which is `time` on the platform.

        After this, a newer claim can no longer stop the request.
        """
        with self._store.write() as connection:
            # With progress it is resumed: nothing is begun a second time.
            again = intent.in_doubt and intent.progress is None
            values = {"sent_again": intent.sent_again or again, "lingering": False, "error": None}
            return self._transitions.move(connection, intent, "sent", self._sending(connection, intent, time) | values)

    def mark_in_doubt(self, intent: IntentRow, error: str, time: ServerTime | None = None) -> IntentRow:
        """Mark an intent as in doubt, and keep the claim: its reply was lost, or another journal may have sent it.

        `time` is the platform's.
        """
        with self._store.write() as connection:
            values = {**self._sending(connection, intent, time), "error": error}
            if intent.state == "claimed":
                # This journal sent nothing. The doubt is about another journal's request, of unknown age.
                values["platform_time"] = None
            return self._transitions.move(connection, intent, "sent", values)

    def progress(self, intent: IntentRow, progress: Any) -> IntentRow:
        """Store what a resumable effect needs to continue, such as the URL of an upload."""
        with self._store.write() as connection:
            return self._transitions.move(connection, intent, intent.state, {"progress": progress})

    def settle(
        self,
        intent: IntentRow,
        *,
        urn: str | None,
        outcome: Any,
        how: str,
        matched_by: str | None = None,
        duplicates: Sequence[str] = (),
    ) -> IntentRow:
        """Mark an intent as done, with its outcome (the effect's JSON form), and end the claim.

        `how` is "sent", "adopted" or "reused". What it replaces, since the platform has lost it, is kept as progress.
        Raise InDoubtError if the effect is the outcome of another key already, and one of both was matched by content.
        """
        values = {
            "urn": urn,
            "outcome": self._redaction.of(outcome),
            "how": how,
            "matched_by": matched_by,
            "duplicates": list(duplicates),
            "error": None,
            **LEFT,
        }
        with self._store.write() as connection:
            if intent.urn not in (None, urn):
                values["progress"] = {"lost": intent.urn}
            if matched_by in ("content", "key") and urn is not None:
                self._check_content(connection, intent, urn, matched_by)
            moved = self._transitions.move(connection, intent, "done", values)
        self._end(intent)
        return moved

    def drop(self, intent: IntentRow, error: str) -> IntentRow:
        """Drop an intent that certainly had no effect, and end the claim. The same may be requested again."""
        with self._store.write() as connection:
            moved = self._transitions.move(connection, intent, "dropped", {"error": error, "progress": None, **LEFT})
        self._end(intent)
        return moved

    def release(self, intent: IntentRow, doubt: str | None = None, time: ServerTime | None = None) -> None:
        """End the claim on an intent, and leave it in its state.

        With `doubt`, a sent intent becomes in doubt for this reason; `time` is the platform's. Never raise
        JournalError: what cannot be written now is written with one of the next heartbeats.
        """
        arises = doubt is not None and intent.state == "sent" and not intent.in_doubt
        if not arises or intent.token is None or not self._processes.runs(intent.token):
            super().release(intent)
            return
        try:
            with self._store.write() as connection:
                values = {**self._sending(connection, intent, time), "error": doubt, **LEFT}
                self._transitions.move(connection, intent, "sent", values)
        except DurabilityError as error:
            # Another process has taken over, or a cancelled write was done after all: nothing is left to change.
            logger.debug("The %s %s was not marked as in doubt: %s", intent.noun, intent.key, error)
            super().release(intent)
        except JournalError as error:
            logger.warning(
                "The %s %s could not be marked as in doubt, so the journal still has it as sent. The next attempt "
                "looks for it on the platform. %s",
                intent.noun,
                intent.key,
                error,
            )
            self._processes.owe(intent.key, intent.token)
        finally:
            self._end(intent)

    def finish(self, key: str, status: str, outcome: Any = None, *, error: str | None = None) -> IntentRow | None:
        """Store that the platform's work has ended with `status`. This needs no claim, since it only reports.

        `outcome`, if given, replaces the stored one, and so does `error`, the reason for which the work did not
        succeed. Return None if the journal does not have the key. An intent that is not done stays unchanged.
        """
        outcome = self._redaction.of(outcome)
        with self._store.write() as connection:
            row = row_of(connection, key)
            if row is None or row.state != "done":
                return row
            given = {"outcome": outcome, "error": self._redaction.of(error)}
            known = {name: value for name, value in given.items() if value is not None}
            return self._transitions.move(connection, row, "done", {"status": status, **known})

    def miss(self, intent: IntentRow, error: str) -> bool:
        """Mark an effect as in doubt, since the platform answered that it is missing; `error` says so.

        Return False if another call has done so, or has settled it anew.
        """
        with self._store.write() as connection:
            row = self._transitions.get(connection, intent.key, lock=True)
            if row.state != "done" or row.urn != intent.urn:
                return False
            self._transitions.move(connection, row, "sent", {"error": error, "progress": None})
            return True

    def note_duplicates(self, key: str, urns: Sequence[str]) -> None:
        """Store the URNs of further effects that were found under a key whose effect exists."""
        with self._store.write() as connection:
            row = self._transitions.get(connection, key, lock=True)
            self._transitions.move(connection, row, row.state, {"duplicates": list(urns)})

    def _sending(self, connection: Connection, intent: IntentRow, time: ServerTime | None) -> dict[str, Any]:
        """Return the columns that say when a request may have left, by the journal's clock and by the platform's."""
        first = intent.platform_time
        if time is not None and first is not None:
            first = min(first, time.earliest)
        elif time is not None and intent.state == "claimed":
            # After the first request, an unknown time stays unknown: the effect may be older than this request.
            first = time.earliest
        return {"sent_at": self._store.now(connection), "platform_time": first}

    def _check_content(self, connection: Connection, intent: IntentRow, urn: str, matched_by: str) -> None:
        """Raise InDoubtError if an effect is the outcome of another key, and one of both was matched by content."""
        self._store.take_turns(connection, f"urn:{urn}")
        others = sa.select(_I.c.key).where(_I.c.urn == urn, _I.c.key != intent.key)
        if matched_by == "key":
            others = others.where(_I.c.matched_by == "content")
        if connection.execute(others).first():
            raise InDoubtError(
                f"It cannot be told whether the {intent.noun} {intent.key} took effect: {urn} looks like it, but is "
                f"the outcome of another {intent.noun}. Decide with `ivcap-flows orders resolve {intent.key}`.",
                key=intent.key,
                candidates=[urn],
            )

    def _end(self, intent: IntentRow) -> None:
        """End the claim in this process once the transaction is on disk."""
        if intent.token is not None:
            self._store.when_on_disk(partial(self._processes.end, intent.token))
