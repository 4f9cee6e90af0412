"""`/1/orders` (IVCAP OpenAPI 0.48)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from ivcap_flows.local import clock
from ivcap_flows.local.ivcap.access import readable
from ivcap_flows.local.ivcap.artifacts.routes import product
from ivcap_flows.local.ivcap.filters import Column
from ivcap_flows.local.ivcap.jobs.usage import usage
from ivcap_flows.local.ivcap.orders import shapes
from ivcap_flows.local.ivcap.paging import Listing, cursor_after, page_of
from ivcap_flows.local.ivcap.replies import link, reply, without_none
from ivcap_flows.local.ivcap.routing import LIST, Call, Operation, Param

__all__ = ["OPERATIONS", "product_list"]

LISTING: Final = Listing(
    "orders",
    "orders",
    {
        "id": Column("id", never_null=True),
        "name": Column("name", never_null=True),
        "status": Column("status", never_null=True),
        "service": Column("service", never_null=True),
        "account": Column("account", never_null=True),
        "policy": Column("policy", never_null=True),
        "ordered-at": Column("ordered_at", "time", never_null=True),
        "created-at": Column("ordered_at", "time", never_null=True),
        "started-at": Column("started_at", "time"),
        "finished-at": Column("finished_at", "time"),
    },
    "ordered-at",
    since="ordered_at",
)
PRODUCTS: Final = Listing(
    "products",
    "(SELECT products.seq, products.order_id, artifacts.id, artifacts.name, artifacts.status, artifacts.mime,"
    " artifacts.size, artifacts.created_at, artifacts.visible_from"
    " FROM products JOIN artifacts ON artifacts.id = products.artifact)",
    {
        "id": Column("id", never_null=True),
        "name": Column("name"),
        "status": Column("status", never_null=True),
        "mime-type": Column("mime"),
        "size": Column("size", "number"),
        # A product is recorded together with its artifact, so `seq` has the same order.
        "created-at": Column("seq", "number", never_null=True),
    },
    "created-at",
)
METADATA: Final = Listing(
    "order-metadata",
    "aspects",
    {
        "id": Column("id", never_null=True),
        "schema": Column("schema", never_null=True),
        "created-at": Column("valid_from", "time", never_null=True),
    },
    "created-at",
)
_PAGE: Final = tuple(param for param in LIST if param.name in ("limit", "page", "order-by", "order-desc"))


def _bare(urn: str) -> str:
    return urn.rsplit(":", 1)[-1]


def _href(call: Call, urn: str) -> str:
    return f"{call.base}/1/orders/{_bare(urn)}"


def _times(row: sqlite3.Row) -> dict[str, Any]:
    names = {"ordered-at": "ordered_at", "started-at": "started_at", "finished-at": "finished_at"}
    return {name: None if row[column] is None else clock.stamp(row[column]) for name, column in names.items()}


def product_list(call: Call, order: str) -> dict[str, Any]:
    """Return the products inside a record: the first page, and a link to the rest."""
    rows = call.platform.orders.products(order, limit=LIST[0].default + 1)
    links = []
    if len(rows) > LIST[0].default:
        rows = rows[:-1]
        question = {"order-by": None, "order-desc": False, "at": clock.now()}
        path = f"/1/orders/{_bare(order)}/products"
        cursor = cursor_after(call, PRODUCTS, path, question, [rows[-1]["seq"], rows[-1]["seq"]])
        links = [link("next", f"{call.base}{path}?page={cursor}")]
    return {"items": [product(call.base, row) for row in rows], "links": links}


def record(call: Call, row: sqlite3.Row) -> dict[str, Any]:
    return without_none(
        {
            "id": row["id"],
            "status": row["status"],
            "name": row["name"],
            "tags": json.loads(row["tags"]) or None,
            "service": row["service"],
            "account": row["account"],
            **_times(row),
            "parameters": json.loads(row["parameters"]),
            "products": product_list(call, row["id"]),
            "links": [link("self", _href(call, row["id"]))],
        }
    )


def place(call: Call) -> Response:
    return reply(record(call, call.platform.orders.place(call.who, call.object())))


def read(call: Call) -> Response:
    return reply(record(call, call.platform.orders.read(call.who, call.id("order"))))


def list_all(call: Call) -> Response:
    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        seen, values = readable(call.who)
        return [seen], values

    def item(row: sqlite3.Row, question: Mapping[str, Any]) -> dict[str, Any]:
        common = {name: row[name] for name in ("id", "status", "name", "service", "account")}
        return without_none(common | _times(row) | {"href": _href(call, row["id"])})

    return reply(page_of(call, LISTING, conditions, item))


def products(call: Call) -> Response:
    order = call.platform.orders.read(call.who, call.id("order"))["id"]

    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        return ["order_id = ?", "visible_from <= ?"], [order, clock.now()]

    page = page_of(call, PRODUCTS, conditions, lambda row, question: product(call.base, row))
    del page["at-time"]
    return reply(page)


def metadata(call: Call) -> Response:
    order = call.platform.orders.read(call.who, call.id("order"))["id"]

    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        seen, values = readable(call.who)
        return [seen, "entity = ?", "valid_to IS NULL"], [*values, order]

    def item(row: sqlite3.Row, question: Mapping[str, Any]) -> dict[str, Any]:
        href = f"{call.base}/1/aspects/{row['id']}"
        return {"id": row["id"], "schema": row["schema"], "href": href, "content-type": "application/json"}

    page = page_of(call, METADATA, conditions, item)
    del page["at-time"]
    return reply(page)


def logs(call: Call) -> Response:
    """Reply with the service's output between `from` and `to` (Unix seconds, both inclusive)."""
    order = call.platform.orders.read(call.who, call.id("order"))["id"]
    begin, end = call.query["from"], call.query["to"]
    first, last = None if begin is None else begin * 1000, None if end is None else (end + 1) * 1000
    texts = [call.platform.jobs.log(job, first, last) for job in call.platform.orders.jobs(order)]
    return Response(b"".join(texts), media_type="text/plain; charset=utf-8")


