"""Schemas of projects (IVCAP OpenAPI 0.48: ProjectStatusRT, ProjectListRT, UserListItem)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.local.ivcap.shapes import TEXT, TIME, URN, Body, maybe, record

__all__ = ["ACCOUNT", "CHANGE", "DEFAULT", "DEFINITION", "LIST", "MEMBERS", "RECORD", "ROLE"]

_PROPERTIES: Final = record({}, {"details": TEXT})
_FIELDS: Final = {
    "account": maybe(TEXT),
    "parent": maybe(TEXT),
    "properties": maybe(record({}, {"details": maybe(TEXT)})),
}
_PROJECT: Final = record(
    {
        "urn": URN,
        "name": TEXT,
        "status": {"enum": ["unknown", "active", "disabled", "deleted"]},
        "created_at": TIME,
        "modified_at": TIME,
    },
    {"role": TEXT, "account": URN, "parent": URN, "properties": _PROPERTIES, "at-time": TIME},
)

DEFINITION: Final = Body(record({"name": TEXT}, {"urn": maybe(TEXT), **_FIELDS}))
CHANGE: Final = Body(record({}, {"name": maybe(TEXT), **_FIELDS}))
DEFAULT: Final = Body(record({"project_urn": TEXT}, {"user_urn": maybe(TEXT)}))
ROLE: Final = Body(record({"role": {"type": "string", "minLength": 1}}))
ACCOUNT: Final = Body(record({"account_urn": TEXT}))
RECORD: Final = Body(_PROJECT)
LIST: Final = Body(record({"projects": {"type": "array", "items": _PROJECT}, "at-time": TIME}, {"page": TEXT}))
MEMBERS: Final = Body(
    record(
        {
            "members": {"type": "array", "items": record({"urn": URN, "role": TEXT}, {"email": TEXT})},
            "at-time": TIME,
        },
        {"page": TEXT},
    )
)
