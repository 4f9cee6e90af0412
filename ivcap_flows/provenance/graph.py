"""The graph of one run or of many: records merged by id, contents joined by sha256, relations found by their ends."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, Final

from ivcap_flows.identity import digest, file_urn
from ivcap_flows.provenance.constraints import closing
from ivcap_flows.provenance.graph_index import RelationIndex
from ivcap_flows.provenance.lineage_walk import Direction, LineageWalk
from ivcap_flows.provenance.ordering import SINGLE_BIRTH, in_order
from ivcap_flows.provenance.records import ANNOTATION, Record, content_of, entity, relation
from ivcap_flows.provenance.rules import WORK

__all__ = ["Direction", "Graph", "identifies", "merge"]

_VAGUE: Final = frozenset({"entity", "activity"})
_OURS: Final = frozenset({"flow-run", "attempt", "task-run", "call"})
_IDENTIFYING: Final = 16
"""Contents of fewer bytes may be equal by chance."""
_LATEST: Final = datetime.max.replace(tzinfo=timezone.utc)


def identifies(size: object) -> bool:
    """Whether things with one sha256 are related. Empty and very small contents may be equal by chance."""
    return not isinstance(size, int) or size >= _IDENTIFYING


def merge(first: Record, second: Record) -> Record:
    """Merge two records with one id. `second` was recorded later and wins.

    An activity that is known to have ended keeps the facts known at its end, since an older handle of an order has
    fewer. Of a user's annotations, the last one counts.
    """
    older, newer = (second, first) if first.ended is not None and second.ended is None else (first, second)
    attributes = {**older.attributes, **newer.attributes}
    if older is second:
        attributes |= {name: fact for name, fact in second.attributes.items() if name.startswith(ANNOTATION)}
    if "outcome" in newer.attributes and newer.attributes["outcome"] != older.attributes.get("outcome"):
        # The cause of an earlier failure does not apply to what succeeded in the end.
        attributes = {name: fact for name, fact in attributes.items() if name != "cause" or name in newer.attributes}
    if first.kind == "relation":
        attributes |= _roles(first, second)
    exact = first if second.type in _VAGUE else second
    return Record(
        kind=exact.kind,
        id=first.id,
        type=exact.type,
        source=first.source,
        target=first.target,
        time=_pick(min, first.time, second.time),
        # A membership that is stated again goes on.
        ended=second.ended if first.kind == "relation" else _pick(max, first.ended, second.ended),
        attributes=attributes,
    )


def _pick(choose: Callable[..., datetime], *times: datetime | None) -> datetime | None:
    known = [time for time in times if time is not None]
    return choose(known) if known else None


def _in_order(record: Record) -> Record:
    """Let an activity end no earlier than it began, since clocks differ."""
    if record.time is None or record.ended is None or record.ended >= record.time:
        return record
    return record.model_copy(update={"ended": record.time})


def _roles(*relations: Record) -> dict[str, Any]:
    roles: dict[str, None] = {}
    for link in relations:
        role = link.attributes.get("role", [])
        roles.update(dict.fromkeys(role if isinstance(role, list) else [role]))
    return {} if not roles else {"role": next(iter(roles)) if len(roles) == 1 else list(roles)}


class Graph:
    """Records merged by id, in the order in which they were first recorded.

    Two things with one sha256 are joined by `specializationOf` to their content, so that a path meets the artifact that
    it came from. What a flow returns was made by the task that made it. What a later try got back unchanged, it used. A
    content that was changed and changed back is not its own origin. Instants are put in order, whichever clocks they
    came from.

    A relation reads `source type target`. Relations are looked up by type and by either end; they do not change once
    the graph is made.
    """

    nodes: dict[str, Record]
    relations: Mapping[str, Record]

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.nodes, self.relations = _Merger(records).settled()

    @classmethod
    def of(cls, nodes: Mapping[str, Record], relations: Iterable[Record]) -> Graph:
        """Return a part of a graph: records that are merged and settled already, the relations among these nodes."""
        graph = cls.__new__(cls)
        graph.nodes = dict(nodes)
        graph.relations = {link.id: link for link in relations}
        return graph

    @property
    def records(self) -> list[Record]:
        return [*self.nodes.values(), *self.relations.values()]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.nodes) + len(self.relations)

    def __contains__(self, id: object) -> bool:  # noqa: A002
        return id in self.nodes or id in self.relations

    @cached_property
    def index(self) -> RelationIndex:
        return RelationIndex(self.relations.values())

    def links(self, type: str) -> Sequence[Record]:  # noqa: A002 - the record's own word
        """Return the relations of a type."""
        return self.index.of_type(type)

    def links_from(self, id: str, type: str) -> Sequence[Record]:  # noqa: A002
        """Return the relations of a type that have this source."""
        return self.index.from_(id).get(type, ())

    def links_to(self, id: str, type: str) -> Sequence[Record]:  # noqa: A002
        """Return the relations of a type that have this target."""
        return self.index.to(id).get(type, ())

    def targets(self, id: str, type: str) -> list[Record]:  # noqa: A002
        """Return the things on record that are targets of this source: what `id` used, for example."""
        return [self.nodes[link.target] for link in self.links_from(id, type) if link.target in self.nodes]

    def sources(self, id: str, type: str) -> list[Record]:  # noqa: A002
        """Return the things on record that are sources of this target: what used `id`, for example."""
        return [self.nodes[link.source] for link in self.links_to(id, type) if link.source in self.nodes]

    def equal_origin(self, id: str) -> str | None:  # noqa: A002
        """Return what a thing that nothing made came from by its content, as `lineage` decides; None if not known."""
        found = self._walk.equal_origin(id)
        return None if found is None else found.source

    def equal_origins(self, id: str) -> list[str]:  # noqa: A002
        """Return all that a thing that nothing made may have come from by its content, in no order."""
        return [link.source or "" for link in self._walk.equal_origins(id)]

    @property
    def size(self) -> str:
        """How many things and relations there are, in words."""
        counts = {"thing": len(self.nodes), "relation": len(self.relations)}
        return ", ".join(f"{count} {word}" + ("" if count == 1 else "s") for word, count in counts.items())

    def digest(self) -> str:
        """Return the sha256 of all records, whatever their order. Equal graphs have equal digests."""
        texts = sorted(json.dumps(r.model_dump(mode="json"), sort_keys=True, default=str) for r in self.records)
        return digest("\n".join(texts).encode())

    def where(self, keep: Callable[[Record], bool]) -> Graph:
        """Return the records that `keep` accepts, without the relations that lost an end."""
        nodes = {record.id for record in self.nodes.values() if keep(record)}
        return Graph(
            record
            for record in self.records
            if (record.id in nodes)
            or (record.kind == "relation" and record.source in nodes and record.target in nodes and keep(record))
        )

    def whole(self) -> Graph:
        """Return the graph without relations to things that are not on record, because a fact is missing."""
        links = self.relations.values()
        return Graph.of(self.nodes, (link for link in links if link.source in self.nodes and link.target in self.nodes))

    def lineage(self, id: str | Iterable[str], direction: Direction = "up") -> Graph:  # noqa: A002
        """Return what things come from (`up`), what came from them (`down`), or all that is connected (`both`).

        The things themselves are included. A flow run frames its tasks: lineage passes from a task to the run's code,
        parameters and people, but not from there to everything else that the run touched. If the run itself is asked
        about, everything that it did counts. A shared plan, agent or set of equal parameters alone does not connect
        things, unless it is asked about. Through a collection or a dataset, lineage passes only between what was in it
        and who used it then.

        Equal bytes are followed from a thing that has no recorded maker: upwards to the thing that was last made with
        that content before it was used, if possible at the same path.

        Raises KeyError for an id that is not in the graph.
        """
        starts = [id] if isinstance(id, str) else list(id)
        for start in starts:
            if start not in self.nodes:
                raise KeyError(f"the graph has no record {start!r}")
        reached, taken = self._walk.from_(starts, direction)
        return Graph.of(
            {name: record for name, record in self.nodes.items() if name in reached},
            (record for name, record in self.relations.items() if name in taken),
        )

    def also_made(self, thing: str) -> list[str]:
        """Return the other things that were made with the thing's content, and not from that content."""
        contents = [content.id for content in self.targets(thing, "specializationOf") if content.id != thing]
        return [
            holder.id
            for content in contents
            for holder in self.sources(content, "specializationOf")
            if holder.id != thing and self._walk.is_origin(holder.id, content)
        ]

    @cached_property
    def _walk(self) -> LineageWalk:
        return LineageWalk(self.nodes, self.relations, self.index)


