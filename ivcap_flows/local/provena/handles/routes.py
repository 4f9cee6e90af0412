"""The id-service over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ivcap_flows.local.provena.handles.state import Handles
from ivcap_flows.local.provena.operation import Call
from ivcap_flows.local.provena.shape import ID, TEXT, WHOLE, Choice, Object, needed
from ivcap_flows.local.provena.web import Api, Desk

__all__ = ["api"]

_ID = {"id": needed(ID)}
_VALUE = {"value_type": needed(Choice("DESC", "URL")), "value": needed(TEXT)}


def api(desk: Desk) -> Api:
    """Return the id-service, which needs the handle roles."""
    site = Api(desk, "id-service-api", "handle")
    site.check_access()
    handles = Handles(desk.store)
    handle: dict[str, Any] = {"gives": ("id", "properties"), "fails": "The handle service itself refuses the request."}
    index = _ID | {"index": needed(WHOLE)}

    def doing(work: Callable[..., dict[str, Any]], *names: str) -> Callable[[Call], dict[str, Any]]:
        """Return a handler that calls `work` with these fields of the body."""
        return lambda call: work(*(call.body[name] for name in names))

    site.post("/handle/mint", "write", doing(handles.mint, "value_type", "value"), Object(_VALUE), **handle)
    added = ("id", "value_type", "value")
    site.post("/handle/add_value", "write", doing(handles.add, *added), Object(_ID | _VALUE), **handle)
    add_at = doing(handles.add, *added, "index")
    site.post("/handle/add_value_by_index", "write", add_at, Object(index | _VALUE), **handle)
    site.get("/handle/get", "read", lambda call: handles.get(call.query["id"]), Object(_ID), **handle)
    site.get("/handle/list", "read", lambda call: {"ids": handles.every()}, gives=("ids",))
    modify = doing(handles.modify, "id", "index", "value")
    site.on("PUT", "/handle/modify_by_index", "write", modify, body=Object(index | {"value": needed(TEXT)}), **handle)
    site.post("/handle/remove_by_index", "write", doing(handles.remove, "id", "index"), Object(index), **handle)
    return site
