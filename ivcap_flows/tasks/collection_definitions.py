"""Define a collection once, and record which items a collection contains."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from ivcap_flows.capture import mark_existing, note
from ivcap_flows.capture.calls import now
from ivcap_flows.durable import planning
from ivcap_flows.errors import NotFoundError, UnavailableError, UnreachableError
from ivcap_flows.handles import Collection, Handle
from ivcap_flows.identity import canonical, digest
from ivcap_flows.provenance import Record, describe, relation
from ivcap_flows.tasks.call import IvcapCall, urn_of
from ivcap_flows.tasks.planned import only_planned, planned

__all__ = ["collection_urn", "defined", "holding", "known"]

_OURS: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:ivcap-flows:collection")


def collection_urn(call: IvcapCall, *of: object) -> str:
    """Return a URN computed from the account and the values `of`, so that defining it again gives the same URN."""
    return f"urn:ivcap:collection:{uuid.uuid5(_OURS, digest(canonical([call.account, *of])))}"


async def defined(
    call: IvcapCall, urn: str, name: str, description: str | None = None, policy: str | None = None
) -> Collection:
    """Return the collection with this URN. Define or redefine it first unless its name and description are these."""
    before = planned(urn, Collection) or await _definition(call, urn)
    if before is not None and (before.name, before.description) == (name, description):
        mark_existing(urn)
        return before
    after = Collection(urn=urn, platform=call.platform, name=name, description=description)
    if only_planned("collection", name, after):
        return after
    try:
        made = await call.client.collections.create(name, urn=urn, description=description, policy=policy)
    except (UnreachableError, UnavailableError):
        # Perhaps only the reply was lost and the collection is defined.
        there = await _definition(call, urn)
        if there is None or (there.name, there.description) != (name, description):
            raise
        return there
    if before is not None:
        mark_existing(urn)
    return made.handle(call.platform)


async def known(call: IvcapCall, collection: Collection | str) -> Collection:
    """Return the handle of a collection that exists or is planned. Raises NotFoundError for any other."""
    urn = urn_of(collection)
    return planned(urn, Collection) or (await call.client.collections.read(urn)).handle(call.platform)


async def _definition(call: IvcapCall, urn: str) -> Collection | None:
    try:
        return (await call.client.collections.read(urn)).handle(call.platform)
    except NotFoundError:
        return None


def holding(
    call: IvcapCall,
    collection: Handle | str,
    items: Iterable[Handle],
    *,
    since: Mapping[str, datetime | None] = MappingProxyType({}),
    until: datetime | None = None,
) -> None:
    """Record that the collection contains the items, each `since` a time, by default now; or contained them `until`."""
    if planning() is not None:
        return
    group = collection if isinstance(collection, Handle) else Collection(urn=collection, platform=call.platform)
    records: list[Record] = describe(group)
    for item in items:
        stated = describe(item)
        if stated[0].kind == "entity" and item.urn != group.urn:
            begin = since.get(item.urn) or (now() if until is None else None)
            membership = relation("hadMember", group.urn, item.urn, begin)
            records += [*stated, membership.model_copy(update={"ended": until})]
    note(*records)
