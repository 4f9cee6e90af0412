"""Builds that are broken on purpose, made of the right one within the process of a flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Final

import sqlalchemy as sa

from ivcap_flows.durable.submission import Submission
from ivcap_flows.journal import Claim, IntentRow, NewIntent, store
from ivcap_flows.journal.intents import Intents, fresh_row
from ivcap_flows.tasks.key_aspects import AspectKeys

__all__ = ["BUILDS"]


def intent_after_the_effect() -> None:
    """What is written first, here and on the platform, is written when the reply is there."""
    claim, mark_sent, settle, write = Intents.claim, Intents.mark_sent, Intents.settle_outcome, AspectKeys.write
    unwritten: dict[str, NewIntent] = {}

    def claim_later(self: Intents, wanted: NewIntent, *, spend_limit: int | None = None) -> Claim:
        if wanted.noun != "order" or self.get(wanted.key) is not None:
            return claim(self, wanted, spend_limit=spend_limit)
        unwritten[wanted.key] = wanted
        row = {**fresh_row(wanted, datetime.now(timezone.utc), 0), "process_id": None, "token": None}
        return Claim("new", IntentRow(**row))

    def mark_sent_later(self: Intents, intent: IntentRow) -> IntentRow:
        return replace(intent, state="sent") if intent.key in unwritten else mark_sent(self, intent)

    def settle_at_last(self: Intents, intent: IntentRow, **outcome: Any) -> IntentRow:
        if intent.key in unwritten:
            intent = mark_sent(self, claim(self, unwritten.pop(intent.key)).intent)
        return settle(self, intent, **outcome)

    async def write_later(
        self: AspectKeys, key: str, content: dict[str, Any], *, first: bool = False
    ) -> Sequence[dict[str, Any]]:
        return [] if content["urn"] is None else await write(self, key, content, first=first)

    for owner, changed in (
        (Intents, {"claim": claim_later, "mark_sent": mark_sent_later, "settle_outcome": settle_at_last}),
        (AspectKeys, {"write": write_later}),
    ):
        for name, function in changed.items():
            setattr(owner, name, function)


def no_settle() -> None:
    """What does not show at once is taken for not there."""
    begin = Submission.__init__

    def begin_hastily(self: Any, effect: Any, *given: Any, **options: Any) -> None:
        begin(self, replace(effect, settle=0.0), *given, **options)

    Submission.__init__ = begin_hastily  # type: ignore[method-assign]


def not_synchronous() -> None:
    """The journal does not wait for the disk."""
    make = store._sqlite

    def make_fast(url: Any) -> sa.Engine:
        engine = make(url)
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        return engine

    store._sqlite = make_fast


BUILDS: Final[dict[str, Callable[[], None]]] = {
    "intent after the effect": intent_after_the_effect,
    "no settle": no_settle,
    "synchronous off": not_synchronous,
}
