"""JSON replies and the links in them."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

__all__ = ["compact", "json_bytes", "link", "reply", "without_none"]


def json_bytes(value: Any) -> bytes:
    return compact(value).encode()


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json_bytes(body), status, headers, "application/json")


def without_none(record: dict[str, Any]) -> dict[str, Any]:
    """Absent optionals are left out: the official client fails on a null."""
    return {name: value for name, value in record.items() if value is not None}


def link(rel: str, href: str) -> dict[str, str]:
    return {"rel": rel, "type": "application/json", "href": href}
