"""`/1/secrets` (IVCAP OpenAPI 0.48). Only the reply to a read contains a value; no message does."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from starlette.responses import Response

from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.filters import Column, glob
from ivcap_flows.local.ivcap.paging import Listing, page_of
from ivcap_flows.local.ivcap.replies import reply
from ivcap_flows.local.ivcap.routing import Call, Operation, Param
from ivcap_flows.local.ivcap.secrets import shapes
from ivcap_flows.local.ivcap.secrets.state import RAW

__all__ = ["OPERATIONS"]

_LONGEST_NAME: Final = 256
_LARGEST_VALUE: Final = 64 * 1024
_LATEST: Final = 2**63 - 1
_EXPRESSION: Final = re.compile(r"[=~!<>()]|\b(eq|ne|lt|le|gt|ge)\b")

LISTING: Final = Listing(
    "secrets",
    "secrets",
    {"secret-name": Column("name"), "name": Column("name"), "expiry-time": Column("expires", "number")},
    "secret-name",
)


def put(call: Call) -> Response:
    body = call.object()
    name, value = _text(body, "secret-name", _LONGEST_NAME), _text(body, "secret-value", _LARGEST_VALUE)
    kind = RAW if body.get("secret-type") in (None, "") else _text(body, "secret-type", _LONGEST_NAME)
    expires = body.get("expiry-time")
    if not isinstance(expires, int) or isinstance(expires, bool) or not 0 <= expires <= _LATEST:
        raise errors.parameter("expiry-time", "expiry-time must be a number of Unix seconds, or 0 for none.")
    call.platform.secrets.put(call.who, name, value, expires, kind)
    return Response(status_code=204)


def _text(body: Mapping[str, Any], field: str, most: int) -> str:
    """Return a text of the body. Raises Problem 422 without the faulty value."""
    text = body.get(field)
    try:
        if isinstance(text, str) and 0 < len(text.encode()) <= most:
            return text
    except UnicodeEncodeError:
        pass
    raise errors.parameter(field, f"{field} must be a text of 1 to {most} bytes.")


def read(call: Call) -> Response:
    name = call.query["secret-name"]
    value, expires = call.platform.secrets.read(call.who, name, call.query["secret-type"])
    told = {"secret-name": name, "secret-value": value, "expiry-time": expires}
    return reply(told, headers={"Cache-Control": "no-store"})


def list_all(call: Call) -> Response:
    """List names and expiry. A filter without an operator is a pattern of names, or a part of a name."""
    query = call.query
    words, pattern = query["filter"], ""
    if words and not _EXPRESSION.search(words):
        words, pattern = "", words if "%" in words else f"%{words}%"
    asked = {"page": query["page"] or query["offset"], "limit": query["limit"], "filter": words}

    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        where, values = call.platform.secrets.readable(call.who)
        named = question["pattern"]
        return ([where, "name GLOB ?"], [*values, glob(named)]) if named else ([where], values)

    def item(row: sqlite3.Row, question: Mapping[str, Any]) -> dict[str, Any]:
        return {"secret-name": row["name"], "expiry-time": row["expires"]}

    page = page_of(replace(call, query={**asked, "pattern": pattern, "order-desc": False}), LISTING, conditions, item)
    return reply({"items": page["items"], "links": page["links"]})


OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/secrets/list",
        list_all,
        "List secrets",
        (
            Param("limit", "integer", 10, least=1, most=50),
            Param("filter", default="", description="A pattern of names with `%`, or an expression as in other lists."),
            Param("offset", description="The same as page."),
            Param("page", description="Cursor of a `next` link; every parameter but `limit` is then ignored."),
        ),
        answers=(200, 400, 422),
        missing="Filters cannot be regular expressions.",
        gives=shapes.LIST,
    ),
    Operation(
        "GET",
        "/1/secrets",
        read,
        "Read a secret",
        (Param("secret-name", required=True), Param("secret-type")),
        answers=(200, 404, 422),
        gives=shapes.SECRET,
    ),
    Operation(
        "POST",
        "/1/secrets",
        put,
        "Set a secret",
        body=True,
        answers=(204, 400, 422),
        takes=shapes.SETTING,
    ),
)
