"""Candidates: orders and jobs on the platform that may be the effect of an intent in doubt. A person decides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from ivcap_flows.durable.platform_time import look_since
from ivcap_flows.identity import INTENT_SCHEMA, key_entity, short_id
from ivcap_flows.work.kinds import KINDS, LOOKED_AT, WorkKind, look_through

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.journal import IntentRow
    from ivcap_flows.journal.redaction import Redaction

__all__ = ["Candidate", "candidates_of"]

Sign = Literal["its idempotency record names it", "its name contains the key", "equal request"]


@dataclass(frozen=True)
class Candidate:
    """An order or job that may be the effect of the intent. Only the sign "equal request" is uncertain."""

    urn: str
    sign: Sign
    status: str
    at: datetime | None


async def candidates_of(client: IvcapClient, intent: IntentRow, redaction: Redaction) -> list[Candidate]:
    """Return the candidates for an intent, oldest first, from what the platform shows now.

    A request that the platform does not show yet is missing. The journal stores requests without secrets, so
    `redaction` is applied to the platform's requests before they are compared. If one candidate is certain, those with
    only an equal request are left out.
    """
    found = await _looking_alike(client, KINDS[intent.noun], intent, redaction)
    named = [urn async for urn in _named_in_records(client, intent.key, intent.account)]
    found = [
        Candidate(c.urn, "its idempotency record names it", c.status, c.at) if c.urn in named else c for c in found
    ]
    known = {candidate.urn for candidate in found}
    found += [Candidate(urn, "its idempotency record names it", "unknown", None) for urn in named if urn not in known]
    sure = [candidate for candidate in found if candidate.sign != "equal request"]
    return sorted(sure or found, key=lambda one: (one.at is None, one.at, one.urn))


async def _named_in_records(client: IvcapClient, key: str, account: str) -> AsyncIterator[str]:
    listed = client.aspects.list(entity=key_entity(key), schema=INTENT_SCHEMA, order_direction="ASC")
    for record in await client.aspects.of_account(account, [record async for record in listed]):
        if isinstance(record.content, Mapping) and isinstance(record.content.get("urn"), str):
            yield record.content["urn"]


async def _looking_alike(
    client: IvcapClient, kind: WorkKind[Any], intent: IntentRow, redaction: Redaction
) -> list[Candidate]:
    wanted = intent.request[kind.request_field]

    def sign(record: Any) -> Sign | None:
        if kind.key(record) == short_id(intent.key):
            return "its name contains the key"
        shown = kind.shown(record)
        return "equal request" if shown is not None and kind.equal(redaction.of(shown), wanted) else None

    def looks_alike(record: Any) -> bool:
        return sign(record) is not None

    since = look_since(client.time, intent)
    found = await look_through(kind, client, intent, since, looks_alike, limit=LOOKED_AT)
    signs = ((record, sign(record)) for record in found)
    return [Candidate(each.urn, seen, each.status, kind.requested_at(each)) for each, seen in signs if seen is not None]
