"""A source of rows from the successful orders of a service, converted by a mapping's entry."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Order, Products
from ivcap_flows.identity import canonical, ivcap_urn
from ivcap_flows.provenance import Graph, describe
from ivcap_flows.registration.mapping import MappingEntry
from ivcap_flows.registration.model_runs import model_run_record
from ivcap_flows.registration.rows import Fault, Row
from ivcap_flows.registration.values import WorkRecord
from ivcap_flows.registration.work import annotations_of, inputs_of, outputs_of

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient

__all__ = ["OrderSource"]

_SUCCEEDED = "succeeded"


class OrderSource:
    """A source with one row for each order, newest first. Create it on the client's loop and read it in a thread.

    The key of a row is its order's URN, so that the batch, the task and the sink recognise the same run. `platform` is
    IVCAP's URL. `modeller` is the person who ran the orders if the entry does not name one.
    """

    def __init__(
        self,
        client: IvcapClient,
        entry: MappingEntry,
        *,
        service: str,
        since: datetime,
        platform: str,
        modeller: str,
    ) -> None:
        self._client = client
        self._entry = entry
        self._service = service
        self._since = since
        self._platform = platform
        self._modeller = modeller
        self._loop = asyncio.get_running_loop()
        self._digest = hashlib.sha256()
        self.name = f"orders of {entry.service} since {since.isoformat(timespec='seconds')}"
        self.names: Mapping[str, str] = {}
        self.warnings: list[str] = []

    @property
    def sha256(self) -> str:
        """The sha256 of the records' canonical JSON, one after the other."""
        return self._digest.hexdigest()

    def rows(self) -> Iterator[Row]:
        orders = self._orders()
        number = 0
        while True:
            following = asyncio.run_coroutine_threadsafe(_next(orders), self._loop)
            order = following.result()
            if order is None:
                return
            number += 1
            row = self._row(number, order)
            self._digest.update(canonical([row.key, row.body]))
            yield row

    def _row(self, number: int, order: Order) -> Row:
        entry = self._entry
        # The orders may be of any flow, so use only what the platform says of each.
        known = WorkRecord.of_work(order, Graph(describe(order)))
        try:
            record = model_run_record(
                order,
                workflow_template=entry.workflow_template,
                modeller=entry.modeller or self._modeller,
                inputs=inputs_of(order, entry, known),
                outputs=outputs_of(order, entry, known),
                display_name=known.text_if(entry.display_name),
                model_version=known.text_if(entry.model_version),
                annotations=annotations_of(entry, known),
                organisation=entry.organisation,
                study=entry.study,
            )
        except InputError as error:
            return Row(number, None, order.urn, faults=(Fault(number, order.urn, "wrong value", str(error)),))
        return Row(number, record.model_dump(mode="json", exclude_none=True), order.urn)

    async def _orders(self) -> AsyncIterator[Order]:
        listed = self._client.orders.list(order_by="ordered-at", order_desc=True)
        async for record in listed:
            if record.ordered_at is not None and record.ordered_at < self._since:
                return
            if record.status != _SUCCEEDED or (record.service and not self._is_meant(record.service)):
                continue
            whole = await self._client.orders.read(record.urn)
            if not whole.service or not self._is_meant(whole.service):
                continue
            products = [each.handle(self._platform) async for each in self._client.orders.products(record.urn)]
            handle = whole.handle(self._platform, service_name=self._entry.service)
            yield handle.model_copy(update={"products": Products(products)})

    def _is_meant(self, service: str) -> bool:
        return ivcap_urn("service", service) == self._service


async def _next(orders: AsyncIterator[Order]) -> Order | None:
    return await anext(orders, None)
