"""The OpenAPI description of this server, made of its own table of operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from ivcap_flows.local.ivcap.routing import Operation, Param

__all__ = ["document"]

_SHAPES: Final[Mapping[str, dict[str, Any]]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int64"},
    "boolean": {"type": "boolean"},
    "date-time": {"type": "string", "format": "date-time"},
}
_ERROR: Final = {
    "type": "object",
    "properties": {"message": {"type": "string"}, "id": {"type": "string"}, "name": {"type": "string"}},
    "required": ["message"],
}


def _parameter(param: Param) -> dict[str, Any]:
    shape = dict(_SHAPES[param.kind])
    shape |= {"minimum": param.least} if param.least is not None else {}
    shape |= {"maximum": param.most} if param.most is not None else {}
    shape |= {"default": param.default} if param.default is not None else {}
    told = {"description": param.description} if param.description else {}
    return {"name": param.name, "in": "query", "required": param.required, "schema": shape, **told}


def _response(status: int) -> dict[str, Any]:
    told: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if status >= 400:
        told["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return told


def _operation(operation: Operation) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    statuses = sorted({*operation.answers, *(() if operation.public else (401,))})
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method} {operation.path}",
        "parameters": in_path + [_parameter(param) for param in operation.query],
        "responses": {str(status): _response(status) for status in statuses},
        "security": [] if operation.public else [{"bearer": []}],
    }
    if operation.body:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": {}}}}
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
