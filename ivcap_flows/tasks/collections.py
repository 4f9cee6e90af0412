"""Tasks for IVCAP collections: every write reads first, so that doing it again changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ivcap_flows.capture import found
from ivcap_flows.errors import NotFoundError
from ivcap_flows.handles import Artifact, Collection, Handle
from ivcap_flows.provenance import reference
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.collection_definitions import collection_urn, defined, holding
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned

__all__ = [
    "aadd_to_collection",
    "aattach_collection",
    "acollection_items",
    "acreate_collection",
    "add_to_collection",
    "alist_collections",
    "aremove_from_collection",
    "aretract_collection",
    "attach_collection",
    "collection_items",
    "create_collection",
    "list_collections",
    "remove_from_collection",
    "retract_collection",
]

Items = Sequence[Handle | str] | Handle | str
"""What a collection holds: artifacts, or whatever has a URN; one or several."""


async def _create_collection(
    name: str,
    *,
    urn: str | None = None,
    description: str | None = None,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Collection:
    """The collection of this name, defined where it is not; another description replaces the one that it had.

    Idempotent: without a `urn` of yours its URN follows from the account and the name. `policy` is a URN and of use to
    a new definition only. Raises NotUniqueError where others have defined it several times.
    """
    call = await IvcapCall.of(credentials)
    named = urn_of(urn or collection_urn(call, "name", name))
    if only_planned("collection", name):
        return Collection(urn=named, platform=call.platform, name=name, description=description)
    return await defined(call, named, name, description, policy)


async def _attach_collection(urn: str, *, credentials: IvcapCredentialsLike = None) -> Collection:
    """The handle of a collection that exists, by its URN: of this package, ivcap-client, ivcap-cli or of uploads.

    Raises NotFoundError when nothing defines it and nothing is in it.
    """
    call = await IvcapCall.of(credentials)
    record = await call.client.collections.read(urn_of(urn))
    found(record.urn)
    return record.handle(call.platform)


async def _list_collections(
    name: str | None = None, *, limit: int | None = None, credentials: IvcapCredentialsLike = None
) -> list[Collection]:
    """All collections that have a definition, or those of just this name, newest first; at most `limit` of them."""
    call = await IvcapCall.of(credentials)
    records = call.client.collections.list(name=name, limit=limit)
    collections = [record.handle(call.platform) async for record in records]
    for collection in collections:
        found(collection.urn)
    return collections


async def _collection_items(
    collection: Collection | str, *, credentials: IvcapCredentialsLike = None
) -> list[Artifact | Handle]:
    """All that a collection holds, each once, in the order of their adding.

    An artifact's handle knows its URN alone; `attach_artifact` reads the rest. Members by ivcap-cli and by uploads that
    name the collection are among them. A collection that is not there holds nothing.
    """
    call = await IvcapCall.of(credentials)
    call.check(collection)
    urn = urn_of(collection)
    items = [_handle(call, item.urn) async for item in call.client.collections.items(urn)]
    for item in items:
        found(item.urn)
    holding(collection if isinstance(collection, Handle) else Collection(urn=urn, platform=call.platform), items)
    return items


async def _add_to_collection(
    collection: Collection | str,
    items: Items,
    *,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Collection:
    """Add what is no member yet to a collection, in the order given, and give the collection back.

    Idempotent: members are asked for first, and a lost reply is answered by asking again. Two who add one thing at the
    same moment may both say so; it counts once, and a warning tells. Raises NotFoundError for an unknown collection.
    """
    call, handle, urns = await _asked(collection, items, credentials)
    if not only_planned("collection items", handle.urn):
        await call.client.collections.add(handle.urn, urns, policy=policy)
        holding(handle, _given(call, items))
    return handle


async def _remove_from_collection(
    collection: Collection | str, items: Items, *, credentials: IvcapCredentialsLike = None
) -> Collection:
    """Remove things from a collection, whether they are in it or not, and give the collection back.

    Idempotent. What ivcap-cli or an upload put there stays: it is theirs. Raises NotFoundError for an unknown
    collection.
    """
    call, handle, urns = await _asked(collection, items, credentials)
    if not only_planned("collection items", handle.urn):
        await call.client.collections.remove(handle.urn, urns)
    return handle


async def _retract_collection(collection: Collection | str, *, credentials: IvcapCredentialsLike = None) -> None:
    """Retract a collection: what says that things are in it, then its definition. The things themselves stay.

    Idempotent: one that is not there is left so.
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
) -> tuple[IvcapCall, Collection, list[str]]:
    call = await IvcapCall.of(credentials)
    given = [items] if isinstance(items, Handle | str) else list(items)
    call.check(collection, given)
    urns = [urn_of(item) for item in given]
    if isinstance(collection, Collection):
        return call, collection, urns
    handle = (await call.client.collections.read(urn_of(collection))).handle(call.platform)
    found(handle.urn)
    return call, handle, urns


def _given(call: IvcapCall, items: Items) -> list[Handle]:
    """The items as handles, those that were given as they are."""
    several = [items] if isinstance(items, Handle | str) else items
    return [item if isinstance(item, Handle) else _handle(call, item) for item in several]


def _handle(call: IvcapCall, urn: str) -> Artifact | Handle:
    kind = Artifact if reference(urn).type == "artifact" else Handle
    return kind(urn=urn, platform=call.platform)


create_collection, acreate_collection = task_pair(
    _create_collection, name="Create collection", run_name="create collection {name}"
)
attach_collection, aattach_collection = task_pair(_attach_collection, name="Attach collection", run_name="attach {urn}")
list_collections, alist_collections = task_pair(_list_collections, name="List collections", run_name="list collections")
collection_items, acollection_items = task_pair(
    _collection_items, name="Collection items", run_name="items of {collection}"
)
add_to_collection, aadd_to_collection = task_pair(
    _add_to_collection, name="Add to collection", run_name="add to {collection}"
)
remove_from_collection, aremove_from_collection = task_pair(
    _remove_from_collection, name="Remove from collection", run_name="remove from {collection}"
)
retract_collection, aretract_collection = task_pair(
    _retract_collection, name="Retract collection", run_name="retract {collection}"
)
