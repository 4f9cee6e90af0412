"""Intents: every effect is written here before it is sent, so that it is neither lost nor sent twice.

A holder claims a key and gets a fencing token. Each later write names the token, and is refused once another process
has claimed the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.errors import DurabilityError, FencedError, InDoubtError, JournalError
from ivcap_flows.journal import schema
from ivcap_flows.journal.claims import LEFT, Claims, check_arrow, row_of
from ivcap_flows.journal.observer import IntentMoved
from ivcap_flows.journal.processes import LEASE_SECONDS, Processes
from ivcap_flows.journal.redaction import Redaction
from ivcap_flows.journal.rows import (
    GIVEN_UP,
    RESEND,
    WRITTEN_OFF,
    Claim,
    IntentRow,
    NewIntent,
    ProcessRow,
)
from ivcap_flows.journal.states import DONE, OPEN, State
from ivcap_flows.journal.store import Store
from ivcap_flows.secrets import logger_of, scrub_text

if TYPE_CHECKING:
    from ivcap_flows.http.server_clock import ServerTime

__all__ = ["Intents"]

logger = logger_of("ivcap_flows.journal")

_I = schema.intents
_AT_ONCE: Final = 500
"""Keys per statement. Every version of SQLite accepts at least 999 values."""
# Each effect runs these several times, and building a statement takes longer than SQLite's work, so build them once.
_NEWEST = sa.select(_I).where(_I.c.base_key == sa.bindparam("base")).order_by(_I.c.generation.desc()).limit(1)


@cache
def _change(*names: str) -> sa.Update:
    """Return the statement that changes these columns of one row."""
    new = {name: sa.bindparam(f"new_{name}", type_=_I.c[name].type) for name in names}
    return sa.update(_I).where(_I.c.key == sa.bindparam("moved", type_=sa.Text)).values(new)


class Intents:
    """The intents of one journal.

    A method that writes raises FencedError if another process has taken the intent over, and DurabilityError if the
    table of states does not allow the change.
    """

    def __init__(self, store: Store, processes: Processes, redaction: Redaction) -> None:
        self._store = store
        self._redaction = redaction
        self._processes = processes
        self._claims = Claims(store, processes, redaction)

    def claim(self, wanted: NewIntent, *, spend_limit: int | None = None) -> Claim:
        """Request the right to cause an effect, as `Claims.take` does."""
        return self._claims.take(wanted, spend_limit=spend_limit)

    def mark_sent(self, intent: IntentRow, time: ServerTime | None = None) -> IntentRow:
        """Mark an intent as sent: its request leaves now, which is `time` on the platform.

        After this, a newer claim can no longer stop the request.
        """
        with self._store.write() as connection:
            # With progress it is resumed: nothing is begun a second time.
            again = intent.state == "in_doubt" and intent.progress is None
            values = {"sent_again": intent.sent_again or again, "lingering": False}
            return self._move(connection, intent, "sent", self._sending(connection, intent, time) | values)

    def mark_in_doubt(self, intent: IntentRow, error: str, time: ServerTime | None = None) -> IntentRow:
        """Mark an intent as in doubt, since its reply was lost, and keep the claim. `time` is the platform's."""
        with self._store.write() as connection:
            values = {**self._sending(connection, intent, time), "error": error}
            if intent.state == "intent":
                # This journal sent nothing. The doubt is about another journal's request, of unknown age.
                values["platform_time"] = None
            return self._move(connection, intent, "in_doubt", values)

    def progress(self, intent: IntentRow, progress: Any) -> IntentRow:
        """Store what a resumable effect needs to continue, such as the URL of an upload."""
        with self._store.write() as connection:
            return self._move(connection, intent, intent.state, {"progress": progress})

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
        """Mark an intent as accepted, with its outcome (the effect's JSON form), and end the claim.

        `how` is "sent", "adopted" or "reused". Raise InDoubtError if the effect was matched by its content and is the
        outcome of another key already.
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
            if matched_by == "content" and urn is not None:
                self._check_content(connection, intent, urn)
            moved = self._move(connection, intent, "accepted", values)
        self._end(intent)
        return moved

    def abandon(self, intent: IntentRow, error: str) -> IntentRow:
        """Abandon an intent that certainly had no effect, and end the claim. The same may be requested again."""
        with self._store.write() as connection:
            moved = self._move(connection, intent, "abandoned", {"error": error, "progress": None, **LEFT})
        self._end(intent)
        return moved

    def release(self, intent: IntentRow, doubt: str | None = None, time: ServerTime | None = None) -> None:
        """End the claim on an intent, and leave it in its state.

        With `doubt`, a sent intent becomes in doubt for this reason; `time` is the platform's. Never raise
        JournalError: what cannot be written now is written with one of the next heartbeats.
        """
        if doubt is None or intent.state != "sent" or intent.token is None or not self._processes.runs(intent.token):
            self._claims.release(intent)
            return
        try:
            with self._store.write() as connection:
                values = {**self._sending(connection, intent, time), "error": doubt, **LEFT}
                self._move(connection, intent, "in_doubt", values)
        except DurabilityError as error:
            # Another process has taken over, or a cancelled write was done after all: nothing is left to change.
            logger.debug("The %s %s was not marked as in doubt: %s", intent.noun, intent.key, error)
            self._claims.release(intent)
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

    def finish(self, key: str, status: str, outcome: Any = None) -> IntentRow | None:
        """Store that the platform's work has ended with `status`. This needs no claim, since it only reports.

        `outcome`, if given, replaces the stored one. Return None if the journal does not have the key. An intent that
        was not accepted stays unchanged.
        """
        outcome = self._redaction.of(outcome)
        with self._store.write() as connection:
            row = row_of(connection, key)
            if row is None or row.state not in DONE:
                return row
            values = {"status": status} if outcome is None else {"status": status, "outcome": outcome}
            return self._move(connection, row, "terminal", values)

    def note_duplicates(self, key: str, urns: Sequence[str]) -> None:
        """Store the URNs of further effects that were found under a key whose effect exists."""
        with self._store.write() as connection:
            row = self._get(connection, key, lock=True)
            self._move(connection, row, row.state, {"duplicates": list(urns)})

    def resolve(self, key: str, *, urn: str, outcome: Any) -> IntentRow:
        """Settle an intent in doubt as the user decides: its effect is `urn`, and `outcome` is its JSON form.

        Raise DurabilityError while a live process holds the intent, and if it is not in doubt.
        """
        found = {"urn": urn, "outcome": self._redaction.of(outcome), "how": "adopted", "matched_by": "user"}
        return self._decide(key, "accepted", found)

    def write_off(self, key: str) -> IntentRow:
        """Abandon an intent in doubt as the user decides: it had no effect, so the same may be sent again.

        Raise DurabilityError while a live process holds the intent, and if it is not in doubt.
        """
        return self._decide(key, "abandoned", {"error": WRITTEN_OFF, "progress": None})

    def give_up(self, key: str) -> IntentRow:
        """Abandon an intent in doubt as the user decides: whether it had an effect or not, it is not sent again
        automatically.

        Raise DurabilityError while a live process holds the intent, and if it is not in doubt.
        """
        return self._decide(key, "abandoned", {"error": GIVEN_UP, "progress": None})

    def send_again(self, key: str) -> IntentRow:
        """Mark an intent in doubt, or an abandoned one, to be sent again as the user decides, even if it had an effect.

        Raise DurabilityError while a live process holds the intent, and if it is neither in doubt nor abandoned.
        """
        row = self.get(key)
        if row is not None and row.state == "abandoned":
            with self._store.write() as connection:
                connection.execute(sa.update(_I).where(_I.c.key == key, _I.c.fence == row.fence).values(error=RESEND))
                return self._get(connection, key)
        return self._decide(key, "abandoned", {"error": RESEND, "progress": None})

    def take_over(self, key: str) -> IntentRow:
        """Store that the user takes care of an effect, such as an orphan, that no run waits for.

        Raise DurabilityError if the effect is not known to exist.
        """
        with self._store.write() as connection:
            row = self._get(connection, key, lock=True)
            if row.state not in DONE:
                raise DurabilityError(f"The {row.noun} {key} is {row.state}: there is nothing to take over.", key=key)
            return self._move(connection, row, row.state, {"matched_by": "user"})

    def account_for(self, key: str, status: str) -> IntentRow:
        """Write off an effect that ended with `status` and that no run waits for, as the user decides.

        A later request for the same effect still gets this one, since it is paid for.
        """
        with self._store.write() as connection:
            row = self._get(connection, key, lock=True)
            return self._move(connection, row, "terminal", {"status": status, "error": WRITTEN_OFF})

    def _decide(self, key: str, after: State, values: dict[str, Any]) -> IntentRow:
        with self._store.write() as connection:
            row = self._get(connection, key, lock=True)
            if row.state not in OPEN:
                raise DurabilityError(
                    f"The {row.noun} {key} is {row.state}, not in doubt: there is nothing to decide.", key=key
                )
            if row.process_id is not None:
                holder = self._processes.read(connection, row.process_id)
                if self._processes.holds(holder, row.token):
                    raise DurabilityError(
                        f"Process {holder.pid} on {holder.host} is working on the {row.noun} {key}. Wait until it ends "
                        "or end it, then try again. If it ran on another machine or in another container, wait "
                        f"{LEASE_SECONDS:.0f} s after its last heartbeat.",
                        key=key,
                    )
            if row.state == "sent":
                row = self._move(connection, row, "in_doubt", {})
            return self._move(connection, row, after, {**values, "fence": row.fence + 1, **LEFT})

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
        twice: bool = False,
        sent_again: bool = False,
        newest: bool = False,
        limit: int | None = 1000,
    ) -> list[IntentRow]:
        """Return intents in the order of their creation, or with `newest` the newest first.

        `mentions` selects those whose request has this text as a value, `twice` those with duplicates, `sent_again`
        those that were sent once more after a doubt. With `limit` None, return all.
        """
        created = _I.c.created_at.desc() if newest else _I.c.created_at
        query = sa.select(_I).order_by(created, _I.c.key).limit(limit)
        if mentions is not None:
            request = sa.type_coerce(_I.c.request, sa.Text)
            query = query.where(request.contains(f'"{mentions}"', autoescape=True))
        if twice:
            query = query.where(_I.c.duplicates != [])
        if sent_again:
            query = query.where(_I.c.sent_again)
        for column, value in ((_I.c.run_id, run_id), (_I.c.noun, noun), (_I.c.state, state), (_I.c.urn, urn)):
            if value is not None:
                query = query.where(column == value)
        with self._store.read() as connection:
            return [IntentRow(**row) for row in connection.execute(query).mappings()]

    def counts(self, run_id: str) -> dict[str, int]:
        """Return how many intents of each noun a run requested, those that it requested first coming first."""
        query = sa.select(_I.c.noun, sa.func.count()).where(_I.c.run_id == run_id, _I.c.state.in_(DONE))
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

    def unasked(self, wanted: NewIntent) -> list[IntentRow]:
        """Return the effects on the same subject that an earlier attempt of the run requested and this one has not."""
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
        """Return those of the URNs that are the outcome of another key."""
        query = sa.select(_I.c.urn).where(_I.c.urn.in_(list(urns)), _I.c.key != key)
        with self._store.read() as connection:
            return {str(urn) for (urn,) in connection.execute(query)}

    def rivals(self, intent: IntentRow) -> int:
        """Count the other intents with the same request whose outcome is open: any of them may own an effect with this
        content."""
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

    def _move(self, connection: Connection, held: IntentRow, after: State, values: dict[str, Any]) -> IntentRow:
        """Move an intent whose fence is still the caller's to the state `after`.

        New duplicates are added to those of the row.
        """
        # Locked, so that nobody claims between the check of the fence and the write.
        row = self._get(connection, held.key, lock=True)
        if row.fence != held.fence:
            raise FencedError(
                f"Another process has taken over the {row.noun} {row.key}, so this process no longer works on it.",
                key=row.key,
            )
        check_arrow(row, after)
        changed = {**values, "state": after, "updated_at": self._store.now(connection)}
        if changed.get("error") is not None:
            changed["error"] = scrub_text(changed["error"])
        if "duplicates" in changed:
            changed["duplicates"] = _with(row.duplicates, changed["duplicates"], changed.get("urn", row.urn))
        moved = replace(row, **changed)
        connection.execute(_change(*changed), {"moved": row.key, **{f"new_{name}": changed[name] for name in changed}})
        self._store.note(IntentMoved(row.state, moved))
        return moved

    def _sending(self, connection: Connection, intent: IntentRow, time: ServerTime | None) -> dict[str, Any]:
        """Return the columns that say when a request may have left, by the journal's clock and by the platform's."""
        first = intent.platform_time
        if time is not None and first is not None:
            first = min(first, time.earliest)
        elif time is not None and intent.state == "intent":
            # After the first request, an unknown time stays unknown: the effect may be older than this request.
            first = time.earliest
        return {"sent_at": self._store.now(connection), "platform_time": first}

    def _check_content(self, connection: Connection, intent: IntentRow, urn: str) -> None:
        """Raise InDoubtError if an effect that was matched by its content is the outcome of another key."""
        self._store.take_turns(connection, f"urn:{urn}")
        if connection.execute(sa.select(_I.c.key).where(_I.c.urn == urn, _I.c.key != intent.key)).first():
            raise InDoubtError(
                f"It cannot be told whether the {intent.noun} {intent.key} took effect: {urn} looks like it, but is "
                f"the outcome of another {intent.noun}. Decide with `ivcap-flows orders resolve {intent.key}`.",
                key=intent.key,
                candidates=[urn],
            )

    def _get(self, connection: Connection, key: str, *, lock: bool = False) -> IntentRow:
        row = row_of(connection, key, lock=lock)
        if row is None:
            raise DurabilityError(f"The journal {self._store.url} has no intent {key}.", key=key)
        return row

    def _end(self, intent: IntentRow) -> None:
        """End the claim in this process once the transaction is on disk."""
        if intent.token is not None:
            self._store.when_on_disk(partial(self._processes.end, intent.token))


def _with(known: Sequence[str], more: Sequence[str], urn: str | None) -> list[str]:
    """Return the known duplicates and the further ones, each once, without the effect itself."""
    return [*known, *(other for other in dict.fromkeys(more) if other not in known and other != urn)]
