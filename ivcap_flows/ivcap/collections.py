"""Collections: named sets of artifacts, or of anything with a URN. IVCAP keeps them as aspects, in three conventions.

This module writes the convention of ivcap-client (`collection.py`): a definition, and one aspect for each item, all on
the collection's URN. It also reads the convention of ivcap-cli (one aspect with all artifacts) and that of uploads that
name a collection (`X-Collection`: one aspect on the artifact). Records and items carry the convention that they were
found in.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal
from uuid import uuid4

from ivcap_flows.errors import (
    NotFoundError,
    PlatformError,
    UnavailableError,
    UnreachableError,
)
from ivcap_flows.handles import Collection
from ivcap_flows.http.paging import checked_limit
from ivcap_flows.ivcap.aspects import AspectRecord, Aspects
from ivcap_flows.ivcap.wire import urn_argument
from ivcap_flows.loop import all_of
from ivcap_flows.secrets import logger_of

__all__ = ["Addition", "CollectionItem", "CollectionRecord", "Collections", "Convention"]

_log = logger_of(__name__)

Convention = Literal["ivcap-client", "ivcap-cli", "upload"]
"""The tool that writes a membership in this way: ivcap-client (and this package), ivcap-cli, or an upload's platform.
"""

_DEFINITION: Final = "urn:ivcap:schema:collection.1"
_ITEM: Final = "urn:ivcap:schema:collection-item.1"
_CLI: Final = "urn:ivcap:schema:artifact-collection.1"
_UPLOADS: Final = ("urn:ivcap:schema%artifact-in-collection.1", "urn:common:schema:in_collection.1")
_ASKED_AT_ONCE: Final = 16
"""Maximum number of items in one look-up, to keep its URL short."""


@dataclass(frozen=True)
class CollectionRecord:
    """A collection and its definition. A collection that only ivcap-cli or uploads have written has no name."""

    urn: str
    name: str | None = None
    description: str | None = None
    convention: Convention = "ivcap-client"
    valid_from: datetime | None = None

    def handle(self, platform: str) -> Collection:
        return Collection(urn=self.urn, platform=platform, name=self.name, description=self.description)


@dataclass(frozen=True)
class CollectionItem:
    """A member of a collection. `urn` is the item's URN; `aspect` is the URN of the aspect that makes it a member."""

    urn: str
    collection: str
    convention: Convention
    aspect: str
    valid_from: datetime | None = None


