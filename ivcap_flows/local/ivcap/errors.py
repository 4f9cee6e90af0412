"""Refusals as the IVCAP OpenAPI description (0.48) declares them: status, error class and body."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ivcap_flows.local.ivcap.replies import json_bytes

__all__ = [
    "Problem",
    "already_created",
    "bad_request",
    "conflict",
    "forbidden",
    "full",
    "not_authorized",
    "not_found",
    "not_implemented",
    "not_unique",
    "parameter",
    "too_large",
    "unsupported",
]


class Problem(Exception):  # noqa: N818 - it is raised, but is a reply
    """A refusal on its way to the caller."""

    def __init__(self, status: int, kind: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(body.get("message", kind))
        self.status, self.kind, self.body, self.headers = status, kind, body, headers or {}

    def response(self) -> Response:
        headers = {"goa-error": self.kind, **self.headers}
        return Response(json_bytes(self.body), self.status, headers, "application/json")


def bad_request(message: str) -> Problem:
    return Problem(400, "bad-request", {"message": message})


def not_authorized(message: str = "A valid bearer token is needed.", *, invalid: bool = False) -> Problem:
    challenge = 'Bearer error="invalid_token"' if invalid else "Bearer"
    return Problem(401, "not-authorized", {"message": message}, {"WWW-Authenticate": challenge})


def forbidden(message: str) -> Problem:
    return Problem(403, "invalid-scopes", {"message": message})


def not_found(noun: str, id: str) -> Problem:  # noqa: A002 - the field's name
    return Problem(404, "not-found", {"message": f"There is no such {noun}.", "id": id})


def already_created(noun: str, id: str) -> Problem:  # noqa: A002
    return Problem(409, "already-created", {"message": f"This {noun} exists already.", "id": id})


def conflict(message: str, **headers: str) -> Problem:
    """Return a 409 of the TUS protocol, for bytes that do not continue at the upload's offset."""
    return Problem(
        409, "conflict", {"message": message}, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def too_large(message: str) -> Problem:
    return Problem(413, "too-large", {"message": message})


def unsupported(message: str) -> Problem:
    return Problem(415, "unsupported-content-type", {"message": message})


def parameter(name: str, message: str, value: Any = None) -> Problem:
    body = {"name": name, "message": message}
    return Problem(422, "invalid-parameter", body if value is None else body | {"value": str(value)[:200]})


def not_unique(message: str) -> Problem:
    return Problem(424, "not-unique", {"message": message})


def not_implemented(message: str) -> Problem:
    return Problem(501, "not-implemented", {"message": message})


def full(message: str) -> Problem:
    """Return a 507: the disk of the embedded platform is full."""
    return Problem(507, "not-available", {"message": message})
