"""`/1/dashboards` (IVCAP OpenAPI 0.48)."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from ivcap_flows.local.ivcap.replies import reply
from ivcap_flows.local.ivcap.routing import LIST, Call, Operation
from ivcap_flows.local.ivcap.shapes import TEXT, Body, record

__all__ = ["OPERATIONS"]


def list_all(call: Call) -> Response:
    return reply({"items": []})


OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/dashboards",
        list_all,
        "List dashboards",
        LIST,
        answers=(200, 422),
        missing="There are no dashboards.",
        gives=Body(
            record({"items": {"type": "array", "items": record({"id": TEXT, "uid": TEXT, "title": TEXT, "url": TEXT})}})
        ),
    ),
)
