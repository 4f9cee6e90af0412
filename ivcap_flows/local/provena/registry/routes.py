"""The registry-api over HTTP: the same routes for each kind of item, and the general ones."""

# The annotations are evaluated here, since the model of a body is the kind's.

from typing import Annotated, Any

from fastapi import Query

from ivcap_flows.local.provena.model import Id, Model, Whole
from ivcap_flows.local.provena.registry import access, listing
from ivcap_flows.local.provena.registry.kinds import KINDS, Kind
from ivcap_flows.local.provena.registry.state import Registry, UnsuccessfulError
from ivcap_flows.local.provena.store import without_nulls
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import Api, Desk, fails, status

__all__ = ["Revert", "Version", "api"]

_ItemId = Annotated[Id, Query(alias="id")]
_DONE = {"status": status(True, "Done.")}
_OTHER_TYPE = fails("The item is of another type.")


class _Change(Model):
    id: Id
    reason: str


class Version(_Change):
    """The request for a new version of an item."""


class Revert(Model):
    """The request to restore an earlier content of an item."""

    id: Id
    history_id: Whole
    reason: str


def api(desk: Desk, registry: Registry) -> Api:
    """Return the registry-api."""
    site = Api(desk, "registry-api", "entity-registry")
    site.check_access()
    for kind in KINDS.values():
        _reads(site, registry, kind)
        _access(site, registry, kind)
        _locks(site, registry, kind)
        if kind.direct:
            _writes(site, registry, kind)
        if kind.versioned and kind.direct:
            _versions(site, registry, kind)
    _general(site, registry)
    return site


def _unsuccessful(error: UnsuccessfulError, *nothing: str) -> dict[str, Any]:
    """Return the body of a 200 without success, in which these fields are null."""
    return {"status": status(False, str(error))} | dict.fromkeys(nothing)


def _reads(site: Api, registry: Registry, kind: Kind) -> None:
    @site.get(f"{kind.prefix}/fetch")
    def fetch(item: _ItemId, seed_allowed: bool = False, user: User = site.read) -> Any:
        try:
            entry = registry.fetch(user, kind, item, seed_allowed=seed_allowed)
        except UnsuccessfulError as error:
            return _unsuccessful(error, "item", "roles", "locked", "item_is_seed")
        return _DONE | {
            "item": entry.item,
            "roles": registry.roles(user, entry),
            "locked": entry.locked,
            "item_is_seed": entry.is_seed,
        }

    @site.post(f"{kind.prefix}/list", responses=fails(listing.BAD_PAGE))
    def items(wanted: listing.SubtypePage, user: User = site.read) -> Any:
        record_type = wanted.filter_by.record_type if wanted.filter_by else "COMPLETE_ONLY"
        return listing.subtype_page(registry, user, wanted, kind.subtype, record_type)

    @site.post(f"{kind.prefix}/validate")
    def validate(info: kind.info, user: User = site.read) -> Any:  # type: ignore[name-defined]
        complaint = kind.broken(info.model_dump(), registry.find)
        return {"status": status(complaint is None, complaint or "Done.")}

    @site.get(f"{kind.prefix}/schema")
    def schema(user: User = site.read) -> Any:
        return _DONE | {"json_schema": kind.info.model_json_schema() | {"title": kind.subtype}}

    @site.get(f"{kind.prefix}/ui_schema", description="The hints contain only a title.")
    def ui_schema(user: User = site.read) -> Any:
        return _DONE | {"ui_schema": {"ui:title": kind.subtype}}


def _access(site: Api, registry: Registry, kind: Kind) -> None:
    @site.get(f"{kind.prefix}/auth/evaluate")
    def evaluate(item: _ItemId, user: User = site.read) -> Any:
        return {"roles": registry.roles(user, registry.known(item))}

    @site.get(f"{kind.prefix}/auth/configuration")
    def configuration(item: _ItemId, user: User = site.read) -> Any:
        return access.administered(registry, user, kind, item).access

    @site.put(f"{kind.prefix}/auth/configuration")
    def configure(item: _ItemId, settings: access.AccessSettings, user: User = site.write) -> Any:
        access.configure(registry, access.administered(registry, user, kind, item), settings)
        return _DONE

    @site.get(f"{kind.prefix}/auth/roles")
    def roles(user: User = site.read) -> Any:
        return {"roles": access.described_roles(kind)}


