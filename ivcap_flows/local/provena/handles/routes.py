"""The id-service over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query

from ivcap_flows.local.provena.handles.state import Handles
from ivcap_flows.local.provena.model import Id, Model, Whole
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import Api, CrashError, Desk, fails

__all__ = ["api"]


class _Handle(Model):
    id: Id


class _Place(_Handle):
    index: Whole


class _Value(Model):
    value_type: Literal["DESC", "URL"]
    value: str


class _NewValue(_Value, _Handle):
    """A value to add at the next index."""


class _ValueAt(_Value, _Place):
    """A value to add at an index."""


class _Change(_Place):
    value: str


def api(desk: Desk) -> Api:
    """Return the id-service, which needs the handle roles."""
    site = Api(desk, "id-service-api", "handle")
    site.check_access()
    handles = Handles(desk.store)
    refused = fails("The handle service itself refuses the request.")

    @site.post("/handle/mint", responses=refused)
    def mint(wanted: _Value, user: User = site.write) -> Any:
        return handles.mint(wanted.value_type, wanted.value)

    @site.post("/handle/add_value", responses=refused)
    def add_value(wanted: _NewValue, user: User = site.write) -> Any:
        return handles.add(wanted.id, wanted.value_type, wanted.value)

    @site.post("/handle/add_value_by_index", responses=refused)
    def add_value_by_index(wanted: _ValueAt, user: User = site.write) -> Any:
        return handles.add(wanted.id, wanted.value_type, wanted.value, wanted.index)

    @site.get("/handle/get", responses=refused)
    def get(handle: Annotated[Id, Query(alias="id")], user: User = site.read) -> Any:
        return handles.get(handle)

    @site.get("/handle/list", responses=fails("Always."))
    def every(user: User = site.read) -> Any:
        # As the real service answers.
        raise CrashError

    @site.put("/handle/modify_by_index", responses=refused)
    def modify_by_index(wanted: _Change, user: User = site.write) -> Any:
        return handles.modify(wanted.id, wanted.index, wanted.value)

    @site.post("/handle/remove_by_index", responses=refused)
    def remove_by_index(wanted: _Place, user: User = site.write) -> Any:
        return handles.remove(wanted.id, wanted.index)

    return site
