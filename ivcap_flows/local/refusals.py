"""Refusals in the form of the platform at a path, for requests that are refused before they reach either platform.

IVCAP's errors are those of its OpenAPI description (0.48), with their name in `goa-error`; errors that only a gateway
sends have none. Provena's bodies have a `detail`, its gateway's a `message`; Keycloak's are those of RFC 6749.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

__all__ = ["caller_gone", "expired", "refusal"]

Answer = tuple[int, dict[str, str], bytes]

_GOA: Final[Mapping[int, str]] = {
    400: "bad-request",
    401: "not-authorized",
    403: "invalid-scopes",
    404: "not-found",
    409: "already-created",
    415: "unsupported-content-type",
    422: "invalid-parameter",
    424: "not-unique",
    500: "fault",
    501: "not-implemented",
    503: "not-available",
    504: "event-timeout",
    507: "not-available",
}
_BEARER: Final = {"WWW-Authenticate": "Bearer"}
_BODILESS: Final = (204, 205, 304)
_OF_A_GATEWAY: Final = (403, 413, 421, 429, 431, 502, 503, 504)


def refusal(path: str, status: int, message: str) -> Answer:
    """Return status, headers and body of a refusal at this path."""
    if path.startswith("/provena/keycloak"):
        body: Any = {"error": "invalid_request" if status < 500 else "unknown_error", "error_description": message}
        return _answer(status, {}, body)
    if path.startswith("/provena"):
        return _provena(status, message)
    if path.startswith("/_embedded"):
        return _answer(status, {}, {"message": message})
    return _ivcap(path, status, message)


def expired(path: str) -> Answer:
    """As `refusal`, for a token that has expired."""
    if path.startswith("/provena/keycloak"):
        return _answer(400, {}, {"error": "invalid_grant", "error_description": "Token is not active"})
    if path.startswith("/provena"):
        return _answer(401, _BEARER, {"detail": "Could not validate credentials"})
    headers = {"goa-error": _GOA[401], "WWW-Authenticate": 'Bearer error="invalid_token"'}
    return _answer(401, headers, {"message": "The bearer token has expired."})


def _ivcap(path: str, status: int, message: str) -> Answer:
    name = _GOA.get(status)
    headers = {} if name is None else {"goa-error": name}
    body: dict[str, Any] = {"message": message}
    if status == 401:
        headers |= _BEARER
    elif status in (404, 409):
        body["id"] = path.rsplit("/", 1)[-1]
    elif status == 422:
        body["name"] = "fault"
    elif status in (500, 504):
        kind = {"temporary": status == 504, "timeout": status == 504, "fault": status == 500}
        body |= {"name": name, "id": "fault", **kind}
    return _answer(status, headers, body)


def _provena(status: int, message: str) -> Answer:
    if status == 500:
        return status, {"Content-Type": "text/plain; charset=utf-8"}, b"Internal Server Error"
    if status == 422:
        return _answer(status, {}, {"detail": [{"loc": ["body"], "msg": message, "type": "value_error"}]})
    field = "message" if status in _OF_A_GATEWAY else "detail"
    return _answer(status, _BEARER if status == 401 else {}, {field: message})


def _answer(status: int, headers: Mapping[str, str], body: Any) -> Answer:
    data = b"" if status in _BODILESS else json.dumps(body).encode()
    return status, {"Content-Type": "application/json", **headers}, data


async def caller_gone(request: Request, error: Exception) -> Response:
    """Return a reply that only the request log sees (nginx's 499), since the caller has disconnected."""
    return Response(status_code=499)
