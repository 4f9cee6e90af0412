"""Registry items: fetch, create, list (registry-api)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Literal, TypeVar, overload

from ivcap_flows.errors import InputError, ProtocolError
from ivcap_flows.provena.api import Api, parse
from ivcap_flows.provena.models import (
    Created,
    Creation,
    DatasetInfo,
    DatasetTemplate,
    Info,
    Item,
    Model,
    ModelRun,
    Organisation,
    Person,
    Study,
    Version,
    WorkflowTemplate,
)

__all__ = ["CREATABLE", "SUBTYPES", "RegistryApi", "Sort"]

I = TypeVar("I", bound=Info)  # noqa: E741 - an Info

Sort = Literal["CREATED_TIME", "UPDATED_TIME", "DISPLAY_NAME", "ACCESS_INFO_URI_BEGINS_WITH"]

_ROUTES: Final[dict[type[Info], str]] = {
    Person: "/registry/agent/person",
    Organisation: "/registry/agent/organisation",
    Model: "/registry/entity/model",
    DatasetTemplate: "/registry/entity/dataset_template",
    WorkflowTemplate: "/registry/entity/model_run_workflow",
    DatasetInfo: "/registry/entity/dataset",
    Study: "/registry/activity/study",
    ModelRun: "/registry/activity/model_run",
    Creation: "/registry/activity/create",
    Version: "/registry/activity/version",
}

SUBTYPES: Final[dict[str, type[Info]]] = {info.subtype: info for info in _ROUTES}
"""Provena's subtype names and what such an item states."""

CREATABLE: Final[frozenset[type[Info]]] = frozenset(
    {Person, Organisation, Model, DatasetTemplate, WorkflowTemplate, Study}
)
"""Created here. Datasets are minted by the data store, model runs registered by the prov API, the rest made by jobs."""


class RegistryApi(Api):
    """A subtype is given as its class, which types the result, or by Provena's name such as `"MODEL"`."""

    @overload
    async def fetch(self, subtype: type[I], id: str) -> Item[I]: ...
    @overload
    async def fetch(self, subtype: str, id: str) -> Item[Info]: ...
    async def fetch(self, subtype: type[Info] | str, id: str) -> Item[Any]:  # noqa: A002 - the platform's own word
        """One complete item.

        Raises BadRequestError for an unknown id and for an item of another subtype, NotAuthorizedError for one that
        the caller may not read.
        """
        kind = _kind(subtype)
        body = await self.call("GET", f"{_ROUTES[kind]}/fetch", repeat="idempotent", params={"id": id})
        return parse(Item[kind], body.get("item"), f"{kind.subtype} {id}")  # type: ignore[valid-type]

    async def fetch_raw(self, id: str) -> dict[str, Any]:  # noqa: A002 - the platform's own word
        """One item of any subtype, seeds included, as the registry has it: `item_subtype` and `record_type` tell what.

        Raises BadRequestError for an unknown id, NotAuthorizedError for an item that the caller may not read.
        """
        body = await self.call("GET", "/registry/general/fetch", repeat="idempotent", params={"id": id})
        item = body.get("item")
        if not isinstance(item, dict):
            raise ProtocolError(f"Provena's item {id} is not as its API describes it: no JSON object.", detail="item")
        return item

    @overload
    async def create(self, subtype: type[I], info: I) -> Created[I]: ...
    @overload
    async def create(self, subtype: str, info: Info) -> Created[Info]: ...
    async def create(self, subtype: type[Info] | str, info: Info) -> Created[Any]:
        """Create an item. Not idempotent: the same statements twice make two items.

        Raises InputError before sending, BadRequestError for what the server's look-ups refuse and where the caller
        is not linked to a person (which persons and organisations do not need).
        """
        kind = _kind(subtype)
        if kind not in CREATABLE:
            raise InputError(f"The registry does not create a {kind.subtype}; it is made by another API.")
        if not isinstance(info, kind):
            raise InputError(f"A {kind.subtype} is described by {kind.__name__}, not by {type(info).__name__}.")
        body = await self.call("POST", f"{_ROUTES[kind]}/create", repeat="keyed", json=info.body())
        created = {"item": body.get("created_item"), "session_id": body.get("register_create_activity_session_id")}
        return parse(Created[kind], created, f"created {kind.subtype}")  # type: ignore[valid-type]

    @overload
    def list(
        self,
        subtype: type[I],
        *,
        sort: Sort = ...,
        ascending: bool = ...,
        begins_with: str | None = ...,
        page_size: int = ...,
    ) -> AsyncIterator[Item[I]]: ...
    @overload
    def list(
        self,
        subtype: str,
        *,
        sort: Sort = ...,
        ascending: bool = ...,
        begins_with: str | None = ...,
        page_size: int = ...,
    ) -> AsyncIterator[Item[Info]]: ...
    async def list(
        self,
        subtype: type[Info] | str,
        *,
        sort: Sort = "CREATED_TIME",
        ascending: bool = False,
        begins_with: str | None = None,
        page_size: int = 20,
    ) -> AsyncIterator[Item[Any]]:
        """Complete items that the caller may read, newest first, one page at a time as they are asked for.

        `begins_with` needs the sort ACCESS_INFO_URI_BEGINS_WITH and finds external datasets by their URI. The index is
        eventually consistent. A page may be empty while others follow.
        """
        kind = _kind(subtype)
        order = {"sort_type": sort, "ascending": ascending, "begins_with": begins_with}
        request: dict[str, Any] = {
            "filter_by": {"record_type": "COMPLETE_ONLY"},
            "sort_by": {name: value for name, value in order.items() if value is not None},
            "page_size": page_size,
        }
        while True:
            # A page with an item that the server cannot parse says success=false and still holds the others.
            body = await self.call(
                "POST", f"{_ROUTES[kind]}/list", repeat="idempotent", json=request, status_decides=False
            )
            for item in body.get("items") or ():
                yield parse(Item[kind], item, f"listed {kind.subtype}")  # type: ignore[valid-type]
            if not body.get("pagination_key"):
                return
            request["pagination_key"] = body["pagination_key"]


def _kind(subtype: type[Info] | str) -> type[Info]:
    kind = SUBTYPES.get(subtype) if isinstance(subtype, str) else subtype
    if kind not in _ROUTES:
        raise InputError(f"Provena's registry has no subtype {subtype!r}; it has {', '.join(SUBTYPES)}.")
    return kind
