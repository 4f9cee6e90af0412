"""`/1/services` (IVCAP OpenAPI 0.48): the services of `/1/services2` in the older form, which has a workflow."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from ivcap_flows.local import clock
from ivcap_flows.local.ivcap import errors, schemas
from ivcap_flows.local.ivcap.access import readable
from ivcap_flows.local.ivcap.legacy import shapes
from ivcap_flows.local.ivcap.paging import page_of
from ivcap_flows.local.ivcap.replies import link, reply, without_none
from ivcap_flows.local.ivcap.routing import LIST, Call, Operation, Param
from ivcap_flows.local.ivcap.services.routes import LISTING

__all__ = ["OPERATIONS"]

_KEPT: Final = {"banner": str, "references": list}
"""Fields that only the older form has, and their types; they are stored in the controller."""


def _href(call: Call, row: sqlite3.Row) -> str:
    return f"{call.base}/1/services/{row['id'].rsplit(':', 1)[-1]}"


def _definition(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the equivalent definition in the current form. Raises Problem 422."""
    workflow = body.get("workflow")
    kind = workflow.get("type") if isinstance(workflow, dict) else None
    if not isinstance(workflow, dict) or kind not in ("basic", "argo") or not isinstance(workflow.get(kind), dict):
        raise errors.parameter("workflow", "workflow must be of type basic or argo and have an object of that name.")
    inner = workflow[kind]
    command = inner.get("command")
    if kind == "basic" and not (
        isinstance(inner.get("image"), str)
        and isinstance(command, list)
        and all(isinstance(word, str) for word in command)
    ):
        raise errors.parameter("workflow", "A basic workflow needs an image and a command (a list of texts).")
    if not isinstance(body.get("parameters"), list):
        raise errors.parameter("parameters", "parameters must be a list of parameter definitions.")
    kept = {name: body[name] for name in _KEPT if body.get(name) is not None}
    for name, value in kept.items():
        if not isinstance(value, _KEPT[name]):
            raise errors.parameter(name, f"{name} must be a {'text' if _KEPT[name] is str else 'list'}.")
    schema = schemas.SERVICE_BATCH if kind == "basic" else schemas.SERVICE_ARGO
    return {
        **{name: body.get(name) for name in ("name", "description", "tags", "policy", "parameters")},
        "controller-schema": schema,
        "controller": {**kept, **inner, "$schema": schema},
    }


def _record(call: Call, row: sqlite3.Row) -> dict[str, Any]:
    return without_none(
        {
            "id": row["id"],
            "name": row["name"],
            "description": row["description"],
            "status": "active" if row["valid_to"] is None else "inactive",
            "account": row["account"],
            "parameters": json.loads(row["parameters"]),
            "tags": json.loads(row["tags"]) or None,
            "links": [link("self", _href(call, row))],
        }
    )


def list_all(call: Call) -> Response:
    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        seen, values = readable(call.who)
        return [seen, "(valid_to IS NULL OR valid_to > ?)"], [*values, question["at"]]

    def item(row: sqlite3.Row, question: Mapping[str, Any]) -> dict[str, Any]:
        banner = json.loads(row["controller"]).get("banner")
        return without_none(
            {
                **{name: row[name] for name in ("id", "name", "description", "account", "policy")},
                "banner": banner if isinstance(banner, str) else None,
                "published-at": clock.stamp(row["valid_from"]),
                "href": _href(call, row),
            }
        )

    return reply(page_of(call, LISTING, conditions, item))


def read(call: Call) -> Response:
    return reply(_record(call, call.platform.services.read(call.who, call.id("service"))))


def create(call: Call) -> Response:
    row = call.platform.services.create(call.who, _definition(call.object()))
    return reply(_record(call, row), 201, {"Location": _href(call, row)})


def define(call: Call) -> Response:
    definition, services = _definition(call.object()), call.platform.services
    row = services.define(call.who, call.id("service"), definition, create=call.query["force-create"])
    return reply(_record(call, row))


def withdraw(call: Call) -> Response:
    call.platform.services.withdraw(call.who, call.id("service"))
    return Response(status_code=204)


_NOT_RUN: Final = "A basic workflow runs the command that is registered for the service; one of argo is only stored."

OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/services",
        list_all,
        "List services (older form)",
        LIST,
        answers=(200, 400, 422),
        gives=shapes.SERVICES,
    ),
    Operation(
        "POST",
        "/1/services",
        create,
        "Create a service (older form)",
        body=True,
        answers=(201, 400, 422),
        missing=_NOT_RUN,
        takes=shapes.DEFINITION,
        gives=shapes.SERVICE,
        tells=("Location",),
    ),
    Operation(
        "GET",
        "/1/services/{id}",
        read,
        "Read a service (older form)",
        answers=(200, 404),
        gives=shapes.SERVICE,
    ),
    Operation(
        "PUT",
        "/1/services/{id}",
        define,
        "Replace the definition of a service (older form)",
        (Param("force-create", "boolean", False),),
        body=True,
        answers=(200, 400, 403, 404, 422),
        missing=_NOT_RUN,
        takes=shapes.DEFINITION,
        gives=shapes.SERVICE,
    ),
    Operation("DELETE", "/1/services/{id}", withdraw, "End a service (older form)", answers=(204, 403, 404)),
)
