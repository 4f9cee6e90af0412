"""Schemas of services (IVCAP OpenAPI 0.48: ServiceStatusRT, ServiceListItem, ServiceDefinitionT)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.local.ivcap.services.parameters import TYPES
from ivcap_flows.local.ivcap.shapes import (
    LINKS,
    POLICY,
    TEXT,
    TEXTS,
    TIME,
    TRUTH,
    URI,
    URN,
    Body,
    listed,
    maybe,
    record,
)

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

_WANTED: Final = record(
    {"name": {"type": "string", "minLength": 1}, "type": {"enum": list(TYPES)}},
    {
        **{name: maybe(TEXT) for name in ("description", "label", "unit", "default")},
        **{name: maybe(TRUTH) for name in ("constant", "optional", "unary")},
        "options": maybe({"type": "array", "items": record({"value": TEXT}, {"description": TEXT})}),
    },
)

DEFINITION: Final = Body(
    record(
        {
            "description": TEXT,
            "controller-schema": TEXT,
            # In the example of the OpenAPI document it is inside an array.
            "controller": {"anyOf": [_OBJECT, {"type": "array", "items": _OBJECT, "minItems": 1, "maxItems": 1}]},
        },
        {
            "id": maybe(TEXT),
            "name": maybe(TEXT),
            "tags": maybe(TEXTS),
            "policy": maybe(POLICY),
            "parameters": maybe({"type": "array", "items": _WANTED}),
            "request-schema": maybe(_OBJECT),
        },
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
