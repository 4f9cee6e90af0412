"""Registry items: fetch, list, create and change them (registry-api)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Literal, TypeVar, overload

from ivcap_flows.errors import InputError, InvalidParameterError, NotFoundError
from ivcap_flows.http.session import Session
from ivcap_flows.provena.api import Api, parse, refusal_of
from ivcap_flows.provena.models import Created, DatasetInfo, Fetched, Info, Item, NewVersion, Seed
from ivcap_flows.provena.registry_access import AccessApi, LocksApi
from ivcap_flows.provena.subtypes import CREATABLE, SUBTYPES, VERSIONED, kind_of, require_writable, route
from ivcap_flows.provena.wire import Wire

__all__ = ["CREATABLE", "SUBTYPES", "RegistryApi", "Release", "Sort", "order"]

I = TypeVar("I", bound=Info)  # noqa: E741 - an Info

Sort = Literal["CREATED_TIME", "UPDATED_TIME", "DISPLAY_NAME", "RELEASE_TIMESTAMP", "ACCESS_INFO_URI_BEGINS_WITH"]

ReleaseStatus = Literal["NOT_RELEASED", "PENDING", "RELEASED"]

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

    `access` reads and sets the roles on an item; `locks` protects items from changes. Lists are eventually consistent,
    contain items that the caller may read, and are read page by page; `limit` is their total.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.access = AccessApi(session)
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
        body = await self._fetched(kind, {"id": id})
        return parse(Item[kind], body.get("item"), f"{kind.subtype} {id}")  # type: ignore[valid-type]

    @overload
    async def fetch_with_access(self, subtype: type[I], id: str) -> Fetched[I]: ...
    @overload
    async def fetch_with_access(self, subtype: str, id: str) -> Fetched[Info]: ...
    async def fetch_with_access(self, subtype: type[Info] | str, id: str) -> Fetched[Any]:  # noqa: A002
        """Read an item or a seed, the caller's roles on it, and whether it is locked.

        Raises the same errors as `fetch`, but BadRequestError for a seed of another subtype.
        """
        kind = kind_of(subtype)
        body = await self._fetched(kind, {"id": id, "seed_allowed": True})
        item = _record(body.get("item"), kind, f"{kind.subtype} {id}")
        found = {"item": item, "roles": body.get("roles") or [], "locked": bool(body.get("locked"))}
        return parse(Fetched[kind], found, f"{kind.subtype} {id}")  # type: ignore[valid-type]

    async def _fetched(self, kind: type[Info], asked: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self.call("GET", f"{route(kind)}/fetch", repeat="idempotent", params=asked, absent=(200,))
        except NotFoundError as error:
            # The platform gives one answer for what is not there and for what is of another subtype.
            found = await self.fetch_any(asked["id"])
            if found.item_subtype == kind.subtype and isinstance(found, Item):
                raise
            what = found.item_subtype if isinstance(found, Item) else f"a seed of {found.item_subtype}, without content"
            raise NotFoundError(f"{asked['id']} is {what}, but {kind.subtype} is needed.", **error.data) from None

    async def fetch_any(self, id: str) -> Item[Info] | Seed:  # noqa: A002
        """Read an item or a seed of any subtype. Raises NotFoundError for an unknown id."""
        path = "/registry/general/fetch"
        body = await self.call("GET", path, repeat="idempotent", params={"id": id}, absent=(200,))
        return _record(body.get("item"), None, f"item {id}")

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

    async def seed(self, subtype: type[Info] | str) -> Seed:
        """Create an id without content; `update` gives it content. Seeds of one caller cannot be told apart."""
        kind = require_writable(subtype)
        body = await self.call("POST", f"{route(kind)}/seed", repeat="unsafe")
        return parse(Seed, body.get("seeded_item"), f"seeded {kind.subtype}")

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

    async def revert(self, subtype: type[Info] | str, id: str, history_id: int, *, reason: str) -> None:  # noqa: A002
        """Restore the content of an item from an entry of its history. Raises the same errors as `update`."""
        kind = require_writable(subtype)
        wanted = {"id": id, "history_id": history_id, "reason": reason}
        await self.call("PUT", f"{route(kind)}/revert", repeat="keyed", json=wanted)

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

    async def validate(self, subtype: type[Info] | str, info: Info) -> str | None:
        """Return the registry's objection to an item with this content, in its own words, or None."""
        kind = kind_of(subtype)
        path = f"{route(kind)}/validate"
        try:
            body = await self.call("POST", path, repeat="idempotent", json=info.plain(), status_decides=False)
        except InvalidParameterError as error:
            return str(error.detail)
        return refusal_of(body)

    async def schema(self, subtype: type[Info] | str) -> dict[str, Any]:
        """Return the platform's JSON Schema for the content of an item of the subtype."""
        kind = kind_of(subtype)
        body = await self.call("GET", f"{route(kind)}/schema", repeat="idempotent")
        return dict(body.get("json_schema") or {})

    async def ui_schema(self, subtype: type[Info] | str) -> dict[str, Any]:
        """Return the layout of a subtype's form in the web interface (react-jsonschema-form)."""
        kind = kind_of(subtype)
        body = await self.call("GET", f"{route(kind)}/ui_schema", repeat="idempotent")
        return dict(body.get("ui_schema") or {})

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
        request = order(sort, ascending, begins_with, page_size) | {"filter_by": {"record_type": "COMPLETE_ONLY"}}
        async for item in self.listed(f"{route(kind)}/list", request, "items", limit):
            yield parse(Item[kind], item, f"listed {kind.subtype}")  # type: ignore[valid-type]

    async def seeds(
        self, subtype: type[Info] | str, *, page_size: int = 20, limit: int | None = None
    ) -> AsyncIterator[Seed]:
        """Yield the seeds of a subtype, newest first."""
        kind = kind_of(subtype)
        request = order("CREATED_TIME", False, None, page_size) | {"filter_by": {"record_type": "SEED_ONLY"}}
        async for item in self.listed(f"{route(kind)}/list", request, "seed_items", limit):
            yield parse(Seed, item, f"listed seed of {kind.subtype}")

    async def list_any(
        self,
        *,
        subtype: type[Info] | str | None = None,
        reviewer: str | None = None,
        release_status: ReleaseStatus | None = None,
        seeds: bool = False,
        sort: Sort | None = None,
        ascending: bool = False,
        begins_with: str | None = None,
        page_size: int = 20,
        limit: int | None = None,
    ) -> AsyncIterator[Item[Info] | Seed]:
        """Yield the complete items of all subtypes, newest first; with `seeds`, the seeds too.

        `reviewer` is a person and selects the datasets that this person was asked to review; the server sorts these
        only by the default here, RELEASE_TIMESTAMP. With a subtype, `reviewer` has no effect. A subtype and a release
        status exclude each other (InvalidParameterError).
        """
        if sort is None:
            sort = "CREATED_TIME" if reviewer is None or subtype is not None else "RELEASE_TIMESTAMP"
        chosen = {
            "record_type": "ALL" if seeds else "COMPLETE_ONLY",
            "item_subtype": None if subtype is None else kind_of(subtype).subtype,
            "release_reviewer": reviewer,
            "release_status": release_status,
        }
        request = order(sort, ascending, begins_with, page_size)
        request["filter_by"] = {name: value for name, value in chosen.items() if value is not None}
        async for item in self.listed("/registry/general/list", request, "items", limit):
            yield _record(item, None, "listed item")

    async def releases(
        self,
        reviewer: str,
        *,
        release_status: ReleaseStatus | None = None,
        sort: Sort = "RELEASE_TIMESTAMP",
        ascending: bool = False,
        page_size: int = 20,
        limit: int | None = None,
    ) -> AsyncIterator[Item[DatasetInfo]]:
        """Yield the datasets that wait for, or had, the approval of the caller's own person, the latest request first.

        Raises ForbiddenError for another user's person, BadRequestError for a caller without a person.
        """
        chosen = {"release_reviewer": reviewer, "release_status": release_status}
        # Always send a sort: without one the server uses an index that does not exist, and replies 500.
        request = order(sort, ascending, None, page_size)
        request["filter_by"] = {name: value for name, value in chosen.items() if value is not None}
        path = f"{route(DatasetInfo)}/user/releases"
        async for item in self.listed(path, request, "dataset_items", limit):
            yield parse(Item[DatasetInfo], item, "dataset for review")


def order(sort: Sort, ascending: bool, begins_with: str | None, page_size: int) -> dict[str, Any]:
    """Return the fields with which every request for a list of items begins."""
    by = {"sort_type": sort, "ascending": ascending, "begins_with": begins_with}
    return {"sort_by": {name: value for name, value in by.items() if value is not None}, "page_size": page_size}


def _record(value: Any, kind: type[Info] | None, what: str) -> Item[Any] | Seed:
    """Read an item or a seed, by its `record_type`; of the subtype that it names if no `kind` is given."""
    if not isinstance(value, dict):
        return parse(Seed, value, what)
    plain = {name: part for name, part in value.items() if name != _STRAY}
    if plain.get("record_type") == "SEED_ITEM":
        return parse(Seed, plain, what)
    kind = kind or SUBTYPES.get(str(plain.get("item_subtype")), Info)
    return parse(Item[kind], plain, what)  # type: ignore[valid-type]
