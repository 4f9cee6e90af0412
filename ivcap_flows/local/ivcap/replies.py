"""JSON replies and the links in them."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from starlette.responses import Response

__all__ = ["compact", "json_bytes", "link", "media_type", "reply", "without_none"]

_HEADER: Final = re.compile(r"[!-~](?:[ -~]{0,500}[!-~])?")


def json_bytes(value: Any) -> bytes:
    return compact(value).encode()


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json_bytes(body), status, headers, "application/json")


def without_none(record: dict[str, Any]) -> dict[str, Any]:
    """Leave out absent optional fields: the official client fails on a null."""
    return {name: value for name, value in record.items() if value is not None}


def media_type(text: str | None) -> str:
    """Return a media type that a header can contain; any other becomes `application/octet-stream`."""
    return text if text and _HEADER.fullmatch(text) else "application/octet-stream"


def link(rel: str, href: str) -> dict[str, str]:
    return {"rel": rel, "type": "application/json", "href": href}
