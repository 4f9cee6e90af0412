"""The kinds of work, orders and jobs: one protocol, by which the other modules of this room treat both alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from ivcap_flows.durable.wording import decide
from ivcap_flows.errors import ForbiddenError, InDoubtError, NotFoundError, UnavailableError
from ivcap_flows.identity import fingerprint, ivcap_urn, key_in
from ivcap_flows.ivcap.job_records import JobRecord
from ivcap_flows.ivcap.orders import OrderRecord

if TYPE_CHECKING:
    from ivcap_flows.ivcap.artifacts import ArtifactRecord
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.journal import IntentRow

__all__ = ["JOBS", "KINDS", "LOOKED_AT", "ORDERS", "R", "WorkKind", "is_of", "look_through", "read_listed"]

LOOKED_AT: Final = 500
"""Maximum number of orders, of jobs and of idempotency records to read, newest first."""

R = TypeVar("R", OrderRecord, JobRecord)


class WorkKind(Protocol[R]):
    """One kind of work: its `noun` in the journal, and the member of its request that the service gets."""

    noun: str
    request_field: str

    async def read(self, client: IvcapClient, urn: str, service: str = "", *, result: bool = False) -> R:
        """Read a record with its request and, if `result` is true, with its result.

        `service` is the URN of its service; if it is empty, it is looked up.
        """

    def newest(self, client: IvcapClient) -> AsyncIterator[R]:
        """List the account's newest work of all services."""

    def of_service(self, client: IvcapClient, service: str) -> AsyncIterator[R]:
        """List the work of one service, newest first: all jobs, or those of the account's newest `LOOKED_AT` orders.

        Items may lack the account, the time and the request.
        """

    def requested_at(self, record: R) -> datetime | None:
        """Return the time at which the platform accepted the request."""

    def key(self, record: R) -> str | None:
        """Return the short idempotency key in the record, or None if it has none."""

    def shown(self, record: R) -> Any:
        """Return what was requested from the service, as the platform shows it; None if the platform does not."""

    def equal(self, shown: Any, wanted: Any) -> bool:
        """Return whether the request that the platform shows equals the wanted one."""

    async def products(self, client: IvcapClient, record: R) -> list[ArtifactRecord]:
        """Read everything that the work produced. Raises the platform's error if something can no longer be read."""


class _Orders:
    noun = "order"
    request_field = "parameters"

    async def read(self, client: IvcapClient, urn: str, service: str = "", *, result: bool = False) -> OrderRecord:
        return await client.orders.read(urn)

    def newest(self, client: IvcapClient) -> AsyncIterator[OrderRecord]:
        return client.orders.list(order_by="ordered-at", order_desc=True, limit=LOOKED_AT)

    async def of_service(self, client: IvcapClient, service: str) -> AsyncIterator[OrderRecord]:
        async for order in self.newest(client):
            if is_of(order, service):
                yield order

    def requested_at(self, record: OrderRecord) -> datetime | None:
        return record.ordered_at

    def key(self, record: OrderRecord) -> str | None:
        return key_in(record.name)

    def shown(self, record: OrderRecord) -> Any:
        return record.values() or None

    def equal(self, shown: Any, wanted: Any) -> bool:
        # The platform adds parameters, so `shown` may have more than `wanted`.
        return isinstance(wanted, Mapping) and all(shown.get(name) == text for name, text in wanted.items())

    async def products(self, client: IvcapClient, record: OrderRecord) -> list[ArtifactRecord]:
        return [product async for product in client.orders.products(record.urn)]


class _Jobs:
    noun = "job"
    request_field = "request"

    async def read(self, client: IvcapClient, urn: str, service: str = "", *, result: bool = False) -> JobRecord:
        service = service or await client.jobs.service_of(urn)
        return await client.jobs.read(service, urn, with_request=True, with_result=result)

    def newest(self, client: IvcapClient) -> AsyncIterator[JobRecord]:
        return client.jobs.list_all(limit=LOOKED_AT)

    def of_service(self, client: IvcapClient, service: str) -> AsyncIterator[JobRecord]:
        return client.jobs.list(service)

    def requested_at(self, record: JobRecord) -> datetime | None:
        return record.requested_at

    def key(self, record: JobRecord) -> str | None:
        return None

    def shown(self, record: JobRecord) -> Any:
        return record.request_content

    def equal(self, shown: Any, wanted: Any) -> bool:
        return fingerprint(shown) == fingerprint(wanted)

    async def products(self, client: IvcapClient, record: JobRecord) -> list[ArtifactRecord]:
        products = [product async for product in client.jobs.products(record)]
        if record.result_content is None and record.result_content_type is not None:
            service = record.service or await client.jobs.service_of(record.urn)
            await client.jobs.result(ivcap_urn("service", service), record.urn)
        return products


ORDERS: Final[WorkKind[OrderRecord]] = _Orders()
JOBS: Final[WorkKind[JobRecord]] = _Jobs()
KINDS: Final[Mapping[str, WorkKind[Any]]] = {kind.noun: kind for kind in (ORDERS, JOBS)}
"""By noun."""


async def read_listed(kind: WorkKind[R], client: IvcapClient, urn: str, service: str = "") -> R | None:
    """Read work that a list has, with its request.

    None if it may not be read, since a list may have what is others', or is not there, since it may show later.
    """
    try:
        return await kind.read(client, urn, service)
    except (ForbiddenError, NotFoundError):
        return None


async def look_through(
    kind: WorkKind[R],
    client: IvcapClient,
    intent: IntentRow,
    since: datetime | None,
    wanted: Callable[[R], bool],
    *,
    limit: int | None = None,
) -> list[R]:
    """Return the own work of an intent's service that was requested at or after `since`, by the platform's clock, and
    is wanted, newest first, with its request.

    Each is read, because listings of jobs have no times. What may not be read is left out. If nothing is found, raise
    the error of what could not be read though the platform has it, and InDoubtError if there is work and none of it may
    be read: then what was not seen may be there. `limit` is how many are read at most; without it, no work is missed.
    """
    service, failed, found = str(intent.request["service"]), None, list[R]()
    read, unread = 0, list[str]()
    async for item in kind.of_service(client, service):
        if (limit is not None and read + len(unread) == limit) or _is_older(kind, item, since):
            break
        if item.account not in (None, intent.account):
            continue
        try:
            record = await read_listed(kind, client, item.urn, service)
        except UnavailableError as error:
            # What comes after it is looked at all the same.
            failed = failed or error
            continue
        if record is None:
            unread.append(item.urn)
            continue
        read += 1
        if _is_older(kind, record, since):
            break
        if record.account in (None, intent.account) and is_of(record, service) and wanted(record):
            found.append(record)
    if not found and failed is not None:
        raise failed
    if unread and not read:
        raise InDoubtError(
            f"It is not known whether the {intent.noun} {intent.key} took effect: the account may read none of the "
            f"{intent.noun}s that {service} has, such as {unread[0]}. {decide(intent.key)}",
            key=intent.key,
            candidates=unread,
        )
    return found


def _is_older(kind: WorkKind[R], record: R, since: datetime | None) -> bool:
    requested_at = kind.requested_at(record)
    return since is not None and requested_at is not None and requested_at < since


def is_of(record: OrderRecord | JobRecord, service: str) -> bool:
    """Return whether the record's service is this one, or unknown. IVCAP names a service by its URN or bare id."""
    return record.service is None or record.service.rsplit(":", 1)[-1] == service.rsplit(":", 1)[-1]