async def top(call: Call) -> Response:
    """Reply with the resource use of the order's running jobs, each as one container."""
    jobs: list[sqlite3.Row] = await call.state(_running, call)
    folders = [call.platform.directory.run(job["id"]) for job in jobs]
    found = await asyncio.to_thread(lambda: [usage(folder) for folder in folders])
    told = zip(jobs, found, strict=True)
    return reply([{"container": job["name"], **figures} for job, figures in told if figures is not None])


def _running(call: Call) -> list[sqlite3.Row]:
    order = call.platform.orders.read(call.who, call.id("order"))["id"]
    jobs = [call.platform.jobs.get(job) for job in call.platform.orders.jobs(order)]
    return [job for job in jobs if job["status"] == "executing"]


OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/orders",
        list_all,
        "List orders",
        LIST,
        answers=(200, 400, 422),
        missing="`at-time` selects the records that existed then; their content is the present one.",
        gives=shapes.LIST,
    ),
    Operation(
        "POST",
        "/1/orders",
        place,
        "Place an order",
        body=True,
        answers=(200, 400, 404, 422),
        takes=shapes.REQUEST,
        gives=shapes.RECORD,
    ),
    Operation("GET", "/1/orders/{id}", read, "Read an order", answers=(200, 404), gives=shapes.RECORD),
    Operation(
        "GET",
        "/1/orders/{id}/products",
        products,
        "Products of an order",
        _PAGE,
        answers=(200, 400, 404),
        gives=shapes.PRODUCT_LIST,
    ),
    Operation(
        "GET",
        "/1/orders/{id}/metadata",
        metadata,
        "Aspects of an order",
        _PAGE,
        answers=(200, 400, 404),
        gives=shapes.METADATA,
    ),
    Operation(
        "GET",
        "/1/orders/{id}/logs",
        logs,
        "Read the log of an order's service",
        (Param("from", "integer"), Param("to", "integer")),
        answers=(200, 404),
        gives=shapes.LOG,
    ),
    Operation(
        "GET",
        "/1/orders/{id}/top",
        top,
        "Resources that an order uses",
        answers=(200, 404),
        gives=shapes.TOP,
    ),
)
