"""What services look like (IVCAP OpenAPI 0.48: ServiceStatusRT, ServiceListItem, ServiceDefinitionT)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.local.ivcap.shapes import LINKS, TEXT, TEXTS, TIME, TRUTH, URI, URN, Body, listed, record

__all__ = ["DEFINITION", "LIST", "RECORD"]

_OBJECT: Final = {"type": "object"}
_PARAMETER: Final = record(
    {"name": TEXT, "description": TEXT, "type": TEXT},
    {
        "label": TEXT,
        "unit": TEXT,
        "constant": TRUTH,
        "optional": TRUTH,
        "unary": TRUTH,
        "default": TEXT,
        "options": {"type": "array", "items": record({"value": TEXT}, {"description": TEXT})},
    },
)
_PARAMETERS: Final = {"type": "array", "items": _PARAMETER}

DEFINITION: Final = Body(
    record(
        {"description": TEXT, "controller-schema": TEXT, "controller": _OBJECT},
        {"id": TEXT, "name": TEXT, "tags": TEXTS, "policy": URN, "parameters": _PARAMETERS, "request-schema": _OBJECT},
    )
)
RECORD: Final = Body(
    record(
        {
            "id": URN,
            "status": {"enum": ["active", "inactive", "error"]},
            "description": TEXT,
            "controller-schema": TEXT,
            "controller": _OBJECT,
            "policy": URN,
            "account": URN,
            "parameters": _PARAMETERS,
            "links": LINKS,
        },
        {"name": TEXT, "tags": TEXTS, "valid-from": TIME, "valid-to": TIME},
    )
)
LIST: Final = listed(
    record(
        {"id": URN, "controller-schema": TEXT, "href": URI},
        {"name": TEXT, "description": TEXT, "tags": TEXTS, "valid-from": TIME, "valid-to": TIME},
    )
)
