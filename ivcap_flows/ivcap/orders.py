"""Orders: a service runs with parameters (IVCAP OpenAPI 0.48, `/1/orders`)."""

from __future__ import annotations

import builtins
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import Field

from ivcap_flows.arguments import texts
from ivcap_flows.handles import TERMINAL, Order
from ivcap_flows.http.session import Session
from ivcap_flows.identity import ivcap_urn, without_key
from ivcap_flows.ivcap.artifacts import ArtifactRecord, ProductsRecord
from ivcap_flows.ivcap.wire import (
    Instant,
    Text,
    Wire,
    instant,
    listed,
    listed_pages,
    replied,
    segment,
    urn_argument,
)

__all__ = ["OrderRecord", "Orders", "ParameterValue"]

_LINE: Final = 4096
"""Bytes of a log line to keep; the rest of a longer line is dropped."""


class ParameterValue(Wire):
    """A parameter of an order as the platform stores it."""

    name: str
    value: Any = None


class OrderRecord(Wire):
    """An order as read, placed or listed; listings have no parameters and no products."""

    id: str
    status: str = "unknown"
    """`pending`, `scheduled`, `executing`, `succeeded`, `failed`, `error`, `unknown`, or another word of a newer
    server.
    """
    service: Text = None
    account: Text = None
    policy: Text = None
    """Sent by newer servers only; IVCAP OpenAPI 0.48 has no such field."""
    name: Text = None
    tags: list[str] | None = None
    ordered_at: Instant = None
    started_at: Instant = None
    finished_at: Instant = None
    parameters: list[ParameterValue] | None = None
    products: ProductsRecord | None = None
    links: Any = Field(None, repr=False)

    @property
    def urn(self) -> str:
        return ivcap_urn("order", self.id)

    @property
    def done(self) -> bool:
        """Whether the status is terminal."""
        return self.status in TERMINAL

    def values(self) -> dict[str, str]:
        """Return the parameters by name, including those that the platform adds (`cayp-…`)."""
        return {each.name: _text(each.value) for each in self.parameters or () if each.value is not None}

    def handle(self, platform: str, *, service_name: str | None = None, key: str | None = None) -> Order:
        """Return the handle of this order, with the products of its first page."""
        return Order(
            urn=self.urn,
            platform=platform,
            service=ivcap_urn("service", self.service) if self.service else "",
            service_name=service_name,
            status=self.status,
            name=without_key(self.name),
            account=self.account,
            requested_at=self.ordered_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            products=(self.products or ProductsRecord()).handles(platform),
            parameters=self.values(),
            key=key,
        )


class Orders:
    """`/1/orders`. Methods take URNs or bare ids. The API can neither cancel nor delete an order."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def place(
        self,
        service_urn: str,
        parameters: Mapping[str, str],
        *,
        name: str | None = None,
        tags: Sequence[str] = (),
        policy: str | None = None,
    ) -> OrderRecord:
        """Place an order. `parameters` are wire values, as `encode_parameters` returns them.

        Keyed: the request is sent once, since the API has no idempotency key. The caller finds the order again by its
        `name`.
        """
        body: dict[str, Any] = {
            "service": ivcap_urn("service", urn_argument(service_urn, "service")),
            "parameters": [{"name": key, "value": value} for key, value in parameters.items()],
        }
        if name:
            body["name"] = name
        if tags:
            body["tags"] = texts(tags, "tags", "orders.place")
        if policy is not None:
            body["policy"] = urn_argument(policy, "policy", "urn:ivcap:policy:")
        reply = await self._session.request("POST", "/1/orders", json=body, repeat="keyed", expect=(200, 201, 202))
        return replied(OrderRecord, reply, self._session)

    async def read(self, urn: str) -> OrderRecord:
        """Read an order with its parameters and the first page of its products."""
        reply = await self._session.request("GET", f"/1/orders/{segment(urn)}", repeat="idempotent")
        return replied(OrderRecord, reply, self._session)

    def list(
        self,
        *,
        limit: int | None = None,
        filter: str | None = None,  # noqa: A002 - the API's word
        order_by: str | None = None,
        order_desc: bool | None = None,
        at_time: datetime | None = None,
    ) -> AsyncIterator[OrderRecord]:
        """Yield the orders, newest first by default; `limit` is the total."""
        params = {"filter": filter, "order-by": order_by, "order-desc": order_desc, "at-time": instant(at_time)}
        return listed(OrderRecord, self._session, "/1/orders", params, limit)

    def pages(self) -> AsyncGenerator[builtins.list[OrderRecord], None]:
        """Yield the orders, newest first, page by page. Each page is one request, sent when the page is needed."""
        params = {"order-by": "ordered-at", "order-desc": True}
        return listed_pages(OrderRecord, self._session, "/1/orders", params)

    def products(self, urn: str, *, limit: int | None = None) -> AsyncIterator[ArtifactRecord]:
        """Yield the products of an order, over all pages; `limit` is the total."""
        return listed(ArtifactRecord, self._session, f"/1/orders/{segment(urn)}/products", {}, limit)

    async def logs(
        self, urn: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncGenerator[str, None]:
        """Yield the lines of an order's log as they arrive, between two times if given (whole seconds).

        Of a line longer than 4096 bytes, only the beginning is kept. Raises UnreachableError if the stream breaks.
        """
        params = {"from": _seconds(since), "to": _seconds(until)}
        rest, skipping = b"", False
        async with self._session.stream(
            "GET", f"/1/orders/{segment(urn)}/logs", params=params, repeat="idempotent", expect=(200, 204)
        ) as reply:
            async for block in reply.blocks():
                *whole, rest = (rest + block).split(b"\n")
                for line in whole:
                    if not skipping:
                        yield _line(line)
                    skipping = False
                if len(rest) > _LINE:
                    if not skipping:
                        yield _line(rest)
                    rest, skipping = b"", True
        if rest and not skipping:
            yield _line(rest)

    async def log_tail(self, urn: str, lines: int = 20) -> str:
        """Return the last lines of an order's log. The log is streamed; only these lines are kept in memory."""
        tail: deque[str] = deque(maxlen=lines)
        async for line in self.logs(urn):
            tail.append(line)
        return "\n".join(tail)


def _line(line: bytes) -> str:
    return line[:_LINE].rstrip(b"\r").decode("utf-8", errors="replace")


def _seconds(at: datetime | None) -> int | None:
    """Return Unix seconds. Raises InputError for a time without an offset."""
    return None if at is None or instant(at) is None else int(at.timestamp())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
