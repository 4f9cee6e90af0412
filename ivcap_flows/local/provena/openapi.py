"""The OpenAPI text of an API, from its operations."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from ivcap_flows.local.provena.operation import Operation

__all__ = ["document"]

_JSON: Final = "application/json"
_FAULT: Final = {
    "type": "object",
    "properties": {
        "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
        "msg": {"type": "string"},
        "type": {"type": "string"},
    },
    "required": ["loc", "msg", "type"],
}
_SCHEMAS: Final = {
    "Error": {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]},
    "HTTPValidationError": {
        "type": "object",
        "properties": {"detail": {"type": "array", "items": {"$ref": "#/components/schemas/ValidationError"}}},
        "required": ["detail"],
    },
    "ValidationError": _FAULT,
}


def document(title: str, operations: Iterable[Operation], root: str) -> dict[str, Any]:
    """Return what FastAPI serves at `/openapi.json` of an API mounted at `root`, without the hidden operations."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        if not operation.hidden:
            paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.0.2",
        "info": {"title": title, "version": "1"},
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    fields = operation.query.fields.items() if operation.query else ()
    described: dict[str, Any] = {
        "summary": operation.path.strip("/").replace("/", " ").replace("_", " ").replace("-", " ").title() or "Health",
        "operationId": f"{operation.method} {operation.path}",
        "parameters": [
            {"name": name, "in": "query", "required": known.required, "schema": known.shape.schema()}
            for name, known in fields
        ],
        "responses": {str(status): _reply(operation, status) for status in _statuses(operation)},
        "security": [] if operation.level == "public" else [{"bearer": []}],
    }
    told = [
        f"Answers 500: {operation.fails}" if operation.fails else "",
        f"Difference from the real platform: {operation.missing}" if operation.missing else "",
    ]
    if any(told):
        described["description"] = " ".join(filter(None, told))
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {_JSON: {"schema": operation.body.schema()}}}
    if operation.upload is not None:
        file = {operation.upload: {"type": "string", "format": "binary"}}
        form = {"type": "object", "properties": file, "required": [operation.upload]}
        described["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": form}}}
    return described


def _statuses(operation: Operation) -> list[int]:
    found = {200}
    if operation.level != "public":
        found |= {401, *operation.refuses}
    if operation.query or operation.body or operation.upload:
        found |= {422}
    if operation.fails:
        found |= {500}
    return sorted(found)


def _reply(operation: Operation, status: int) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if status == HTTPStatus.OK:
        gives = operation.gives
        schema = {"type": "string"} if isinstance(gives, str) else _holding(gives)
        content: dict[str, Any] = {gives if isinstance(gives, str) else _JSON: {"schema": schema}}
    elif status == HTTPStatus.UNPROCESSABLE_ENTITY:
        content = {_JSON: {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}}
    else:
        content = {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            content["text/plain"] = {"schema": {"type": "string"}}
        elif status == HTTPStatus.UNAUTHORIZED:
            described["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return described | {"content": content}


def _holding(names: tuple[str, ...]) -> dict[str, Any]:
    """Return the schema of an object with these names.

    Without names it is any value, since some routes return a list or null.
    """
    if not names:
        return {}
    known = {"status": {"type": "object", "required": ["success", "details"]}}
    properties = {name: known[name] for name in names if name in known}
    return {"type": "object", "properties": properties, "required": list(names)}
