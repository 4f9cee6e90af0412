"""Registry items: fetch, list, create and change them (registry-api)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Literal, TypeVar, overload

from ivcap_flows.errors import InputError, NotFoundError
from ivcap_flows.http.session import Session
from ivcap_flows.provena.api import Api, parse
from ivcap_flows.provena.locks import LocksApi
from ivcap_flows.provena.models import Created, Info, Item, NewVersion, Seed
from ivcap_flows.provena.subtypes import CREATABLE, SUBTYPES, VERSIONED, kind_of, require_writable, route
from ivcap_flows.provena.wire import Wire

__all__ = ["CREATABLE", "SUBTYPES", "RegistryApi", "Release", "Sort"]

I = TypeVar("I", bound=Info)  # noqa: E741 - an Info

Sort = Literal["CREATED_TIME", "UPDATED_TIME", "DISPLAY_NAME", "RELEASE_TIMESTAMP", "ACCESS_INFO_URI_BEGINS_WITH"]

# A field that the general routes add to an item for their own index.
_STRAY: Final = "universal_partition_key"


class Release(Wire):
    """The version of Provena that a server runs."""

    commit_id: str | None = None
    commit_url: str | None = None
    tag_name: str | None = None
    release_title: str | None = None
    release_url: str | None = None


class RegistryApi(Api):
    """The registry. A subtype is given as its class, which types the result, or by Provena's name such as `"MODEL"`.

    `locks` protects items from changes. Lists are eventually consistent, contain items that the caller may read, and
    are read page by page; `limit` is their total.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.locks = LocksApi(session)

    @overload
    async def fetch(self, subtype: type[I], id: str) -> Item[I]: ...
    @overload
    async def fetch(self, subtype: str, id: str) -> Item[Info]: ...
    async def fetch(self, subtype: type[Info] | str, id: str) -> Item[Any]:  # noqa: A002 - the platform's own word
        """Read one complete item.

        Raises NotFoundError for an unknown id, a seed, and an item of another subtype, which it names, and
        NotAuthorizedError for an item that the caller may not read.
        """
        kind = kind_of(subtype)
        path = f"{route(kind)}/fetch"
        try:
            body = await self.call("GET", path, repeat="idempotent", params={"id": id}, absent=(200,))
        except NotFoundError as error:
            # The platform gives one answer for what is not there and for what is of another subtype.
            found = await self.fetch_any(id)
            if found.item_subtype == kind.subtype and isinstance(found, Item):
                raise
            what = found.item_subtype if isinstance(found, Item) else f"a seed of {found.item_subtype}, without content"
            raise NotFoundError(f"{id} is {what}, but {kind.subtype} is needed.", **error.data) from None
        return parse(Item[kind], body.get("item"), f"{kind.subtype} {id}")  # type: ignore[valid-type]

    async def fetch_any(self, id: str) -> Item[Info] | Seed:  # noqa: A002
        """Read an item or a seed of any subtype. Raises NotFoundError for an unknown id."""
        path = "/registry/general/fetch"
        body = await self.call("GET", path, repeat="idempotent", params={"id": id}, absent=(200,))
        return _record(body.get("item"), f"item {id}")

    @overload
    async def create(self, subtype: type[I], info: I) -> Created[I]: ...
    @overload
    async def create(self, subtype: str, info: Info) -> Created[Info]: ...
    async def create(self, subtype: type[Info] | str, info: Info) -> Created[Any]:
        """Create an item. Not idempotent: sending the same content twice makes two items.

        Raises InputError before sending. Raises BadRequestError for what the server's look-ups refuse, and if the
        caller is not linked to a person (not needed to create persons and organisations).
        """
        kind = require_writable(subtype, info)
        body = await self.call(
            "POST", f"{route(kind)}/create", repeat="keyed", json=info.body(), creates="created_item"
        )
        created = {"item": body.get("created_item"), "session_id": body.get("register_create_activity_session_id")}
        return parse(Created[kind], created, f"created {kind.subtype}")  # type: ignore[valid-type]

    async def update(self, subtype: type[Info] | str, id: str, info: Info, *, reason: str | None = None) -> str | None:  # noqa: A002
        """Replace the whole content of an item, or give a seed its first; return the following job's session id.

        Unknown fields of a newer server are sent as they were read. A complete item needs a reason, and each update is
        an entry in its history. Raises BadRequestError for an unknown id, NotAuthorizedError (about "item") for a
        locked one.
        """
        kind = require_writable(subtype, info)
        body = await self.call(
            "PUT",
            f"{route(kind)}/update",
            repeat="keyed",
            params={"id": id, "reason": reason},
            json=info.body(unknown=True),
        )
        session = body.get("register_create_activity_session_id")
        return str(session) if session else None

    async def version(self, subtype: type[Info] | str, id: str, *, reason: str) -> NewVersion:  # noqa: A002
        """Create a new version of an item, with the same content and the caller as its owner.

        Raises BadRequestError, with the id of the next version, for an item that already has one. After a lost reply,
        `versioning_info.next_version` of the old item tells whether the call succeeded.
        """
        kind = kind_of(subtype)
        if kind not in VERSIONED:
            raise InputError(f"The registry makes no versions of {kind.subtype}.")
        wanted = {"id": id, "reason": reason}
        body = await self.call("POST", f"{route(kind)}/version", repeat="keyed", json=wanted)
        return parse(NewVersion, body, f"new version of {id}")

    async def about(self) -> Release:
        """Return the version of Provena that the server runs."""
        body = await self.call("GET", "/registry/general/about/version", repeat="idempotent")
        return parse(Release, body, "answer about its version")

    @overload
    def list(
        self,
        subtype: type[I],
        *,
        sort: Sort = ...,
        ascending: bool = ...,
        begins_with: str | None = ...,
        page_size: int = ...,
        limit: int | None = ...,
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
        limit: int | None = ...,
    ) -> AsyncIterator[Item[Info]]: ...
    async def list(
        self,
        subtype: type[Info] | str,
        *,
        sort: Sort = "CREATED_TIME",
        ascending: bool = False,
        begins_with: str | None = None,
        page_size: int = 20,
        limit: int | None = None,
    ) -> AsyncIterator[Item[Any]]:
        """Yield the complete items of a subtype, newest first.

        `begins_with` needs the sort ACCESS_INFO_URI_BEGINS_WITH and finds external datasets by their URI.
        """
        kind = kind_of(subtype)
        by = {"sort_type": sort, "ascending": ascending, "begins_with": begins_with}
        request = {
            "sort_by": {name: value for name, value in by.items() if value is not None},
            "page_size": page_size,
            "filter_by": {"record_type": "COMPLETE_ONLY"},
        }
        async for item in self.listed(f"{route(kind)}/list", request, "items", limit):
            yield parse(Item[kind], item, f"listed {kind.subtype}")  # type: ignore[valid-type]


def _record(value: Any, what: str) -> Item[Info] | Seed:
    """Read an item or a seed, by its `record_type`, of the subtype that it names."""
    if not isinstance(value, dict):
        return parse(Seed, value, what)
    plain = {name: part for name, part in value.items() if name != _STRAY}
    if plain.get("record_type") == "SEED_ITEM":
        return parse(Seed, plain, what)
    kind = SUBTYPES.get(str(plain.get("item_subtype")), Info)
    return parse(Item[kind], plain, what)  # type: ignore[valid-type]
