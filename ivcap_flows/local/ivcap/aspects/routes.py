"""`/1/aspects` (IVCAP OpenAPI 0.48)."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from ivcap_flows.local import clock
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.access import checked_policy, readable
from ivcap_flows.local.ivcap.aspects import shapes
from ivcap_flows.local.ivcap.filters import Column, glob
from ivcap_flows.local.ivcap.jsonpath import compile_path
from ivcap_flows.local.ivcap.paging import Listing, page_of
from ivcap_flows.local.ivcap.replies import link, reply, without_none
from ivcap_flows.local.ivcap.routing import AT_TIME, Call, Operation, Param
from ivcap_flows.local.ivcap.shapes import ID_REPLY

__all__ = ["OPERATIONS"]

_LONGEST_URN: Final = 2000
_LONGEST_KEY: Final = 200


def _content_column(name: str) -> Column | None:
    """Return the column for any other name, which is a top-level key of the content.

    `ivcap job list` sorts by `requested-at` in this way.
    """
    if re.fullmatch(r"[\w.$-]{1,100}", name, re.ASCII):
        # A literal, so that an index of the same expression can be used.
        return Column(f"json_extract(content, '$.\"{name}\"')", "any")
    if name.isprintable() and len(name) <= _LONGEST_KEY and not set(name) & set('"\\'):
        return Column("json_extract(content, ?)", "any", values=(f'$."{name}"',))
    return None


LISTING: Final = Listing(
    "aspects",
    "aspects",
    {
        "id": Column("id", never_null=True),
        "entity": Column("entity", never_null=True),
        "schema": Column("schema", never_null=True),
        "content": Column("content", never_null=True),
        "policy": Column("policy", never_null=True),
        "account": Column("account", never_null=True),
        "created-by": Column("asserter", never_null=True),
        "asserter": Column("asserter", never_null=True),
        "retracted-by": Column("retracter"),
        "replaces": Column("replaces"),
        "valid-from": Column("valid_from", "time", never_null=True),
        "created-at": Column("valid_from", "time", never_null=True),
        "valid-to": Column("valid_to", "time"),
    },
    "valid-from",
    _content_column,
    since="valid_from",
)


def _urn(call: Call, name: str) -> str:
    text: str = call.query[name]
    if ":" not in text or len(text) > _LONGEST_URN:
        raise errors.parameter(name, f"{name} must be a URN of at most {_LONGEST_URN} characters.", text)
    return text


def add(call: Call) -> Response:
    content, policy = call.json(), checked_policy(call.query["policy"], "aspect")
    urn = call.platform.aspects.add(call.who, _urn(call, "entity"), _urn(call, "schema"), content, policy=policy)
    return reply({"id": urn})


def put(call: Call) -> Response:
    content, policy = call.json(), checked_policy(call.query["policy"], "aspect")
    urn = call.platform.aspects.put(call.who, _urn(call, "entity"), _urn(call, "schema"), content, policy=policy)
    return reply({"id": urn})


def _common(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "entity": row["entity"],
        "schema": row["schema"],
        "content-type": "application/json",
        "valid-from": clock.stamp(row["valid_from"]),
    }


def read(call: Call) -> Response:
    row = call.platform.aspects.read(call.who, call.id("aspect"))
    known = _common(row) | {
        "content": json.loads(row["content"]),
        "asserter": row["asserter"],
        "account": row["account"],
        "policy": row["policy"],
        "links": [link("self", f"{call.base}/1/aspects/{row['id']}")],
    }
    optional = {
        "valid-to": None if row["valid_to"] is None else clock.stamp(row["valid_to"]),
        "retracter": row["retracter"],
        "replaces": row["replaces"],
    }
    return reply(known | without_none(optional))


def retract(call: Call) -> Response:
    call.platform.aspects.retract(call.who, call.id("aspect"))
    return Response(status_code=204)


def list_all(call: Call) -> Response:
    asked: dict[str, Any] = {}

    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        asked.update(
            {"entity": question["entity"], "schema": question["schema"], "aspect-path": question["content-path"]}
        )
        seen, values = readable(call.who)
        where = [seen, "(valid_to IS NULL OR valid_to > ?)"]
        values.append(question["at"])
        if question["entity"] is not None:
            where.append("entity = ?")
            values.append(question["entity"])
        if question["schema"] is not None:
            pattern = "%" in question["schema"]
            where.append("schema GLOB ?" if pattern else "schema = ?")
            values.append(glob(question["schema"]) if pattern else question["schema"])
        if question["content-path"] is not None:
            compile_path(question["content-path"])
            where.append("content_matches(content, ?)")
            values.append(question["content-path"])
        return where, values

    def item(row: sqlite3.Row, question: Mapping[str, Any]) -> dict[str, Any]:
        told = _common(row)
        if row["valid_to"] is not None:
            told["valid-to"] = clock.stamp(row["valid_to"])
        if question["include-content"]:
            told["content"] = json.loads(row["content"])
        return told

    return reply(page_of(call, LISTING, conditions, item) | without_none(asked))


_PAIR: Final = (Param("entity", required=True), Param("schema", required=True), Param("policy"))

OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/aspects",
        list_all,
        "List aspects",
        (
            Param("entity"),
            Param("schema", description="A schema, or a pattern with `%`."),
            Param("content-path", description="A JSON path that must match something in the content."),
            AT_TIME,
            Param("limit", "integer", 10, least=1, most=50),
            Param("page"),
            Param("filter", default=""),
            Param("order-by"),
            Param("order-direction", default="DESC"),
            Param("include-content", "boolean", False),
        ),
        answers=(200, 400, 422),
        missing="Only a part of PostgreSQL's JSON path language is supported; other paths are refused with 400.",
        gives=shapes.LIST,
    ),
    Operation("POST", "/1/aspects", add, "Add an aspect", _PAIR, body=True, answers=(200, 400, 422), gives=ID_REPLY),
    Operation(
        "PUT",
        "/1/aspects",
        put,
        "Replace an aspect",
        _PAIR,
        body=True,
        answers=(200, 400, 422, 424),
        gives=ID_REPLY,
    ),
    Operation("GET", "/1/aspects/{id}", read, "Read an aspect", answers=(200, 404), gives=shapes.RECORD),
    Operation("DELETE", "/1/aspects/{id}", retract, "Retract an aspect", answers=(204, 403, 404)),
)
