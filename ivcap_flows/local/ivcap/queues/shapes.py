"""Schemas of queues (IVCAP OpenAPI 0.48: QueueStatusRT, QueueListItem, PublishedMessage)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.local.ivcap.shapes import LINKS, POLICY, TEXT, TIME, URI, URN, WHOLE, Body, listed, maybe, record

__all__ = ["CREATED", "DEFINITION", "LIST", "MESSAGES", "RECORD"]

DEFINITION: Final = Body(
    record(
        {"name": {"type": "string", "minLength": 1, "maxLength": 255}},
        {"description": maybe(TEXT), "policy": maybe(POLICY)},
    )
)
CREATED: Final = Body(record({"id": URN, "name": TEXT}, {"description": TEXT, "account": URN}))
RECORD: Final = Body(
    record(
        {"id": URN, "name": TEXT, "created-at": TIME},
        {
            "description": TEXT,
            "total-messages": WHOLE,
            "bytes": WHOLE,
            "consumer-count": WHOLE,
            "first-time": TIME,
            "last-time": TIME,
            "links": LINKS,
        },
    )
)
LIST: Final = listed(record({"id": URN, "account": URN, "href": URI}, {"name": TEXT, "description": TEXT}))
MESSAGES: Final = Body(
    record(
        {
            "messages": {
                "type": "array",
                "items": record({"id": TEXT, "content": {}}, {"schema": TEXT, "content-type": TEXT}),
            },
            "at-time": TIME,
        }
    )
)
