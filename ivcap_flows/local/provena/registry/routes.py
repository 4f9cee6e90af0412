"""The registry-api over HTTP: the same routes for each kind of item, and the general ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ivcap_flows.local.provena.operation import Call
from ivcap_flows.local.provena.registry import access, listing
from ivcap_flows.local.provena.registry.kinds import KINDS, Kind
from ivcap_flows.local.provena.registry.state import Registry, UnsuccessfulError
from ivcap_flows.local.provena.shape import FLAG, ID, TEXT, WHOLE, Object, given, maybe, needed
from ivcap_flows.local.provena.store import without_nulls
from ivcap_flows.local.provena.web import Api, CrashError, Desk, invalid, status

__all__ = ["REVERT", "VERSION", "api"]

_ID = Object({"id": needed(ID)})
_REASON = Object({"id": needed(ID), "reason": needed(TEXT)})
REVERT = Object({"id": needed(ID), "history_id": needed(WHOLE), "reason": needed(TEXT)})
VERSION = _REASON
_DONE = {"status": status(True, "Done.")}


def api(desk: Desk, registry: Registry) -> Api:
    """Return the registry-api."""
    site = Api(desk, "registry-api", "entity-registry")
    site.check_access()
    for kind in KINDS.values():
        _reads(site, registry, kind)
        _guards(site, registry, kind)
        if kind.direct:
            _writes(site, registry, kind)
        _proxies(site, kind)
    _general(site, registry)
    return site


def _told(work: Callable[[Call], dict[str, Any]], **nothing: None) -> Callable[[Call], dict[str, Any]]:
    """Return a handler that turns UnsuccessfulError into a 200 with `success` false and these payload fields null."""

    def handler(call: Call) -> dict[str, Any]:
        try:
            return {"status": status(True, "Done.")} | work(call)
        except UnsuccessfulError as error:
            return {"status": status(False, str(error))} | nothing

    return handler


def _reads(site: Api, registry: Registry, kind: Kind) -> None:
    def fetch(call: Call) -> dict[str, Any]:
        entry = registry.fetch(call.user, kind, call.query["id"], seed_allowed=call.query["seed_allowed"])
        return {
            "item": entry.item,
            "roles": registry.roles(call.user, entry),
            "locked": entry.locked,
            "item_is_seed": entry.is_seed,
        }

    def validate(call: Call) -> dict[str, Any]:
        if complaint := kind.broken(call.body, registry.find):
            raise UnsuccessfulError(complaint)
        return {}

    query = Object({"id": needed(ID), "seed_allowed": given(FLAG, False)})
    empty = {"item": None, "roles": None, "locked": None, "item_is_seed": None}
    site.get(f"{kind.prefix}/fetch", "read", _told(fetch, **empty), query, gives=("status", *empty))
    site.post(
        f"{kind.prefix}/list",
        "read",
        lambda call: listing.subtype_page(registry, call.user, call.body, kind.subtype),
        listing.SUBTYPE_LIST,
        gives=("status", "items", "seed_items", "pagination_key"),
        fails=listing.BAD_PAGE,
    )
    site.post(f"{kind.prefix}/validate", "read", _told(validate), kind.info)
    schema = {"title": kind.subtype} | kind.info.schema()
    site.get(
        f"{kind.prefix}/schema", "read", lambda call: _DONE | {"json_schema": schema}, gives=("status", "json_schema")
    )
    site.get(
        f"{kind.prefix}/ui_schema",
        "read",
        lambda call: _DONE | {"ui_schema": {"ui:title": kind.subtype}},
        gives=("status", "ui_schema"),
        missing="The hints contain only a title.",
    )
    if kind.subtype == "DATASET":
        site.post(
            f"{kind.prefix}/user/releases",
            "read",
            lambda call: listing.releases_page(registry, call.user, call.body),
            listing.RELEASES,
            gives=("status", "dataset_items", "pagination_key"),
            refuses=(400, 403),
            fails=f"sort_by is missing. {listing.BAD_PAGE}",
        )


def _guards(site: Api, registry: Registry, kind: Kind) -> None:
    def evaluate(call: Call) -> dict[str, Any]:
        return {"roles": registry.roles(call.user, registry.known(call.query["id"]))}

    def configuration(call: Call) -> dict[str, Any]:
        return access.administered(registry, call.user, kind, call.query["id"]).access

    def configure(call: Call) -> dict[str, Any]:
        access.configure(registry, access.administered(registry, call.user, kind, call.query["id"]), call.body)
        return _DONE

    def lock(on: bool) -> Callable[[Call], dict[str, Any]]:
        def handler(call: Call) -> dict[str, Any]:
            entry = access.administered(registry, call.user, kind, call.body["id"])
            access.lock(registry, call.user, entry, on=on, reason=call.body["reason"])
            return _DONE

        return handler

    def delete(call: Call) -> dict[str, Any]:
        registry.delete(call.query["id"])
        return _DONE

    prefix = kind.prefix
    site.get(f"{prefix}/auth/evaluate", "read", evaluate, _ID, gives=("roles",))
    site.get(f"{prefix}/auth/configuration", "read", configuration, _ID, gives=("owner", "general", "groups"))
    site.on("PUT", f"{prefix}/auth/configuration", "write", configure, query=_ID, body=access.ACCESS_SETTINGS)
    site.get(f"{prefix}/auth/roles", "read", lambda call: {"roles": access.described_roles(kind)}, gives=("roles",))
    site.on("PUT", f"{prefix}/locks/lock", "write", lock(True), body=_REASON)
    site.on("PUT", f"{prefix}/locks/unlock", "write", lock(False), body=_REASON)
    site.get(
        f"{prefix}/locks/locked",
        "read",
        lambda call: {"locked": registry.known(call.query["id"]).locked},
        _ID,
        gives=("locked",),
    )
    site.get(
        f"{prefix}/locks/history",
        "read",
        lambda call: _DONE | {"history": registry.known(call.query["id"]).lock_history},
        _ID,
        gives=("status", "history"),
    )
    site.on("DELETE", f"{prefix}/delete", "admin", delete, query=_ID, hidden=True)


def _writes(site: Api, registry: Registry, kind: Kind) -> None:
    def create(call: Call) -> dict[str, Any]:
        entry, session = registry.create(call.user, kind, call.body)
        return {"created_item": entry.item, "register_create_activity_session_id": session}

    def update(call: Call) -> dict[str, Any]:
        session = registry.update(call.user, kind, call.query["id"], call.body, call.query["reason"])
        return {"register_create_activity_session_id": session}

    def revert(call: Call) -> dict[str, Any]:
        registry.revert(call.user, kind, call.body["id"], call.body["history_id"], call.body["reason"])
        return {}

    def version(call: Call) -> dict[str, Any]:
        entry, session = registry.version(call.user, kind, call.body["id"], call.body["reason"])
        return {"new_version_id": entry.id, "version_job_session_id": session}

    prefix = kind.prefix
    other = "The item is of another type."
    no_session: dict[str, None] = {"register_create_activity_session_id": None}
    nothing = {"created_item": None} | no_session
    site.post(f"{prefix}/create", "write", _told(create, **nothing), kind.info, gives=("status", *nothing))
    site.post(
        f"{prefix}/seed",
        "write",
        lambda call: _DONE | {"seeded_item": registry.seed(call.user, kind).item},
        gives=("status", "seeded_item"),
    )
    target = Object({"id": needed(ID), "reason": maybe(TEXT)})
    site.on(
        "PUT",
        f"{prefix}/update",
        "write",
        _told(update, **no_session),
        query=target,
        body=kind.info,
        gives=("status", *no_session),
        fails=other,
    )
    site.on("PUT", f"{prefix}/revert", "write", _told(revert), body=REVERT, fails=other)
    if kind.versioned:
        gives = ("new_version_id", "version_job_session_id")
        site.post(f"{prefix}/version", "write", version, VERSION, gives=gives, fails=other)


_CONTEXT = "The header X-User-Context cannot be decrypted."
_SERVICES = "There are no other services that could encrypt the user context."


def _proxies(site: Api, kind: Kind) -> None:
    """Declare the routes of Provena's own services. They need a user context that only those services can encrypt."""

    def handler(call: Call) -> dict[str, Any]:
        if "x-user-context" not in call.request.headers:
            raise invalid("The header X-User-Context is missing.")
        raise CrashError

    methods = {"fetch": "GET", "seed": "POST", "create": "POST", "update": "PUT", "revert": "PUT", "version": "POST"}
    for action, method in methods.items():
        site.on(
            method, f"{kind.prefix}/proxy/{action}", "general", handler, hidden=True, fails=_CONTEXT, missing=_SERVICES
        )


def _general(site: Api, registry: Registry) -> None:
    def fetch(call: Call) -> dict[str, Any]:
        entry = registry.get(call.query["id"])
        if entry is None:
            raise UnsuccessfulError(f"There is no item with the id {call.query['id']}.")
        found = registry.fetch(call.user, entry.kind, entry.id, seed_allowed=True)
        return {"item": without_nulls(found.item) | {"universal_partition_key": "OK"}}

    def delete(call: Call) -> dict[str, Any]:
        registry.delete(call.query["id"])
        return _DONE

    version = dict.fromkeys(("commit_id", "commit_url", "tag_name", "release_title", "release_url"), "embedded")
    site.get("/registry/general/fetch", "read", _told(fetch, item=None), _ID, gives=("status", "item"))
    site.post(
        "/registry/general/list",
        "read",
        lambda call: listing.general_page(registry, call.user, call.body),
        listing.GENERAL_LIST,
        gives=("status", "items", "pagination_key"),
        fails=listing.BAD_PAGE,
    )
    site.get("/registry/general/about/version", "read", lambda call: version, gives=tuple(version))
    site.on("DELETE", "/registry/general/delete", "admin", delete, query=_ID, hidden=True)
