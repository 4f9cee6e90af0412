"""Schemas of services and metadata in their older forms (IVCAP OpenAPI 0.48: Servicex, Metadata)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.local.ivcap.services.shapes import PARAMETERS, WANTED
from ivcap_flows.local.ivcap.shapes import LINKS, POLICY, TEXT, TEXTS, TIME, URI, URN, Body, listed, maybe, record

__all__ = ["DEFINITION", "METADATA", "METADATA_LIST", "RECORD_ID", "SERVICE", "SERVICES"]

_OBJECT: Final = {"type": "object"}
_WORKFLOW: Final = {
    "oneOf": [
        record({"type": {"enum": ["basic"]}, "basic": record({"image": TEXT, "command": TEXTS})}),
        record({"type": {"enum": ["argo"]}, "argo": _OBJECT}),
    ]
}

DEFINITION: Final = Body(
    record(
        {"description": TEXT, "workflow": _WORKFLOW, "parameters": {"type": "array", "items": WANTED}},
        {
            "name": maybe(TEXT),
            "tags": maybe(TEXTS),
            "policy": maybe(POLICY),
            "banner": maybe(TEXT),
            "references": maybe({"type": "array", "items": {}}),
        },
    )
)
SERVICE: Final = Body(
    record(
        {
            "id": URN,
            "status": {"enum": ["active", "inactive", "error"]},
            "account": URN,
            "parameters": PARAMETERS,
            "links": LINKS,
        },
        {"name": TEXT, "description": TEXT, "tags": TEXTS},
    )
)
SERVICES: Final = listed(
    record(
        {"id": URN, "account": URN, "href": URI},
        {"name": TEXT, "description": TEXT, "banner": TEXT, "policy": URN, "published-at": TIME},
    )
)
METADATA: Final = Body(
    record(
        {"id": URN, "entity": TEXT, "schema": TEXT, "aspect": {}, "valid-from": TIME, "asserter": TEXT, "links": LINKS},
        {"valid-to": TIME, "revoker": TEXT},
    )
)
METADATA_LIST: Final = listed(record({"id": URN, "entity": TEXT, "schema": TEXT}, {"aspect": {}}))
RECORD_ID: Final = Body(record({"record-id": URN}))
