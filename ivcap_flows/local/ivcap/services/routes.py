"""`/1/services2` (IVCAP OpenAPI 0.48)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from ivcap_flows.local import clock
from ivcap_flows.local.ivcap.access import readable
from ivcap_flows.local.ivcap.filters import Column
from ivcap_flows.local.ivcap.paging import Listing, page_of
from ivcap_flows.local.ivcap.replies import link, reply, without_none
from ivcap_flows.local.ivcap.routing import LIST, Call, Operation, Param
from ivcap_flows.local.ivcap.services import shapes
from ivcap_flows.local.ivcap.services.ranking import score

__all__ = ["OPERATIONS"]

LISTING: Final = Listing(
    "services",
    "services",
    {
        "id": Column("id", never_null=True),
        "name": Column("name"),
        "description": Column("description", never_null=True),
        "controller-schema": Column("controller_schema", never_null=True),
        "policy": Column("policy", never_null=True),
        "account": Column("account", never_null=True),
        "valid-from": Column("valid_from", "time", never_null=True),
        "created-at": Column("valid_from", "time", never_null=True),
    },
    "valid-from",
    since="valid_from",
)


_SCORE: Final = "service_score(?, name, description, tags)"


class _Ranked(Listing):
    """Services by score, the best first whatever `order-desc` says, unless `order-by` names another order."""

    @classmethod
    def by(cls, words: str) -> _Ranked:
        ranked = Column(_SCORE, "number", values=(words,), never_null=True)
        return cls(LISTING.name, LISTING.table, {**LISTING.columns, "score": ranked}, "score", since=LISTING.since)

    def order_keys(self, question: Mapping[str, Any]) -> list[tuple[Column, bool]]:
        return super().order_keys(question if question.get("order-by") else {**question, "order-desc": True})


def href(base: str, urn: str) -> str:
    return f"{base}/1/services2/{urn.rsplit(':', 1)[-1]}"


def _common(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "controller-schema": row["controller_schema"],
        "tags": json.loads(row["tags"]) or None,
        "valid-from": clock.stamp(row["valid_from"]),
        "valid-to": None if row["valid_to"] is None else clock.stamp(row["valid_to"]),
    }


def _record(call: Call, row: sqlite3.Row) -> dict[str, Any]:
    return without_none(
        _common(row)
        | {
            "status": "active" if row["valid_to"] is None else "inactive",
            "controller": json.loads(row["controller"]),
            "policy": row["policy"],
            "account": row["account"],
            "parameters": json.loads(row["parameters"]),
            "links": [link("self", href(call.base, row["id"]))],
        }
    )


def list_all(call: Call) -> Response:
    words = _words(call)

    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        seen, values = readable(call.who)
        where, values = [seen, "(valid_to IS NULL OR valid_to > ?)"], [*values, question["at"]]
        return (where, values) if not words else ([*where, f"{_SCORE} > 0"], [*values, words])

    def item(row: sqlite3.Row, question: Mapping[str, Any]) -> dict[str, Any]:
        found = score(words, row["name"], row["description"], row["tags"]) if words else None
        return without_none(_common(row) | {"href": href(call.base, row["id"]), "score": found})

    return reply(page_of(call, _Ranked.by(words) if words else LISTING, conditions, item))


def _words(call: Call) -> str:
    """Return the words of the search; with a cursor, those of its query."""
    if not call.query["page"]:
        return call.query["search"] or ""
    question = call.platform.cursors.read(call.query["page"]).get("question") or {}
    return str(question.get("search") or "")


def read(call: Call) -> Response:
    return reply(_record(call, call.platform.services.read(call.who, call.id("service"))))


def create(call: Call) -> Response:
    row = call.platform.services.create(call.who, call.object())
    return reply(_record(call, row), 201, {"Location": href(call.base, row["id"])})


def define(call: Call) -> Response:
    row = call.platform.services.define(call.who, call.id("service"), call.object(), create=call.query["force-create"])
    return reply(_record(call, row))


def withdraw(call: Call) -> Response:
    call.platform.services.withdraw(call.who, call.id("service"))
    return Response(status_code=204)


OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/services2",
        list_all,
        "List services",
        (*LIST, Param("search")),
        answers=(200, 400, 422),
        missing="`search` compares the words of the name, tags and description, not their meaning.",
        gives=shapes.LIST,
    ),
    Operation(
        "POST",
        "/1/services2",
        create,
        "Create a service",
        body=True,
        answers=(201, 400, 409, 422),
        takes=shapes.DEFINITION,
        gives=shapes.RECORD,
        tells=("Location",),
    ),
    Operation("GET", "/1/services2/{id}", read, "Read a service", answers=(200, 404), gives=shapes.RECORD),
    Operation(
        "PUT",
        "/1/services2/{id}",
        define,
        "Replace the definition of a service",
        (Param("force-create", "boolean", False),),
        body=True,
        answers=(200, 400, 403, 404, 422),
        takes=shapes.DEFINITION,
        gives=shapes.RECORD,
    ),
    Operation("DELETE", "/1/services2/{id}", withdraw, "End a service", answers=(204, 403, 404)),
)
