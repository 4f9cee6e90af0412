"""`/1/packages` (IVCAP OpenAPI 0.48). Images are pushed to a registry, which the embedded platform does not have."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from starlette.responses import Response

from ivcap_flows.local.ivcap.filters import Column
from ivcap_flows.local.ivcap.paging import Listing, page_of
from ivcap_flows.local.ivcap.replies import reply
from ivcap_flows.local.ivcap.routing import Call, Operation, Param
from ivcap_flows.local.ivcap.shapes import TEXT, listed

__all__ = ["OPERATIONS"]

LISTING: Final = Listing("packages", "packages", {"tag": Column("tag")}, "tag")


def list_all(call: Call) -> Response:
    """List the images. `tag` is an image with its tag, or without it for all its tags."""

    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        where: list[str] = ["account = ?"]
        values: list[Any] = [call.who.account]
        if question["tag"]:
            names = call.platform.packages.names(call.who, question["tag"])
            where.append("(" + " OR ".join("tag = ? OR substr(tag, 1, ?) = ?" for _ in names) + ")")
            values += [value for name in names for value in (name, len(name) + 1, f"{name}:")]
        return where, values

    def item(row: sqlite3.Row, question: Mapping[str, Any]) -> dict[str, Any]:
        return {"tag": row["tag"]}

    page = page_of(replace(call, query={**call.query, "order-desc": False}), LISTING, conditions, item)
    return reply({"items": [one["tag"] for one in page["items"]], "links": page["links"]})


def remove(call: Call) -> Response:
    call.platform.packages.remove(call.who, call.query["tag"])
    return Response(status_code=204)


OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/packages/list",
        list_all,
        "List packages",
        (Param("tag"), Param("limit", "integer", 10, least=1, most=50), Param("page")),
        answers=(200, 400, 422),
        missing="There is no registry to push to: the packages of an account are the images that its services name.",
        gives=listed(TEXT, at_time=False),
    ),
    Operation(
        "DELETE",
        "/1/packages/remove",
        remove,
        "Remove a package",
        (Param("tag", required=True),),
        answers=(204, 404, 422),
    ),
)
