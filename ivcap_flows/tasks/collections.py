"""Tasks for IVCAP collections. Every write reads first, so repeating it changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ivcap_flows.capture import mark_existing
from ivcap_flows.capture.calls import now
from ivcap_flows.errors import NotFoundError
from ivcap_flows.handles import Artifact, Collection, Handle
from ivcap_flows.provenance import reference
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.collection_definitions import collection_urn, defined, holding, known
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned, planned_members

__all__ = [
    "aadd_to_collection",
    "acollection_items",
    "acreate_collection",
    "add_to_collection",
    "aget_collection",
    "alist_collections",
    "aremove_from_collection",
    "aretract_collection",
    "collection_items",
    "create_collection",
    "get_collection",
    "list_collections",
    "remove_from_collection",
    "retract_collection",
]

Items = Sequence[Handle | str] | Handle | str
"""Items of a collection: one or several artifacts, or other things with a URN."""


async def _create_collection(
    name: str,
    *,
    urn: str | None = None,
    description: str | None = None,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Collection:
    """Return the collection of this name; define it if it does not exist. A different description replaces the old one.

    Idempotent: unless you pass `urn`, the URN is computed from the account and the name. `policy` is a URN and is used
    only for a new definition. Raises NotUniqueError if other clients have defined the collection several times.
    """
    call = await IvcapCall.of(credentials)
    return await defined(call, urn_of(urn or collection_urn(call, "name", name)), name, description, policy)


async def _get_collection(urn: str, *, credentials: IvcapCredentialsLike = None) -> Collection:
    """Return the handle of an existing collection, made by this package, ivcap-client, ivcap-cli or an upload.

    Raises NotFoundError if it has neither a definition nor items.
    """
    call = await IvcapCall.of(credentials)
    handle = await known(call, urn)
    mark_existing(handle.urn)
    return handle


async def _list_collections(
    name: str | None = None, *, limit: int | None = None, credentials: IvcapCredentialsLike = None
) -> list[Collection]:
    """List the collections that have a definition, or those with exactly this name, newest first; at most `limit`."""
    call = await IvcapCall.of(credentials)
    records = call.client.collections.list(name=name, limit=limit)
    collections = [record.handle(call.platform) async for record in records]
    for collection in collections:
        mark_existing(collection.urn)
    return collections


async def _collection_items(
    collection: Collection | str, *, credentials: IvcapCredentialsLike = None
) -> list[Artifact | Handle]:
    """Return the items of a collection, each once, in the order in which they were added.

    The handle of an artifact has only its URN; `get_artifact` reads the rest. Items that ivcap-cli added, or uploads
    that name the collection, are included. A collection that does not exist has no items.
    """
    call = await IvcapCall.of(credentials)
    call.check(collection)
    urn = urn_of(collection)
    since = {item.urn: item.valid_from async for item in call.client.collections.items(urn)}
    items = [_handle(call, each) for each in since]
    for item in items:
        mark_existing(item.urn)
    holding(call, collection, items, since=since)
    return items + [each for each in planned_members(urn) if each.urn not in since]


async def _add_to_collection(
    collection: Collection | str,
    items: Items,
    *,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Collection:
    """Add the items that a collection does not contain yet, in the given order. Return the collection.

    Idempotent: the items are read first, and again after a lost reply. If two clients add the same item at the same
    moment, both may write it; it counts once, and a warning is logged. Raises NotFoundError for an unknown collection.
    """
    call, handle, given = await _asked(collection, items, credentials)
    if only_planned("collection items", handle.urn):
        planned_members(handle.urn, *given)
        return handle
    await call.client.collections.add(handle.urn, [item.urn for item in given], policy=policy)
    holding(call, handle, given)
    return handle


async def _remove_from_collection(
    collection: Collection | str, items: Items, *, credentials: IvcapCredentialsLike = None
) -> Collection:
    """Remove the items that are in a collection. Return the collection.

    Idempotent. Items that ivcap-cli or an upload added stay, since this package does not retract what other tools
    wrote. Raises NotFoundError for an unknown collection.
    """
    call, handle, given = await _asked(collection, items, credentials)
    if not only_planned("collection items", handle.urn):
        gone = await call.client.collections.remove(handle.urn, [item.urn for item in given])
        holding(call, handle, [_handle(call, urn) for urn in gone], until=now())
    return handle


async def _retract_collection(collection: Collection | str, *, credentials: IvcapCredentialsLike = None) -> None:
    """Retract a collection: first the aspects that list its items, then its definition. The items themselves stay.

    Idempotent: if the collection does not exist, nothing happens.
    """
    call = await IvcapCall.of(credentials)
    call.check(collection)
    if only_planned("collection retraction", urn_of(collection)):
        return
    try:
        await call.client.collections.retract(urn_of(collection))
    except NotFoundError:
        return


async def _asked(
    collection: Collection | str, items: Items, credentials: IvcapCredentialsLike
) -> tuple[IvcapCall, Collection, list[Handle]]:
    """Return the handles of the collection and of the items; given handles are returned unchanged."""
    call = await IvcapCall.of(credentials)
    # Taken once: they may be those of a generator.
    several = [items] if isinstance(items, Handle | str) else list(items)
    call.check(collection, several)
    given = [item if isinstance(item, Handle) else _handle(call, urn_of(item)) for item in several]
    if isinstance(collection, Collection):
        return call, collection, given
    handle = await known(call, collection)
    mark_existing(handle.urn)
    return call, handle, given


def _handle(call: IvcapCall, urn: str) -> Artifact | Handle:
    kind = Artifact if reference(urn).type == "artifact" else Handle
    return kind(urn=urn, platform=call.platform)


create_collection, acreate_collection = task_pair(_create_collection, "create collection {name}")
get_collection, aget_collection = task_pair(_get_collection, "get {urn}")
list_collections, alist_collections = task_pair(_list_collections)
collection_items, acollection_items = task_pair(_collection_items, "items of {collection}")
add_to_collection, aadd_to_collection = task_pair(_add_to_collection, "add to {collection}", writes=("collection",))
remove_from_collection, aremove_from_collection = task_pair(
    _remove_from_collection,
    "remove from {collection}",
    writes=("collection", "items"),
)
retract_collection, aretract_collection = task_pair(_retract_collection, "retract {collection}", writes=("collection",))
