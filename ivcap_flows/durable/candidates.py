"""What on the platform may be the effect of an order or job that is in doubt, as a person would look for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from ivcap_flows.durable.platform_time import look_since
from ivcap_flows.identity import INTENT_SCHEMA, fingerprint, key_entity, key_in, short_id
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.journal import IntentRow

if TYPE_CHECKING:
    from ivcap_flows.journal.redaction import Redaction

__all__ = ["Candidate", "candidates_of"]

LOOKED_AT: Final = 500
"""Orders or jobs that are looked at, newest first."""

Sign = Literal["its idempotency record names it", "its name bears the key", "equal request"]


@dataclass(frozen=True)
class Candidate:
    """An order or job that may be the one; only "equal request" leaves room for doubt."""

    urn: str
    sign: Sign
    status: str
    at: datetime | None


async def candidates_of(client: IvcapClient, intent: IntentRow, redaction: Redaction) -> list[Candidate]:
    """Those that could be it, oldest first. The platform is asked now; a request that it shows late is not among them.

    What the platform shows is compared as the journal keeps it, by `redaction`. With one that surely is ours, those
    that merely look alike are left out.
    """
    walk = _orders if intent.noun == "order" else _jobs
    async with aclosing(walk(client, intent, redaction)) as walked:
        found = [one async for one in walked]
    told = [urn async for urn in _told(client, intent.key)]
    found = [Candidate(c.urn, "its idempotency record names it", c.status, c.at) if c.urn in told else c for c in found]
    known = {candidate.urn for candidate in found}
    found += [Candidate(urn, "its idempotency record names it", "unknown", None) for urn in told if urn not in known]
    sure = [candidate for candidate in found if candidate.sign != "equal request"]
    return sorted(sure or found, key=lambda one: (one.at is None, one.at, one.urn))


async def _told(client: IvcapClient, key: str) -> AsyncIterator[str]:
    async for record in client.aspects.list(entity=key_entity(key), schema=INTENT_SCHEMA, order_direction="ASC"):
        if isinstance(record.content, Mapping) and isinstance(record.content.get("urn"), str):
            yield record.content["urn"]


async def _orders(client: IvcapClient, intent: IntentRow, redaction: Redaction) -> AsyncGenerator[Candidate, None]:
    since, wanted = look_since(client.time, intent), intent.request.get("parameters")
    async for item in client.orders.list(order_by="ordered-at", order_desc=True, limit=LOOKED_AT):
        if since is not None and item.ordered_at is not None and item.ordered_at < since:
            return
        if key_in(item.name) == short_id(intent.key):
            yield Candidate(item.urn, "its name bears the key", item.status, item.ordered_at)
        elif item.service is None or _same(item.service, intent.request.get("service")):
            order = await client.orders.read(item.urn)
            shown = redaction.of(order.values())
            equal = wanted is not None and all(shown.get(name) == text for name, text in wanted.items())
            if equal and _same(order.service, intent.request.get("service")):
                yield Candidate(order.urn, "equal request", order.status, order.ordered_at)


async def _jobs(client: IvcapClient, intent: IntentRow, redaction: Redaction) -> AsyncGenerator[Candidate, None]:
    since, service = look_since(client.time, intent), intent.request["service"]
    async for item in client.jobs.list(service, limit=LOOKED_AT):
        job = await client.jobs.read(service, item.urn, with_request=True, with_result=False)
        if since is not None and job.requested_at is not None and job.requested_at < since:
            return
        if fingerprint(redaction.of(job.request_content)) == fingerprint(intent.request.get("request")):
            yield Candidate(job.urn, "equal request", job.status, job.requested_at)


def _same(service: str | None, wanted: Any) -> bool:
    return service is not None and service.rsplit(":", 1)[-1] == str(wanted).rsplit(":", 1)[-1]
