"""A source of rows from orders and jobs that succeeded, each as its workflow says."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Job, Order, Products
from ivcap_flows.identity import canonical, ivcap_urn
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.registration.rows import Fault, Row

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient

__all__ = ["WorkSource", "succeeded_orders"]

_SUCCEEDED = "succeeded"


class WorkSource:
    """A source with one row for each order or job. `record` makes its record; its InputError is a fault of the row.

    The key of a row is the URN of its work, so that the batch, the task and the sink recognise the same run.
    """

    def __init__(self, name: str, work: Iterable[Order | Job], record: Callable[[Order | Job], ModelRunRecord]) -> None:
        self._work = work
        self._record = record
        self._digest = hashlib.sha256()
        self.name = name
        self.names: Mapping[str, str] = {}
        self.warnings: list[str] = []

    @property
    def sha256(self) -> str:
        """The sha256 of the records' canonical JSON, one after the other."""
        return self._digest.hexdigest()

    def rows(self) -> Iterator[Row]:
        for number, work in enumerate(self._work, 1):
            row = self._row(number, work)
            self._digest.update(canonical([row.key, row.body]))
            yield row

    def _row(self, number: int, work: Order | Job) -> Row:
        try:
            body = self._record(work).model_dump(mode="json", exclude_none=True)
        except InputError as error:
            return Row(number, None, work.urn, faults=(Fault(number, work.urn, "wrong value", str(error)),))
        return Row(number, body, work.urn)


def succeeded_orders(
    client: IvcapClient, service: str, *, name: str, since: datetime, platform: str
) -> Iterator[Order]:
    """Return the account's successful orders of a service (its URN) since a time, newest first.

    `name` is what the service is called in a workflow, `platform` is IVCAP's URL. Call this on the client's loop, and
    take the orders in a thread.
    """
    loop = asyncio.get_running_loop()
    orders = _succeeded(client, service, name, since, platform)

    def taken() -> Iterator[Order]:
        while (order := asyncio.run_coroutine_threadsafe(_next(orders), loop).result()) is not None:
            yield order

    return taken()


async def _succeeded(
    client: IvcapClient, service: str, name: str, since: datetime, platform: str
) -> AsyncIterator[Order]:
    # Another account may open an order to all.
    own = (None, await client.account())
    async for record in client.orders.list(order_by="ordered-at", order_desc=True):
        if record.ordered_at is not None and record.ordered_at < since:
            return
        if record.status != _SUCCEEDED or (record.service and ivcap_urn("service", record.service) != service):
            continue
        whole = await client.orders.read(record.urn)
        if whole.account not in own or not whole.service or ivcap_urn("service", whole.service) != service:
            continue
        products = [each.handle(platform) async for each in client.orders.products(record.urn)]
        yield whole.handle(platform, service_name=name).model_copy(update={"products": Products(products)})


async def _next(orders: AsyncIterator[Order]) -> Order | None:
    return await anext(orders, None)