@dataclass(frozen=True)
class Addition:
    """The result of adding items."""

    added: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    """Items that were members before."""
    duplicates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Items that another client added at the same moment, each with all its aspects. `remove` removes all of them."""


class Collections:
    """Collections on `/1/aspects`. Every write reads the state first, so repeating a write changes nothing."""

    def __init__(self, aspects: Aspects) -> None:
        self._aspects = aspects

    async def create(
        self,
        name: str,
        *,
        urn: str | None = None,
        description: str | None = None,
        policy: str | None = None,
    ) -> CollectionRecord:
        """Define a collection, or redefine the collection `urn`; its members stay.

        Without `urn`, each call creates a new collection. Raises NotUniqueError if the collection has several
        definitions.
        """
        urn = urn_argument(urn or f"urn:ivcap:collection:{uuid4()}", "collection", "urn:")
        before = await self._definition(urn)
        if before is None or (before.name, before.description) != (name, description):
            content = {"$schema": _DEFINITION, "$entity": urn, "name": name}
            if description is not None:
                content["description"] = description
            write = self._aspects.add if before is None else self._aspects.update
            await write(urn, _DEFINITION, content, policy)
        return CollectionRecord(urn, name, description, valid_from=before.valid_from if before else None)

    async def read(self, urn: str) -> CollectionRecord:
        """Read a collection. Raises NotFoundError if it has neither a definition nor members."""
        found = await self._definition(urn_argument(urn, "collection", "urn:"))
        if found is not None:
            return found
        async for item in self.items(urn):
            return CollectionRecord(urn, convention=item.convention)
        raise self._unknown(urn)

    async def list(self, *, name: str | None = None, limit: int | None = None) -> AsyncIterator[CollectionRecord]:
        """Yield the collections that have a definition, newest first, then those of ivcap-cli; `limit` is the total.

        `name` is the whole name; with it, only defined collections are yielded. Collections that only uploads name are
        never listed.
        """
        checked_limit(limit)
        seen: set[str] = set()
        path = f"$.name ? (@ == {json.dumps(name)})" if name is not None else None
        async for aspect in self._aspects.where(path, schema=_DEFINITION):
            record = _defined(aspect)
            if record.urn not in seen and name in (None, record.name) and (limit is None or len(seen) < limit):
                seen.add(record.urn)
                yield record
            if len(seen) == limit:
                return
        if name is not None:
            return
        async for aspect in self._aspects.list(schema=_CLI):
            if aspect.entity not in seen and (limit is None or len(seen) < limit):
                seen.add(aspect.entity)
                yield CollectionRecord(aspect.entity, convention="ivcap-cli", valid_from=aspect.valid_from)

    async def items(self, urn: str) -> AsyncIterator[CollectionItem]:
        """Yield each member once: ivcap-client's in the order they were added, then ivcap-cli's, then uploads."""
        urn_argument(urn, "collection", "urn:")
        seen: set[str] = set()
        async for item in self._memberships(urn):
            if item.urn not in seen:
                seen.add(item.urn)
                yield item

    async def add(self, urn: str, items: Iterable[str] | str, *, policy: str | None = None) -> Addition:
        """Add the items that are not members yet, in the given order and in the convention of ivcap-client.

        If a reply is lost, the platform is read to find out whether the item was added. If two clients add the same
        item at the same moment, both succeed, and the client that sees both aspects reports it. Raises the error of the
        first item that could not be added.
        """
        urn_argument(urn, "collection", "urn:")
        wanted = _items(items)
        present = await self._present(urn, wanted)
        added = []
        for item in wanted:
            if item not in present:
                await self._add(urn, item, policy)
                added.append(item)
        again = await self._present(urn, added)
        duplicates = {item: again[item] for item in added if len(again.get(item, ())) > 1}
        if duplicates:
            _log.warning("%s was added to %s by another at the same moment too.", ", ".join(duplicates), urn)
        return Addition(tuple(added), tuple(item for item in wanted if item in present), duplicates)

    async def remove(self, urn: str, items: Iterable[str] | str) -> tuple[str, ...]:
        """Remove all aspects of the items; return the items that were members in the convention of ivcap-client.

        Memberships that ivcap-cli or an upload wrote stay: this package does not retract what other tools wrote.
        """
        urn_argument(urn, "collection", "urn:")
        wanted = _items(items)
        present = await self._present(urn, wanted)
        await all_of(self._retract, [aspect for aspects in present.values() for aspect in aspects])
        return tuple(item for item in wanted if item in present)

    async def retract(self, urn: str) -> int:
        """Retract a collection: its items, then its definition. Return the number of retracted aspects.

        Raises NotFoundError if it does not exist in the convention of ivcap-client. If the call is interrupted, repeat
        it to retract the rest.
        """
        urn_argument(urn, "collection", "urn:")
        gone = 0
        for schema in (_ITEM, _DEFINITION):
            # Read all before retracting the first, since a retraction moves later aspects to earlier pages.
            aspects = [a.urn async for a in self._aspects.list(entity=urn, schema=schema, include_content=False)]
            await all_of(self._retract, aspects)
            gone += len(aspects)
        if not gone:
            raise self._unknown(urn)
        return gone

    async def _definition(self, urn: str) -> CollectionRecord | None:
        async for aspect in self._aspects.list(entity=urn, schema=_DEFINITION, limit=1):
            return _defined(aspect)
        return None

    async def _memberships(self, urn: str) -> AsyncIterator[CollectionItem]:
        async for aspect in self._aspects.list(entity=urn, schema=_ITEM, order_direction="ASC"):
            item = _field(aspect, "item")
            if item:
                yield CollectionItem(item, urn, "ivcap-client", aspect.urn, aspect.valid_from)
        async for aspect in self._aspects.list(entity=urn, schema=_CLI, order_direction="ASC"):
            artifacts = aspect.content.get("artifacts") if isinstance(aspect.content, dict) else None
            for artifact in artifacts if isinstance(artifacts, list) else ():
                if isinstance(artifact, str):
                    yield CollectionItem(artifact, urn, "ivcap-cli", aspect.urn, aspect.valid_from)
        for schema in _UPLOADS:
            path = f"$.collection ? (@ == {json.dumps(urn)})"
            async for aspect in self._aspects.where(path, schema=schema, order_direction="ASC"):
                item = _field(aspect, "artifact") or aspect.entity
                if _field(aspect, "collection") == urn and item != urn:
                    yield CollectionItem(item, urn, "upload", aspect.urn, aspect.valid_from)

    async def _present(self, urn: str, items: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the items that are members in the convention of ivcap-client, with their aspects."""
        found: dict[str, tuple[str, ...]] = {}
        for at in range(0, len(items), _ASKED_AT_ONCE):
            asked = items[at : at + _ASKED_AT_ONCE]
            path = f"$.item ? ({' || '.join(f'@ == {json.dumps(item)}' for item in asked)})"
            async for aspect in self._aspects.where(path, entity=urn, schema=_ITEM, order_direction="ASC"):
                item = _field(aspect, "item")
                if item is not None and item in asked:
                    found[item] = (*found.get(item, ()), aspect.urn)
        return found

    async def _add(self, urn: str, item: str, policy: str | None) -> None:
        content = {"$schema": _ITEM, "$entity": urn, "collection": urn, "item": item}
        try:
            await self._aspects.add(urn, _ITEM, content, policy)
        except (UnreachableError, UnavailableError) as error:
            if error.data.get("sent") is False or not await self._present(urn, [item]):
                raise

    async def _retract(self, aspect: str) -> None:
        try:
            await self._aspects.retract(aspect)
        except NotFoundError:
            _log.debug("%s was retracted by another.", aspect)

    def _unknown(self, urn: str) -> PlatformError:
        return self._aspects.absent(
            f"IVCAP has no collection {urn}: nothing defines it and nothing is in it.", "no collection"
        )


def _defined(aspect: AspectRecord) -> CollectionRecord:
    return CollectionRecord(
        aspect.entity, _field(aspect, "name"), _field(aspect, "description"), valid_from=aspect.valid_from
    )


def _field(aspect: AspectRecord, name: str) -> str | None:
    value = aspect.content.get(name) if isinstance(aspect.content, dict) else None
    return value if isinstance(value, str) and value else None


def _items(items: Iterable[str] | str) -> tuple[str, ...]:
    """Return the URNs, each once, in the given order."""
    given = (items,) if isinstance(items, str) else items
    return tuple(dict.fromkeys(urn_argument(item, "item", "urn:") for item in given))
