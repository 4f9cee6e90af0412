"""Tasks for existing items of Provena's registry: read, list, search, update, lock, make a new version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from ivcap_flows.capture import mark_existing, note
from ivcap_flows.durable import Effect, Found, MatchedBy, Resume, look_since
from ivcap_flows.errors import InputError, NotAuthorizedError, NotFoundError
from ivcap_flows.handles import Dataset, ModelRun, RegistryItem
from ivcap_flows.identity import OncePer
from ivcap_flows.journal import IntentRow
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import DatasetInfo, Info, Item, Seed
from ivcap_flows.provena.registry import Sort
from ivcap_flows.provenance.describe import describe
from ivcap_flows.registration.registry import KEY_FIELD, PACKAGE_FIELDS, moment
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike, urn_of
from ivcap_flows.tasks.ensure_state import ensure_state
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned
from ivcap_flows.tasks.waiting import PlannedError

__all__ = [
    "alist_items",
    "alock_item",
    "aread_item",
    "asearch_registry",
    "aunlock_item",
    "aupdate_item",
    "aversion_item",
    "list_items",
    "lock_item",
    "read_item",
    "search_registry",
    "unlock_item",
    "update_item",
    "version_item",
]

H = TypeVar("H", RegistryItem, ModelRun, RegistryItem | ModelRun)


async def _read_item(item: RegistryItem | ModelRun | str, *, credentials: ProvenaCredentialsLike = None) -> Item[Any]:
    """Read an item of Provena's registry, whatever its subtype. Its content is in `info`.

    Raises NotFoundError for an unknown id, and InputError for a seed, which has no content yet.
    """
    call = await ProvenaCall.of(credentials)
    call.check(item)
    whole = await stated(call, urn_of(item))
    note(*describe(whole.handle(call.platform)))
    return whole


async def _list_items(
    subtype: type[Info] | str,
    *,
    sort: Sort = "CREATED_TIME",
    ascending: bool = False,
    begins_with: str | None = None,
    limit: int | None = None,
    credentials: ProvenaCredentialsLike = None,
) -> list[RegistryItem | ModelRun]:
    """List the handles of all complete items of a subtype that the caller may read, newest first; at most `limit`.

    `subtype` is a class such as `Model` or Provena's name such as `"MODEL"`. `begins_with` requires the sort
    ACCESS_INFO_URI_BEGINS_WITH and finds external datasets by the beginning of their URI.
    """
    call = await ProvenaCall.of(credentials)
    listed = call.client.registry.list(
        subtype, sort=sort, ascending=ascending, begins_with=begins_with, page_size=100, limit=limit
    )
    return [_found(call, item) async for item in listed]


async def _search_registry(
    query: str,
    *,
    subtype: type[Info] | str | None = None,
    limit: int = 10,
    credentials: ProvenaCredentialsLike = None,
) -> list[RegistryItem | ModelRun]:
    """Search Provena's registry by text and return handles, the best match first, at most `limit` (1 to 50).

    Items that the caller may not read are left out.
    """
    call = await ProvenaCall.of(credentials)
    hits = await call.client.search.registry(query, subtype=subtype, limit=limit)
    read = await all_of(lambda hit: _readable(call, hit.id), hits)
    return [_found(call, item) for item in read if item is not None]


async def _update_item(
    item: RegistryItem | str, info: Info, *, reason: str, credentials: ProvenaCredentialsLike = None
) -> RegistryItem:
    """Replace the content of a registry item; `reason` is stored in its history.

    Idempotent: the item is read first, and again after a lost reply; equal content is not sent. The idempotency key in
    the user metadata stays. For datasets, use `update_dataset`. Raises InputError for fields that neither this version
    of the package nor the platform knows, NotFoundError for an item of another subtype, and NotAuthorizedError (about
    "item") for a locked item.
    """
    call = await ProvenaCall.of(credentials)
    call.check(item)
    urn, kind = urn_of(item), type(info)
    if only_planned("registry item update", urn):
        return RegistryItem(urn=urn, platform=call.platform, subtype=info.subtype, display_name=info.display_name)
    registry = call.client.registry
    before = await registry.fetch(kind, urn)
    if strange := sorted((info.model_extra or {}).keys() - (before.info.model_extra or {}).keys()):
        raise InputError(f"{info.subtype} has no such fields: {', '.join(strange)}. Remove them.", faults=strange)
    wanted = info.model_copy(
        update={"user_metadata": with_package_fields(info.user_metadata, before.info.user_metadata)}
    )

    async def holds() -> bool:
        return (await registry.fetch(kind, urn)).info.plain() == wanted.plain()

    if before.info.plain() != wanted.plain():
        await ensure_state(lambda: registry.update(kind, urn, wanted, reason=reason), holds)
    mark_existing(urn)
    return RegistryItem(urn=urn, platform=call.platform, subtype=info.subtype, display_name=info.display_name)


async def _lock_item(
    item: RegistryItem | ModelRun | str, *, reason: str, credentials: ProvenaCredentialsLike = None
) -> RegistryItem | ModelRun:
    """Lock an item, so that nobody can change it; `reason` is stored in the history of its locks.

    Idempotent: the lock is read first, and again after a lost reply. Raises NotAuthorizedError unless the caller is an
    admin of the item.
    """
    return await _locked(item, True, reason, credentials)


async def _unlock_item(
    item: RegistryItem | ModelRun | str, *, reason: str, credentials: ProvenaCredentialsLike = None
) -> RegistryItem | ModelRun:
    """Unlock an item; `reason` is stored in the history of its locks. Otherwise like `lock_item`."""
    return await _locked(item, False, reason, credentials)


async def _locked(
    item: RegistryItem | ModelRun | str, wanted: bool, reason: str, credentials: ProvenaCredentialsLike
) -> RegistryItem | ModelRun:
    call = await ProvenaCall.of(credentials)
    call.check(item)
    urn = urn_of(item)
    if only_planned("registry item lock" if wanted else "registry item unlock", urn):
        return _as_handle(call, item)
    handle = item if not isinstance(item, str) else (await stated(call, urn)).handle(call.platform)
    kind = "MODEL_RUN" if isinstance(handle, ModelRun) else handle.subtype
    locks = call.client.registry.locks
    change = locks.lock if wanted else locks.unlock

    async def holds() -> bool:
        return await locks.locked(kind, urn) is wanted

    if not await holds():
        await ensure_state(lambda: change(kind, urn, reason=reason), holds)
    mark_existing(urn)
    return handle


async def _version_item(
    item: RegistryItem | str, *, reason: str, credentials: ProvenaCredentialsLike = None
) -> RegistryItem:
    """Make a new version of a model, a template or a dataset, once: a second call returns the same version.

    The version has the content of the item; the new version of a dataset has no files yet. Raises BadRequestError,
    which names the next version, if somebody else made it, and InputError for subtypes without versions.
    """
    call = await ProvenaCall.of(credentials)
    call.check(item)
    urn = urn_of(item)
    done = await call.perform(
        VersionEffect(
            call=call, item=item, reason=reason, request={"item": urn}, visibility_delay=call.client.visibility_delay
        )
    )
    return done.value


@dataclass(frozen=True, kw_only=True)
class VersionEffect(Effect[RegistryItem]):
    """Making the next version of an item. An item has at most one next version."""

    noun: str = "item version"
    once_per: OncePer = "account"
    call: ProvenaCall
    item: RegistryItem | str
    reason: str

    async def send(self, intent: IntentRow, progress: Resume) -> RegistryItem:
        client, urn = self.call.client, self.request["item"]
        if isinstance(self.item, RegistryItem):
            subtype = self.item.subtype
        else:
            subtype = (await stated(self.call, urn)).item_subtype
        if subtype == DatasetInfo.subtype:
            new = await client.datastore.version(urn, reason=self.reason)
        else:
            new = await client.registry.version(subtype, urn, reason=self.reason)
        return _in_registry((await stated(self.call, new.id)).handle(self.call.platform))

    async def find(self, intent: IntentRow) -> list[Found[RegistryItem]]:
        versions = (await stated(self.call, self.request["item"])).versioning_info
        if versions is None or versions.next_version is None:
            return []
        new = await stated(self.call, versions.next_version)
        made = moment(new.created_timestamp)
        since = look_since(self.call.client.time, intent)
        if new.owner_username != self.call.account or (since is not None and made is not None and made < since):
            return []
        matched_by: MatchedBy = "guess" if since is None else "content"
        return [Found(_in_registry(new.handle(self.call.platform)), new.id, made, matched_by)]

    def decode(self, outcome: Any) -> RegistryItem:
        return _decoded(outcome)

    def placeholder(self, key: str) -> RegistryItem:
        return _as_handle(self.call, self.item).model_copy(update={"urn": f"urn:ivcap-flows:planned:{key}"})


async def stated(call: ProvenaCall, urn: str) -> Item[Any]:
    """Read the complete item with an id. Raises NotFoundError if it is unknown, and InputError for a seed."""
    PlannedError.refuse([urn])
    item = await call.client.registry.fetch_any(urn)
    if not isinstance(item, Item):
        raise InputError(f"{urn} is a seed of {item.item_subtype}: it has no content yet. Add its content first.")
    return item


def with_package_fields(given: dict[str, str] | None, known: dict[str, str] | None) -> dict[str, str] | None:
    """Return the given user metadata or annotations with the fields that this package wrote into the `known` ones.

    Given fields win, except the idempotency key, by which the item is found again.
    """
    kept = {name: text for name, text in (known or {}).items() if name in PACKAGE_FIELDS}
    return {**kept, **(given or {}), **_only(kept, KEY_FIELD)} if kept else given


async def check_unlocked(call: ProvenaCall, kind: type[Info], urn: str) -> None:
    """Raise NotAuthorizedError if the item is locked; it says who locked it, when and why."""
    locks = call.client.registry.locks
    if not await locks.locked(kind, urn):
        return
    events = [event for event in await locks.history(kind, urn) if event.action_type == "LOCK"]
    # The history is oldest first, so the last event is the lock that holds.
    last = events[-1] if events else None
    since = moment(last.timestamp) if last else None
    held = f" by {last.username or 'somebody'}" if last else ""
    held += f" since {since:%Y-%m-%d %H:%M} UTC" if since else ""
    held += f' for the reason "{last.reason}"' if last and last.reason else ""
    raise NotAuthorizedError(
        f"The item {urn} is locked{held}. Nothing was sent. Unlock it with `unlock_item` if you are an admin of the "
        "item; otherwise ask an admin.",
        platform="Provena",
        method=None,
        path=None,
        status=None,
        detail=last.reason if last else None,
        about="item",
        locked_by=last.username if last else None,
    )


def _only(fields: dict[str, str], name: str) -> dict[str, str]:
    return {name: fields[name]} if name in fields else {}


async def _readable(call: ProvenaCall, urn: str) -> Item[Any] | Seed | None:
    try:
        return await call.client.registry.fetch_any(urn)
    except NotFoundError:
        return None
    except NotAuthorizedError as error:
        if error.about != "item":
            raise
        return None


def _found(call: ProvenaCall, item: Item[Any] | Seed) -> RegistryItem | ModelRun:
    mark_existing(item.id)
    if isinstance(item, Item):
        return item.handle(call.platform)
    return RegistryItem(urn=item.id, platform=call.platform, subtype=item.item_subtype)


def _as_handle(call: ProvenaCall, item: H | str) -> H | RegistryItem:
    """Return the given handle; for an id, a handle with nothing but the id."""
    return RegistryItem(urn=urn_of(item), platform=call.platform, subtype="") if isinstance(item, str) else item


def _in_registry(handle: RegistryItem | ModelRun) -> RegistryItem:
    if not isinstance(handle, RegistryItem):
        raise InputError(f"{handle.urn} is a model run, and model runs have no versions.")
    return handle


def _decoded(value: Any) -> RegistryItem:
    kind: type[RegistryItem] = Dataset if value.get("kind") == "dataset" else RegistryItem
    return kind.model_validate(value)


read_item, aread_item = task_pair(_read_item, "read {item}")
list_items, alist_items = task_pair(_list_items)
search_registry, asearch_registry = task_pair(_search_registry, "search {query}")
update_item, aupdate_item = task_pair(_update_item, "update {item}")
lock_item, alock_item = task_pair(_lock_item, "lock {item}")
unlock_item, aunlock_item = task_pair(_unlock_item, "unlock {item}")
version_item, aversion_item = task_pair(_version_item, "new version of {item}")