class _Merger:
    """Merges records, and settles what they claim twice."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._nodes: dict[str, Record] = {}
        self._relations: dict[str, Record] = {}
        for record in records:
            self._add(record)

    def settled(self) -> tuple[dict[str, Record], dict[str, Record]]:
        """Return the nodes and the relations."""
        self._join_contents()
        self._settle_births()
        for derivation in closing(self._relations.values()):
            del self._relations[derivation]
        self._settle_times()
        return self._nodes, self._relations

    def _add(self, record: Record) -> None:
        kept = self._relations if record.kind == "relation" else self._nodes
        known = kept.get(record.id)
        kept[record.id] = _in_order(record if known is None else merge(known, record))

    def _join_contents(self) -> None:
        holders: dict[str, list[Record]] = defaultdict(list)
        for node in self._nodes.values():
            sha256 = content_of(node)
            known = node.kind == "entity" and node.type != "content" and isinstance(sha256, str)
            if known and node.id != file_urn(str(sha256)) and identifies(node.attributes.get("size")):
                holders[str(sha256)].append(node)
        for sha256, nodes in holders.items():
            content = file_urn(sha256)
            if content not in self._nodes:
                if len(nodes) < 2:
                    continue
                self._add(entity(content, "content", sha256=sha256, size=nodes[0].attributes.get("size")))
            for node in nodes:
                self._add(relation("specializationOf", node.id, content))

    def _settle_births(self) -> None:
        """Leave one maker for what several activities of a flow returned, and one starter for what they started."""
        self._settle_birth(
            "wasGeneratedBy", lambda link: relation("used", link.target or "", link.source or "", link.time)
        )
        self._settle_birth(
            "wasStartedBy", lambda link: relation("wasInformedBy", link.target or "", link.source or "", link.time)
        )

    def _settle_birth(self, name: str, instead: Callable[[Record], Record]) -> None:
        claims: dict[str, list[Record]] = defaultdict(list)
        for link in self._relations.values():
            if link.type == name and link.source is not None and link.target in self._nodes:
                claims[link.source].append(link)
        starters = self._starters()
        for source, links in claims.items():
            if len(links) < 2:
                continue
            frames = {frame for link in links for frame in _frames_of(link.target or "", starters)}
            for link in links:
                if link.target in frames:
                    del self._relations[link.id]
            left = [link for link in links if link.id in self._relations]
            if source not in self._nodes or self._nodes[source].type not in SINGLE_BIRTH | WORK:
                continue
            ours = [link for link in left if self._nodes[link.target or ""].type in _OURS]
            ours.sort(key=lambda link: link.time or _LATEST)
            # If a platform says who made a thing, that counts more than who returned it here.
            for link in ours if len(ours) < len(left) else ours[1:]:
                del self._relations[link.id]
                self._add(instead(link))

    def _settle_times(self) -> None:
        """Leave one start for each activity, and no instant before another that it must follow."""
        for record in in_order(self._nodes, self._relations):
            kept = self._relations if record.kind == "relation" else self._nodes
            kept[record.id] = record
        for link in self._relations.values():
            started = self._nodes.get(link.source or "") if link.type == "wasStartedBy" and link.time else None
            if started is not None and started.time not in (None, link.time):
                self._relations[link.id] = link.model_copy(update={"time": started.time})

    def _starters(self) -> dict[str, list[str]]:
        starters: dict[str, list[str]] = defaultdict(list)
        for link in self._relations.values():
            if link.type == "wasStartedBy" and link.source and link.target:
                starters[link.source].append(link.target)
        return starters


def _frames_of(id: str, starters: dict[str, list[str]]) -> set[str]:  # noqa: A002
    frames: set[str] = set()
    queue = [id]
    while queue:
        for starter in starters.get(queue.pop(), ()):
            if starter not in frames:
                frames.add(starter)
                queue.append(starter)
    return frames