def _locks(site: Api, registry: Registry, kind: Kind) -> None:
    @site.put(f"{kind.prefix}/locks/lock")
    def lock(wanted: _Change, user: User = site.write) -> Any:
        entry = access.administered(registry, user, kind, wanted.id)
        access.lock(registry, user, entry, on=True, reason=wanted.reason)
        return _DONE

    @site.put(f"{kind.prefix}/locks/unlock")
    def unlock(wanted: _Change, user: User = site.write) -> Any:
        entry = access.administered(registry, user, kind, wanted.id)
        access.lock(registry, user, entry, on=False, reason=wanted.reason)
        return _DONE

    @site.get(f"{kind.prefix}/locks/locked")
    def locked(item: _ItemId, user: User = site.read) -> Any:
        return {"locked": registry.known(item).locked}

    @site.get(f"{kind.prefix}/locks/history")
    def history(item: _ItemId, user: User = site.read) -> Any:
        return _DONE | {"history": registry.known(item).lock_history}

    @site.delete(f"{kind.prefix}/delete")
    def delete(item: _ItemId, user: User = site.admin) -> Any:
        registry.delete(item)
        return _DONE


def _writes(site: Api, registry: Registry, kind: Kind) -> None:
    session_of = "register_create_activity_session_id"

    @site.post(f"{kind.prefix}/create")
    def create(info: kind.info, user: User = site.write) -> Any:  # type: ignore[name-defined]
        try:
            entry, session = registry.create(user, kind, info.model_dump())
        except UnsuccessfulError as error:
            return _unsuccessful(error, "created_item", session_of)
        return _DONE | {"created_item": entry.item, session_of: session}

    @site.post(f"{kind.prefix}/seed")
    def seed(user: User = site.write) -> Any:
        return _DONE | {"seeded_item": registry.seed(user, kind).item}

    @site.put(f"{kind.prefix}/update", responses=_OTHER_TYPE)
    def update(
        item: _ItemId,
        info: kind.info,  # type: ignore[name-defined]
        reason: str | None = None,
        user: User = site.write,
    ) -> Any:
        try:
            session = registry.update(user, kind, item, info.model_dump(), reason)
        except UnsuccessfulError as error:
            return _unsuccessful(error, session_of)
        return _DONE | {session_of: session}

    @site.put(f"{kind.prefix}/revert", responses=_OTHER_TYPE)
    def revert(wanted: Revert, user: User = site.write) -> Any:
        try:
            registry.revert(user, kind, wanted.id, wanted.history_id, wanted.reason)
        except UnsuccessfulError as error:
            return _unsuccessful(error)
        return _DONE


def _versions(site: Api, registry: Registry, kind: Kind) -> None:
    @site.post(f"{kind.prefix}/version", responses=_OTHER_TYPE)
    def version(wanted: Version, user: User = site.write) -> Any:
        entry, session = registry.version(user, kind, wanted.id, wanted.reason)
        return {"new_version_id": entry.id, "version_job_session_id": session}


def _general(site: Api, registry: Registry) -> None:
    @site.get("/registry/general/fetch")
    def fetch(item: _ItemId, user: User = site.read) -> Any:
        entry = registry.get(item)
        if entry is None:
            return {"status": status(False, f"There is no item with the id {item}."), "item": None}
        found = registry.fetch(user, entry.kind, item, seed_allowed=True)
        return _DONE | {"item": without_nulls(found.item) | {"universal_partition_key": "OK"}}

    @site.post("/registry/general/list", responses=fails(listing.BAD_GENERAL_PAGE))
    def items(wanted: listing.GeneralPage, user: User = site.read) -> Any:
        return listing.general_page(registry, user, wanted)

    @site.get("/registry/general/about/version")
    def about(user: User = site.read) -> Any:
        return dict.fromkeys(("commit_id", "commit_url", "tag_name", "release_title", "release_url"), "embedded")
