"""Read what other machines left on the platforms: records of runs as IVCAP aspects, and Provena's graph."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ivcap_flows.errors import BadRequestError, ForbiddenError, InvalidParameterError, IvcapFlowsError, NotFoundError
from ivcap_flows.identity import CONTENT_SCHEMA
from ivcap_flows.loop import all_of
from ivcap_flows.provenance import Direction, Record, activity, agent, describe, entity, faults, relation
from ivcap_flows.provenance.reading import records_of
from ivcap_flows.reading.names import COMMIT, SHA256
from ivcap_flows.reading.parts import merged
from ivcap_flows.sinks.ivcap import LINK_SCHEMA, RUN_SCHEMA, parts_by_run

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.provena.client import ProvenaClient
    from ivcap_flows.provena.lineage import Node

__all__ = ["ASKED", "RemoteRecords"]

C = TypeVar("C")
T = TypeVar("T")

ASKED: Final = 200
"""The maximum number of things that the platforms are asked about for one trace."""
TIMEOUT: Final = 30.0
"""Seconds that one platform may take to answer about one thing."""
_ABSENT: Final = (NotFoundError, ForbiddenError, BadRequestError, InvalidParameterError)
_HANDLE: Final = re.compile(r"[0-9.]+/[0-9A-Za-z._-]+")
_TYPES: Final = {
    "DATASET": "dataset",
    "MODEL_RUN": "model-run",
    "STUDY": "study",
    "MODEL_RUN_WORKFLOW_TEMPLATE": "workflow-template",
    "PERSON": "user",
    "ORGANISATION": "organisation",
}
_RUN: Final = "urn:ivcap-flows:run:"


@dataclass
class RemoteRecords:
    """Asks the platforms about things that other machines recorded. Clients are made when they are first needed.

    A platform that cannot be asked is named in `troubles`, and is not asked again.
    """

    ivcap: Callable[[], Awaitable[IvcapClient]] | None = None
    provena: Callable[[], Awaitable[ProvenaClient]] | None = None
    troubles: list[str] = field(default_factory=list)
    _off: set[str] = field(default_factory=set)
    _read: set[str] = field(default_factory=set)
    _known: set[tuple[str, str]] = field(default_factory=set)

    async def starts(self, name: str) -> list[str]:
        """Return the ids of what the platforms have for a name that is unknown here.

        That is the name itself, or for a sha256 or a commit the things that have it.
        """
        content = SHA256.fullmatch(name)
        if content is not None:
            return await self._matching(CONTENT_SCHEMA, f'$.sha256 ? (@ == "{content.group(1).lower()}")')
        if COMMIT.fullmatch(name):
            begin = json.dumps(name.lower())
            return await self._matching(RUN_SCHEMA, f'$.prov.entity.*."about:commit" ? (@ starts with {begin})')
        return [name]

    def leave_out(self, runs: Iterable[str], journal: str) -> None:
        """Do not read what this journal has delivered about these runs, since more is known here."""
        self._known.update((run, journal) for run in runs)

    async def about(self, ids: Iterable[str], direction: Direction) -> list[Record]:
        """Return what the platforms state about these things, and about the runs that used or made them."""
        found = await all_of(lambda id_: self._about(id_, direction), ids)
        return [record for records in found for record in records]

    async def _about(self, id_: str, direction: Direction) -> list[Record]:
        nothing: list[Record] = []
        if id_.startswith(_RUN):
            return await self._of_ivcap(lambda client: self._run(client, id_), nothing)
        if id_.startswith("urn:ivcap:artifact:"):
            return await self._of_ivcap(lambda client: self._artifact(client, id_), nothing)
        if id_.startswith(("urn:ivcap:order:", "urn:ivcap:job:")):
            return await self._of_ivcap(lambda client: self._work(client, id_), nothing)
        if _HANDLE.fullmatch(id_):
            return await self._ask("Provena", self.provena, lambda client: self._item(client, id_, direction), nothing)
        return nothing

    async def _of_ivcap(self, ask: Callable[[IvcapClient], Awaitable[T]], otherwise: T) -> T:
        return await self._ask("IVCAP", self.ivcap, ask, otherwise)

    async def _ask(
        self,
        name: str,
        client: Callable[[], Awaitable[C]] | None,
        ask: Callable[[C], Awaitable[T]],
        otherwise: T,
    ) -> T:
        """Return what `ask` returns, or `otherwise` if the platform knows nothing or cannot be asked."""
        if client is None or name in self._off:
            return otherwise

        async def asked(client: Callable[[], Awaitable[C]]) -> T:
            return await ask(await client())

        try:
            return await asyncio.wait_for(asked(client), TIMEOUT)
        except _ABSENT:
            return otherwise
        except (IvcapFlowsError, asyncio.TimeoutError) as error:
            if name not in self._off:
                self._off.add(name)
                why = str(error) or f"asking it took more than {TIMEOUT:g} s"
                self.troubles.append(f"{name} could not be asked: {why}")
            return otherwise

    async def _matching(self, schema: str, path: str) -> list[str]:
        async def ask(client: IvcapClient) -> list[str]:
            return [one.entity async for one in client.aspects.list(schema=schema, content_path=path, limit=ASKED)]

        nothing: list[str] = []
        return list(dict.fromkeys(await self._of_ivcap(ask, nothing)))

    async def _artifact(self, client: IvcapClient, urn: str) -> list[Record]:
        links = await parts_by_run(client.aspects, urn, LINK_SCHEMA)
        runs = [run for run, parts in links.items() if any((run, journal) not in self._known for journal in parts)]
        found = [record for run in runs for record in await self._run(client, run)]
        if not links:
            handle = (await client.artifacts.read(urn)).handle(await client.platform())
            found += describe(handle)
        return found

    async def _run(self, client: IvcapClient, urn: str) -> list[Record]:
        if urn in self._read:
            return []
        self._read.add(urn)
        parts = (await parts_by_run(client.aspects, urn, RUN_SCHEMA)).get(urn, {})
        found: list[list[Record]] = []
        for journal, aspect in parts.items():
            if (urn, journal) in self._known:
                continue
            try:
                found.append(records_of(aspect.content["prov"]))
            except (ValueError, KeyError, TypeError) as error:
                self.troubles.append(f"The record of {urn} on IVCAP ({aspect.urn}) cannot be read: {error}")
        return merged(found)

    async def _work(self, client: IvcapClient, urn: str) -> list[Record]:
        platform = await client.platform()
        if urn.startswith("urn:ivcap:order:"):
            handle: Any = (await client.orders.read(urn)).handle(platform)
        else:
            service = await client.jobs.service_of(urn)
            handle = (await client.jobs.read(service, urn, with_request=True)).handle(platform)
        found = describe(handle)
        for product in handle.products:
            found += await self._artifact(client, product.urn)
        return found

    async def _item(self, client: ProvenaClient, id_: str, direction: Direction) -> list[Record]:
        from ivcap_flows.provena.prov import DEEPEST

        ways = {"up": ["upstream"], "down": ["downstream"], "both": ["upstream", "downstream"]}[direction]
        nodes: dict[str, Record] = {}
        links: list[Record] = []
        for way in ways:
            try:
                seen = await client.prov.explore(id_, way, depth=DEEPEST)  # type: ignore[arg-type]
            except IvcapFlowsError as error:
                # The prov API answers so to an id that it does not know.
                if getattr(error, "status", None) != 500:
                    raise
                continue
            nodes |= {node.id: _node(node) for node in seen.nodes}
            links += [relation(link.type, link.source, link.target) for link in seen.links]
        kept = [link for link in links if link.source in nodes and link.target in nodes]
        kept = [link for link in kept if not faults([nodes[link.source or ""], nodes[link.target or ""], link])]
        named = {record.id for record in nodes.values() if record.type == "dataset"} | {id_}
        return [*nodes.values(), *kept, *await self._items(client, sorted(named))]

    async def _items(self, client: ProvenaClient, ids: Sequence[str]) -> list[Record]:
        """Return what the registry states about things: their names, and the artifacts that datasets stand for."""
        from ivcap_flows.provena.items import Item

        platform = await client.platform()
        found: list[Record] = []
        for id_ in ids[:ASKED]:
            try:
                item = await client.registry.fetch_any(id_)
            except _ABSENT:
                continue
            if isinstance(item, Item):
                found += describe(item.handle(platform))
        return found


def _node(node: Node) -> Record:
    type_ = _TYPES.get(node.subtype)
    category = (node.item_category or "").upper()
    if type_ in ("model-run", "study") or (type_ is None and category == "ACTIVITY"):
        return activity(node.id, type_ or "activity")
    if type_ in ("user", "organisation"):
        return agent(node.id, type_)
    return entity(node.id, type_ or "registry-item")
