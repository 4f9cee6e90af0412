"""Count the orders and jobs of a journal whose idempotency records IVCAP does not list, so that no other journal finds
them by these."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from ivcap_flows.errors import ForbiddenError
from ivcap_flows.identity import INTENT_SCHEMA, key_entity
from ivcap_flows.work.kinds import KINDS, LOOKED_AT

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.journal import IntentRow, Journal

__all__ = ["unlisted_records"]


async def unlisted_records(client: IvcapClient, journal: Journal) -> AsyncIterator[str]:
    """Yield one sentence with their number, if there are some.

    They are looked for among the newest `LOOKED_AT` records of the account: what is older than the oldest of these, or
    younger than the visibility delay, is not counted. Nor is anything if the account may not read records.
    """
    try:
        records = [record async for record in client.aspects.list(schema=INTENT_SCHEMA, limit=LOOKED_AT)]
    except ForbiddenError:
        return
    place, listed = (await client.platform(), await client.account()), {record.entity for record in records}
    since = records[-1].valid_from if len(records) == LOOKED_AT else None
    until = datetime.now(timezone.utc) - timedelta(seconds=client.visibility_delay)

    def unlisted() -> list[IntentRow]:
        newest = (row for noun in KINDS for row in journal.intents.where(noun=noun, newest=True, limit=LOOKED_AT))
        done = [row for row in newest if row.state == "done" and (row.platform, row.account) == place]
        return [
            row
            for row in done
            if key_entity(row.key) not in listed
            and row.created_at < until
            and (since is None or row.created_at > since)
        ]

    if rows := await journal.ask(unlisted):
        yield (
            f"{len(rows)} of the newest orders and jobs of this journal have no idempotency record that {place[0]} "
            f"lists, such as {rows[0].urn}: another journal that requests the same at the same time does not see them"
        )
