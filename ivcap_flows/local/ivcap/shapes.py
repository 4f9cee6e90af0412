"""JSON schemas that the operations' descriptions share. Each noun keeps its own beside its routes."""

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
    """What a request or a reply holds: a JSON schema (empty: anything) and the media types that it comes in."""

    schema: Schema = field(default_factory=dict)
    media: Sequence[str] = ("application/json",)


def record(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object. Fields beyond these are allowed, as newer servers have them."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def maybe(schema: Schema) -> Schema:
    """A field of a request for which null says the same as leaving it out."""
    return {**schema, "nullable": True}


TEXT: Final[Schema] = {"type": "string"}
WHOLE: Final[Schema] = {"type": "integer", "format": "int64"}
TRUTH: Final[Schema] = {"type": "boolean"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
URI: Final[Schema] = {"type": "string", "format": "uri"}
POLICY: Final[Schema] = {"type": "string", "pattern": "^(urn:ivcap:policy:.*)?$"}
"""The policy that a request names; an empty one is none."""
URN: Final[Schema] = {"type": "string", "pattern": "^urn:"}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}
LINKS: Final[Schema] = {
    "type": "array",
    "items": record({"rel": {"enum": ["self", "first", "next", "describedBy"]}, "type": TEXT, "href": URI}),
}
ID_REPLY: Final = Body(record({"id": URN}))
BYTES: Final = Body({"type": "string", "format": "binary"}, ("*/*",))
"""Bytes that a request brings."""
CONTENT: Final = Body(media=("*/*",))
"""What was stored, as the media type says that was stored with it."""


def listed(item: Schema, *, at_time: bool = True, optional: Mapping[str, Schema] | None = None) -> Body:
    """The reply of a list."""
    moment = {"at-time": TIME} if at_time else {}
    return Body(record({"items": {"type": "array", "items": item}, **moment, "links": LINKS}, optional))
