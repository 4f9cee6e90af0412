"""Give orders and jobs without an idempotency record the mark by which an equal request finds them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from ivcap_flows.durable.orphans import LOOKED_AT
from ivcap_flows.durable.reuse import definition_of, earlier_of
from ivcap_flows.errors import NotFoundError
from ivcap_flows.identity import REUSE_SCHEMA, fingerprint_for_reuse, ivcap_urn
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.ivcap.job_records import JobRecord
from ivcap_flows.ivcap.orders import OrderRecord
from ivcap_flows.ivcap.services import ServiceRecord

if TYPE_CHECKING:
    from ivcap_flows.journal.redaction import Redaction

__all__ = ["Scanned", "scan"]

Verdict = Literal["to be marked", "marked", "marked before", "older than the service's definition"]


@dataclass(frozen=True)
class Scanned:
    """An order or job that succeeded, and whether an equal request finds it."""

    urn: str
    noun: Literal["order", "job"]
    service: str | None
    at: datetime | None
    verdict: Verdict


async def scan(
    client: IvcapClient, redaction: Redaction, *, since: datetime, service: str | None, limit: int, write: bool
) -> AsyncGenerator[Scanned, None]:
    """The account's orders and jobs that succeeded since then, newest first; `limit` of each are looked at.

    One that is older than its service's definition is never marked: what was ordered then nobody knows. With `write`
    the others are; again it changes nothing.
    """
    known = _Services(client)
    wanted = None if service is None else (await client.services.by_name(service)).urn
    for walk in (_orders, _jobs):
        async with aclosing(walk(client, since, wanted, limit)) as walked:
            async for record in walked:
                if record.status == "succeeded" and record.service:
                    yield await _mark(client, known, redaction, record, write=write)


async def _orders(
    client: IvcapClient, since: datetime, service: str | None, limit: int
) -> AsyncGenerator[OrderRecord | JobRecord, None]:
    async for item in client.orders.list(order_by="ordered-at", order_desc=True, limit=limit):
        if item.ordered_at is not None and item.ordered_at < since:
            return
        if service is None or item.service is None or ivcap_urn("service", item.service) == service:
            order = await client.orders.read(item.urn)
            if service is None or ivcap_urn("service", order.service or "") == service:
                yield order


async def _jobs(
    client: IvcapClient, since: datetime, service: str | None, limit: int
) -> AsyncGenerator[OrderRecord | JobRecord, None]:
    async for item in client.jobs.list_all(status="succeeded", limit=limit):
        if item.requested_at is not None and item.requested_at < since:
            return
        of = ivcap_urn("service", item.service or "")
        if item.service and service in (None, of):
            job = await client.jobs.read(of, item.urn, with_request=True, with_result=False)
            yield job.model_copy(update={"service": of})


class _Services:
    """Each service read once, with the digest of its definition for orders and for jobs."""

    def __init__(self, client: IvcapClient) -> None:
        self._client = client
        self._known: dict[str, tuple[ServiceRecord, dict[str, Any] | None]] = {}

    async def of(self, urn: str) -> tuple[ServiceRecord, dict[str, Any] | None]:
        if urn not in self._known:
            record = await self._client.services.read(urn)
            try:
                model = await self._client.services.request_schema(urn)
            except NotFoundError:
                model = None
            self._known[urn] = record, model
        return self._known[urn]


async def _mark(
    client: IvcapClient, known: _Services, redaction: Redaction, record: OrderRecord | JobRecord, *, write: bool
) -> Scanned:
    service, model = await known.of(ivcap_urn("service", record.service or ""))
    at = record.ordered_at if isinstance(record, OrderRecord) else record.requested_at
    noun: Literal["order", "job"] = "order" if isinstance(record, OrderRecord) else "job"
    found = Scanned(record.urn, noun, service.name, at, "to be marked")
    if service.valid_from is None or at is None or service.valid_from > at:
        return replace(found, verdict="older than the service's definition")
    definition = definition_of(service, model if noun == "job" else None)
    reuse_fingerprint = fingerprint_for_reuse(
        platform=await client.platform(),
        account=await client.account(),
        noun=noun,
        definition=definition,
        request=redaction.of(_request(record, service)),
    )
    if record.urn in {one.urn for one in await earlier_of(client.aspects, reuse_fingerprint, most=LOOKED_AT)}:
        return replace(found, verdict="marked before")
    if not write:
        return found
    content = {
        "reuse_fingerprint": reuse_fingerprint,
        "definition": definition,
        "urn": record.urn,
        "noun": noun,
        "subject": service.name,
    }
    await client.aspects.update(record.urn, REUSE_SCHEMA, content)
    return replace(found, verdict="marked")


def _request(record: OrderRecord | JobRecord, service: ServiceRecord) -> Mapping[str, Any]:
    """The request as the task that asks for the same would make it."""
    if isinstance(record, JobRecord):
        return {"service": service.urn, "request": record.request_content, "policy": record.policy}
    # The platform adds parameters of its own.
    declared = {parameter.name for parameter in service.parameters or ()}
    given = {name: text for name, text in record.values().items() if name in declared}
    return {"service": service.urn, "parameters": given, "policy": record.policy}
