"""JSON schemas that the operations' descriptions share. Each noun has its own beside its routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "BYTES",
    "CONTENT",
    "ID_REPLY",
    "LINKS",
    "POLICY",
    "TEXT",
    "TEXTS",
    "TIME",
    "TRUTH",
    "URI",
    "URN",
    "WHOLE",
    "Body",
    "Schema",
    "listed",
    "maybe",
    "record",
]

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Body:
    """The body of a request or a reply: a JSON schema (empty: anything) and its media types."""

    schema: Schema = field(default_factory=dict)
    media: Sequence[str] = ("application/json",)


def record(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of an object. Other fields are allowed, since newer servers have more."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def maybe(schema: Schema) -> Schema:
    """Return the schema of a request's field for which null means the same as leaving it out."""
    return {**schema, "nullable": True}


TEXT: Final[Schema] = {"type": "string"}
WHOLE: Final[Schema] = {"type": "integer", "format": "int64"}
TRUTH: Final[Schema] = {"type": "boolean"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
URI: Final[Schema] = {"type": "string", "format": "uri"}
POLICY: Final[Schema] = {"type": "string", "pattern": "^(urn:ivcap:policy:.*)?$"}
"""The policy in a request; an empty text means none."""
URN: Final[Schema] = {"type": "string", "pattern": "^urn:"}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}
LINKS: Final[Schema] = {
    "type": "array",
    "items": record({"rel": {"enum": ["self", "first", "next", "describedBy"]}, "type": TEXT, "href": URI}),
}
ID_REPLY: Final = Body(record({"id": URN}))
BYTES: Final = Body({"type": "string", "format": "binary"}, ("*/*",))
"""The bytes of a request."""
CONTENT: Final = Body(media=("*/*",))
"""Stored content, with the media type stored with it."""


def listed(item: Schema, *, at_time: bool = True, optional: Mapping[str, Schema] | None = None) -> Body:
    """Return the reply of a list."""
    moment = {"at-time": TIME} if at_time else {}
    return Body(record({"items": {"type": "array", "items": item}, **moment, "links": LINKS}, optional))
