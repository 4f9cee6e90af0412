"""`/1/queues` (IVCAP OpenAPI 0.48)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from ivcap_flows.local import clock
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.access import checked_policy, readable
from ivcap_flows.local.ivcap.filters import Column
from ivcap_flows.local.ivcap.paging import Listing, page_of
from ivcap_flows.local.ivcap.queues import shapes
from ivcap_flows.local.ivcap.replies import compact, link, reply, without_none
from ivcap_flows.local.ivcap.routing import LIST, Call, Operation, Param
from ivcap_flows.local.ivcap.shapes import TEXT, Body, record

__all__ = ["OPERATIONS"]

_LONGEST_NAME: Final = 255
_FORBIDDEN: Final = frozenset(".*>/\\")
_LARGEST_MESSAGE: Final = 1024 * 1024
"""Maximum bytes of a message: the default of NATS, which carries the platform's queues."""

LISTING: Final = Listing(
    "queues",
    "queues",
    {
        "id": Column("id"),
        "name": Column("name"),
        "description": Column("description"),
        "policy": Column("policy"),
        "account": Column("account"),
        "created-at": Column("created_at", "time"),
    },
    "created-at",
    since="created_at",
)


def _href(call: Call, urn: str) -> str:
    return f"{call.base}/1/queues/{urn.rsplit(':', 1)[-1]}"


def _name(value: Any) -> str:
    """Check a queue's name. Raises Problem 422."""
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= _LONGEST_NAME
        or not value.isprintable()
        or any(sign.isspace() or sign in _FORBIDDEN for sign in value)
    ):
        said = f"name must have 1 to {_LONGEST_NAME} printable characters, without blanks and . * > / \\."
        raise errors.parameter("name", said)
    return value


def create(call: Call) -> Response:
    body = call.object()
    name, description = _name(body.get("name")), body.get("description")
    if description is not None and not isinstance(description, str):
        raise errors.parameter("description", "description must be a text.")
    urn = call.platform.queues.create(call.who, name, description, checked_policy(body.get("policy"), "queue"))
    made = {"id": urn, "name": name, "description": description, "account": call.who.account}
    return reply(without_none(made), 201, {"Location": _href(call, urn)})


def list_all(call: Call) -> Response:
    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        seen, values = readable(call.who)
        return [seen], values

    def item(row: sqlite3.Row, question: Mapping[str, Any]) -> dict[str, Any]:
        told = {name: row[name] for name in ("id", "name", "description", "account")}
        return without_none({**told, "href": _href(call, row["id"])})

    return reply(page_of(call, LISTING, conditions, item))


def read(call: Call) -> Response:
    row = call.platform.queues.read(call.who, call.id("queue"))
    told = {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "created-at": clock.stamp(row["created_at"]),
        "total-messages": row["total"],
        "bytes": row["bytes"],
        "consumer-count": 0,
        "first-time": None if row["first"] is None else clock.stamp(row["first"]),
        "last-time": None if row["last"] is None else clock.stamp(row["last"]),
        "links": [link("self", _href(call, row["id"]))],
    }
    return reply(without_none(told))


def delete(call: Call) -> Response:
    call.platform.queues.delete(call.who, call.id("queue"))
    return Response(status_code=204)


def enqueue(call: Call) -> Response:
    content = compact(call.json())
    if len(content) > _LARGEST_MESSAGE:
        raise errors.too_large(f"A message may have at most {_LARGEST_MESSAGE} bytes.")
    return reply({"id": call.platform.queues.enqueue(call.who, call.id("queue"), content, call.query["schema"])})


def dequeue(call: Call) -> Response:
    rows = call.platform.queues.dequeue(call.who, call.id("queue"), call.query["limit"])
    messages = [
        {"id": row["id"], "content": json.loads(row["content"]), "content-type": "application/json"}
        | without_none({"schema": row["schema"]})
        for row in rows
    ]
    return reply({"messages": messages, "at-time": clock.stamp(clock.now())}, headers={"Cache-Control": "no-store"})


OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/queues",
        list_all,
        "List queues",
        LIST,
        answers=(200, 400, 422),
        gives=shapes.LIST,
    ),
    Operation(
        "POST",
        "/1/queues",
        create,
        "Create a queue",
        body=True,
        answers=(201, 400, 409, 422),
        takes=shapes.DEFINITION,
        gives=shapes.CREATED,
        tells=("Location",),
    ),
    Operation(
        "GET",
        "/1/queues/{id}",
        read,
        "Read a queue and its counts",
        answers=(200, 404),
        missing="No consumer can wait at a queue, so `consumer-count` is always 0.",
        gives=shapes.RECORD,
    ),
    Operation("DELETE", "/1/queues/{id}", delete, "Delete a queue and its messages", answers=(204, 403, 404)),
    Operation(
        "POST",
        "/1/queues/{id}/messages",
        enqueue,
        "Put a message into a queue",
        (Param("schema"),),
        body=True,
        answers=(200, 400, 403, 404, 413),
        gives=Body(record({"id": TEXT})),
    ),
    Operation(
        "GET",
        "/1/queues/{id}/messages",
        dequeue,
        "Take messages from a queue",
        (Param("limit", "integer", 1, least=1, most=1000),),
        answers=(200, 403, 404, 422),
        gives=shapes.MESSAGES,
    ),
)
