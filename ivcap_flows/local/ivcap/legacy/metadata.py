"""`/1/metadata` (IVCAP OpenAPI 0.48): the aspects of `/1/aspects` under their older names."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from starlette.responses import Response

from ivcap_flows.local.ivcap.access import checked_policy
from ivcap_flows.local.ivcap.aspects import routes as aspects
from ivcap_flows.local.ivcap.legacy import shapes
from ivcap_flows.local.ivcap.replies import link, reply
from ivcap_flows.local.ivcap.routing import AT_TIME, Call, Operation, Param

__all__ = ["OPERATIONS"]

_NAMES: Final = {"entity-id": "entity", "aspect-path": "content-path", "policy-id": "policy"}
"""Parameter of `/1/metadata` -> its name in `/1/aspects`."""


def _renamed(call: Call) -> Call:
    return replace(call, query={_NAMES.get(name, name): value for name, value in call.query.items()})


def list_all(call: Call) -> Response:
    page = aspects.page(_renamed(call))
    items = [
        {name: one[name] for name in ("id", "entity", "schema")}
        | ({"aspect": one["content"]} if "content" in one else {})
        for one in page["items"]
    ]
    return reply(page | {"items": items})


def read(call: Call) -> Response:
    record = aspects.record(call)
    told = {name: record[name] for name in ("id", "entity", "schema", "valid-from", "asserter")}
    told |= {"aspect": record["content"], "links": [link("self", f"{call.base}/1/metadata/{record['id']}")]}
    told |= {"valid-to": record["valid-to"], "revoker": record["retracter"]} if "valid-to" in record else {}
    return reply(told)


def add(call: Call) -> Response:
    return reply({"record-id": aspects.added(_renamed(call))})


def change(call: Call) -> Response:
    """Replace a record; the new one inherits what is not given."""
    query = _renamed(call).query
    urn = call.platform.aspects.replace(
        call.who,
        call.id("aspect"),
        call.json(),
        entity=query["entity"],
        schema=query["schema"],
        policy=checked_policy(query["policy"], "aspect", "policy-id") if query["policy"] else None,
    )
    return reply({"record-id": urn})


def retract(call: Call) -> Response:
    call.platform.aspects.retract(call.who, call.id("aspect"))
    return Response(status_code=204)


OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/metadata",
        list_all,
        "List metadata (older form)",
        (
            Param("entity-id"),
            Param("schema", description="A schema, or a pattern with `%`."),
            Param("aspect-path", description="A JSON path that must match something in the content."),
            AT_TIME,
            Param("limit", "integer", 10, least=1, most=50),
            Param("filter", default=""),
            Param("order-by"),
            Param("order-desc", "boolean", False),
            Param("include-content", "boolean", True),
            Param("page"),
        ),
        answers=(200, 400, 422),
        missing="The values that an `aspect-path` found (`aspect-context`) are not returned.",
        gives=shapes.METADATA_LIST,
    ),
    Operation(
        "POST",
        "/1/metadata",
        add,
        "Add metadata (older form)",
        (Param("entity-id", required=True), Param("schema", required=True), Param("policy-id")),
        body=True,
        answers=(200, 400, 422),
        gives=shapes.RECORD_ID,
    ),
    Operation(
        "GET",
        "/1/metadata/{id}",
        read,
        "Read metadata (older form)",
        answers=(200, 404),
        gives=shapes.METADATA,
    ),
    Operation(
        "PUT",
        "/1/metadata/{id}",
        change,
        "Replace metadata (older form)",
        (Param("entity-id"), Param("schema"), Param("policy-id")),
        body=True,
        answers=(200, 400, 403, 404, 422),
        gives=shapes.RECORD_ID,
    ),
    Operation("DELETE", "/1/metadata/{id}", retract, "Retract metadata (older form)", answers=(204, 403, 404)),
)
