"""Schemas of artifacts (IVCAP OpenAPI 0.48: ArtifactStatusRT, ArtifactListItem)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.local.ivcap.shapes import LINKS, TEXT, TIME, URI, URN, WHOLE, Body, listed, record

__all__ = ["LIST", "PRODUCT", "PRODUCTS", "RECORD"]

_STATUS: Final = {"enum": ["pending", "partial", "ready", "error", "unknown"]}

RECORD: Final = Body(
    record(
        {"id": URN, "status": _STATUS, "links": LINKS},
        {
            "name": TEXT,
            "mime-type": TEXT,
            "size": WHOLE,
            "created-at": TIME,
            "last-modified-at": TIME,
            "policy": URN,
            "account": URN,
            "data-href": URI,
        },
    )
)
LIST: Final = listed(
    record(
        {"id": URN, "status": _STATUS, "created-at": TIME, "href": URI},
        {"name": TEXT, "mime-type": TEXT, "size": WHOLE},
    )
)
PRODUCT: Final = record(
    {"id": URN, "status": _STATUS, "href": URI},
    {"name": TEXT, "mime-type": TEXT, "size": WHOLE, "data-href": URI},
)
PRODUCTS: Final = record({"items": {"type": "array", "items": PRODUCT}, "links": LINKS})
