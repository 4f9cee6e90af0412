"""The OpenAPI description of this server, built from its own table of operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from ivcap_flows.local.ivcap.routing import Operation, Param
from ivcap_flows.local.ivcap.shapes import Body

__all__ = ["document"]

_SHAPES: Final[Mapping[str, dict[str, Any]]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "date-time": {"type": "string", "format": "date-time"},
}
_ERROR: Final = {
    "type": "object",
    "properties": {"message": {"type": "string"}, "id": {"type": "string"}, "name": {"type": "string"}},
    "required": ["message"],
}


def _parameter(param: Param, place: str) -> dict[str, Any]:
    shape = dict(_SHAPES[param.kind])
    shape |= {"minimum": param.least} if param.least is not None else {}
    # A larger value is reduced to this one, so it is not a maximum of the schema.
    most = [f"A larger value is reduced to {param.most}."] if param.most is not None else []
    shape |= {"pattern": param.pattern} if param.pattern else {}
    # The default is the meaning of an omitted parameter; an empty text adds no information.
    shape |= {"default": param.default} if param.default not in (None, "") else {}
    text = " ".join([param.description, *most]).strip()
    told = {"description": text} if text else {}
    return {"name": param.name, "in": place, "required": param.required, "schema": shape, **told}


def _content(body: Body) -> dict[str, Any]:
    return {media: {"schema": body.schema} if body.schema else {} for media in body.media}


def _response(operation: Operation, status: int) -> dict[str, Any]:
    told: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if status >= 400:
        if operation.method != "HEAD":
            told["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        return told
    if operation.tells:
        told["headers"] = {name: {"required": True, "schema": {"type": "string"}} for name in operation.tells}
    gives = operation.gives.get(status) if isinstance(operation.gives, Mapping) else operation.gives
    if gives is not None and status != 204:
        told["content"] = _content(gives)
    return told


def _statuses(operation: Operation) -> list[int]:
    """Return the statuses of the operation itself, and those replied before it is reached."""
    found = {*operation.answers, *(() if operation.public else (401,))}
    found |= {404} if "{" in operation.path else set()
    found |= {422} if operation.query else set()
    found |= {400, 413} if operation.body else set()
    return sorted(found)


def _operation(operation: Operation) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    in_query = [_parameter(param, "query") for param in operation.query]
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method} {operation.path}",
        "parameters": [*in_path, *in_query, *(_parameter(param, "header") for param in operation.headers)],
        "responses": {str(status): _response(operation, status) for status in _statuses(operation)},
        "security": [] if operation.public else [{"bearer": []}],
    }
    if operation.missing:
        described["description"] = f"Difference from the real platform: {operation.missing}"
    if operation.body or operation.takes:
        described["requestBody"] = {"required": operation.body, "content": _content(operation.takes or Body())}
    return described


def document(operations: Iterable[Operation], base: str, version: str) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.0.3",
        "info": {"title": "Embedded IVCAP of ivcap-flows", "version": version},
        "servers": [{"url": base}],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }
