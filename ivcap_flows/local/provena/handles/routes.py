"""The id-service over HTTP."""

from __future__ import annotations

from typing import Any

from ivcap_flows.local.provena.handles.state import Handles
from ivcap_flows.local.provena.shape import TEXT, WHOLE, Choice, Object, needed
from ivcap_flows.local.provena.web import Api, Desk

__all__ = ["api"]

_ID = {"id": needed(TEXT)}
_VALUE = {"value_type": needed(Choice("DESC", "URL")), "value": needed(TEXT)}
_INDEX = {"index": needed(WHOLE)}


def api(desk: Desk) -> Api:
    """The id-service, which needs the handle roles."""
    site = Api(desk, "id-service-api", "handle")
    site.check_access()
    handles = Handles(desk.store)
    site.post(
        "/handle/mint", "write", lambda call: handles.mint(*_of(call.body, "value_type", "value")), Object(_VALUE)
    )
    site.post(
        "/handle/add_value",
        "write",
        lambda call: handles.add(*_of(call.body, "id", "value_type", "value")),
        Object(_ID | _VALUE),
    )
    site.post(
        "/handle/add_value_by_index",
        "write",
        lambda call: handles.add(*_of(call.body, "id", "value_type", "value", "index")),
        Object(_ID | _VALUE | _INDEX),
    )
    site.get("/handle/get", "read", lambda call: handles.get(call.query["id"]), Object(_ID))
    site.get("/handle/list", "read", lambda call: {"ids": handles.every()})
    site.on(
        "PUT",
        "/handle/modify_by_index",
        "write",
        lambda call: handles.modify(*_of(call.body, "id", "index", "value")),
        body=Object(_ID | _INDEX | {"value": needed(TEXT)}),
    )
    site.post(
        "/handle/remove_by_index",
        "write",
        lambda call: handles.remove(*_of(call.body, "id", "index")),
        Object(_ID | _INDEX),
    )
    return site


def _of(body: dict[str, Any], *names: str) -> list[Any]:
    return [body[name] for name in names]
