"""The graph of one run or of many: records merged by id, contents joined by sha256, lineage up and down."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, Final, Literal

from ivcap_flows.identity import digest, file_urn
from ivcap_flows.provenance.constraints import closing
from ivcap_flows.provenance.ordering import SINGLE_BIRTH, in_order
from ivcap_flows.provenance.records import ANNOTATION, Record, content_of, entity, relation, relation_id
from ivcap_flows.provenance.rules import RULES, WORK

__all__ = ["Direction", "Graph", "identifies", "merge"]

Direction = Literal["up", "down", "both"]

_VAGUE: Final = frozenset({"entity", "activity"})
_FRAMES: Final = frozenset({"flow-run", "attempt"})
_OURS: Final = _FRAMES | {"task-run", "call"}
_FRAME_FACTS: Final = frozenset({"parameters", "code"})
_FILLED: Final = frozenset({"collection", "dataset"})
"""Groups whose members come and go. A folder with other files is another version of it."""
_COMMON: Final = frozenset({"hadPlan", "wasAssociatedWith", "wasAttributedTo", "actedOnBehalfOf"})
"""Relations to what things share without one coming from the other."""
_IDENTIFYING: Final = 16
"""Contents of fewer bytes may be equal by chance."""
_EARLIEST: Final = datetime.min.replace(tzinfo=timezone.utc)
_LATEST: Final = datetime.max.replace(tzinfo=timezone.utc)
_Step = tuple[Record, str, bool]
"""A step of a lineage: by which relation, to which thing, and whether to follow that thing in full."""


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
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.nodes: dict[str, Record] = {}
        self.relations: dict[str, Record] = {}
        for record in records:
            self._add(record)
        self._join_contents()
        self._settle_births()
        for derivation in closing(self.relations.values()):
            del self.relations[derivation]
        self._settle_times()

    @property
    def records(self) -> list[Record]:
        return [*self.nodes.values(), *self.relations.values()]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.nodes) + len(self.relations)

    def __contains__(self, id: object) -> bool:  # noqa: A002
        return id in self.nodes or id in self.relations

    def digest(self) -> str:
        """Return the sha256 of all records, whatever their order. Equal graphs have equal digests."""
        said = sorted(json.dumps(r.model_dump(mode="json"), sort_keys=True, default=str) for r in self.records)
        return digest("\n".join(said).encode())

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
        found = Graph()
        found.nodes = dict(self.nodes)
        found.relations = {
            name: link
            for name, link in self.relations.items()
            if link.source in self.nodes and link.target in self.nodes
        }
        return found

    def lineage(self, id: str | Iterable[str], direction: Direction = "up") -> Graph:  # noqa: A002
        """Return what things come from (`up`), what came from them (`down`), or all that is connected (`both`).

        The things themselves are included. A flow run frames its tasks: lineage passes from a task to the run's code,
        parameters and people, but not from there to everything else that the run touched. If the run itself is asked
        about, everything that it did counts. A shared plan, agent or set of equal parameters alone does not connect
        things, unless it is asked about. Through a collection or a dataset, lineage passes only between what was in it
        and who used it then.

        Equal bytes are followed from a thing that has no recorded maker: upwards to the thing that was last made with
        that content, before the content was used. Raises KeyError for an id that is not in the graph.
        """
        starts = [id] if isinstance(id, str) else list(id)
        for start in starts:
            if start not in self.nodes:
                raise KeyError(f"the graph has no record {start!r}")
        links = self._ends
        if direction != "both":
            starts = self._with_parts(starts, links)
        reached: dict[str, bool] = dict.fromkeys(starts, True)
        begin = frozenset(starts)
        taken: set[str] = set()
        queue = deque(starts)
        while queue:
            node = queue.popleft()
            for link in links[node]:
                if direction == "both":
                    steps = self._any_step(link, node, whole=reached[node])
                else:
                    steps = self._steps(link, node, direction, start=node in begin, whole=reached[node])
                for via, other, whole in steps:
                    taken.add(via.id)
                    if other not in reached or (whole and not reached[other]):
                        reached[other] = whole
                        queue.append(other)
        found = Graph()
        found.nodes = {name: record for name, record in self.nodes.items() if name in reached}
        found.relations = {name: record for name, record in self.relations.items() if name in taken}
        return found

    def _with_parts(self, starts: list[str], links: dict[str, list[Record]]) -> list[str]:
        """Return runs and attempts together with everything that they started."""
        found = dict.fromkeys(starts)
        queue = [start for start in starts if self.nodes[start].type in _FRAMES]
        while queue:
            node = queue.pop()
            parts = [link.source for link in links[node] if link.type == "wasStartedBy" and link.target == node]
            fresh = [part for part in parts if part in self.nodes and part not in found]
            found.update(dict.fromkeys(part for part in fresh if part is not None))
            queue += [part for part in fresh if part is not None]
        return list(found)

    def _any_step(self, link: Record, node: str, *, whole: bool) -> list[_Step]:
        """Return where a relation leads from a node, in either direction, and whether to go on from the other end."""
        other = link.target if link.source == node else link.source
        if not whole or other is None or other not in self.nodes or link.type not in RULES:
            return []
        common = link.type in _COMMON or self.nodes[other].type in _FRAME_FACTS
        return [(link, other, not (common and other == link.target))]

    def _steps(self, link: Record, node: str, direction: Direction, *, start: bool, whole: bool) -> list[_Step]:
        """Return where a relation leads from a node in one direction."""
        other = link.target if link.source == node else link.source
        if other is None or other not in self.nodes or link.type not in RULES:
            return []
        here, there = self.nodes[node], self.nodes[other]
        if RULES[link.type].same:
            held = here.type == "content" and not whole
            return [] if held else self._same_steps(link, node, other, direction, start=start)
        if (link.source == node) != (direction == "up"):
            return []
        within = link.type == "wasStartedBy" and not {here.type, there.type} & _FRAMES
        # What registers an artifact as a dataset is no part of its caller.
        if within and (not whole if direction == "up" else other in self._naming):
            return []
        if here.type in _FILLED and not (start if direction == "up" and link.type == "hadMember" else whole):
            return []
        if here.type in _FRAMES and not whole:
            if direction == "up" and link.type == "used" and there.type not in _FRAME_FACTS:
                return []
            if direction == "up" and link.type == "wasInformedBy":
                return []
            if direction == "down" and link.type == "wasStartedBy":
                return []
        if direction == "up":
            framed = link.type == "wasStartedBy" and there.type in _FRAMES
            whole = not framed and not (link.type == "wasGeneratedBy" and node in self._names)
        else:
            framed = link.type == "used" and there.type in _FRAMES and here.type not in _FRAME_FACTS
            whole = not framed and not (link.type == "hadMember" and there.type in _FILLED)
        return [(link, other, whole), *(self._through(link, other, direction) if there.type in _FILLED else ())]

    def _through(self, link: Record, group: str, direction: Direction) -> list[_Step]:
        """Return where lineage leads on through a group: from a use to what was in it then, or the way back."""
        memberships, uses = self._groups[group]
        passed: list[Record] = []
        if direction == "up" and link.type == "used":
            passed = [membership for membership in memberships if self._was_member(membership, link)]
        elif direction == "down" and link.type == "hadMember":
            passed = [use for use in uses if self._was_member(link, use)]
        return [step for each in passed for step in self._steps(each, group, direction, start=True, whole=True)]

    def _was_member(self, membership: Record, use: Record) -> bool:
        """Whether a thing was in a group when that was used. A membership without a time began with the thing."""
        user = self.nodes[use.source or ""]
        # A model run has the times of the work, of which it may be registered long after.
        at = use.time or (None if user.type == "model-run" else user.time) or _LATEST
        since = membership.time or self._made_at(membership.target or "")
        return since <= at and (membership.ended is None or at < membership.ended)

    def _same_steps(self, link: Record, node: str, other: str, direction: Direction, *, start: bool) -> list[_Step]:
        """Return where a relation leads that says that two things are the same, or have the same content."""
        if link.type != "specializationOf":
            # Upwards, the more general thing is an origin.
            outwards = direction == "down" or start or link.source == node
            return [(link, other, True)] if outwards else []
        if link.target == node:
            if direction == "down":
                # Another thing with its content came from it only if that thing was not made in another way.
                follows = start or not self._is_origin(other, node)
            else:
                follows = start or link == self._origin(node, self._first_use(node))
            return [(link, other, True)] if follows else []
        if direction == "down":
            return [(link, other, True)]
        origin = None if self._makers(node) else self._origin(other, self._first_use(node))
        return [(link, other, False), *([] if origin is None else [(origin, origin.source or "", True)])]

    def also_made(self, thing: str) -> list[str]:
        """Return the other things that were made with the thing's content, and not from that content."""
        contents = {link.target or "" for link in self._ends[thing] if link.type == "specializationOf"} - {thing}
        return [
            link.source
            for content in contents
            for link in self._ends[content]
            if link.type == "specializationOf" and link.source not in (None, thing)
            if self._is_origin(link.source or "", content)
        ]

    def _origin(self, content: str, before: datetime) -> Record | None:
        """Return the relation that joins the content to the thing last made with it, by the moment `before`."""
        if (content, before) in self._origins:
            return self._origins[content, before]
        holders = [link for link in self._ends[content] if link.type == "specializationOf" and link.target == content]
        made = {link.id: self._made_at(link.source or "") for link in holders}
        known = [link for link in holders if made[link.id] <= before and self._is_origin(link.source or "", content)]
        self._origins[content, before] = max(known, key=lambda link: (made[link.id], link.id), default=None)
        return self._origins[content, before]

    def _first_use(self, thing: str) -> datetime:
        times = [link.time for link in self._ends[thing] if link.type == "used" and link.target == thing]
        return min((time for time in times if time is not None), default=_LATEST)

    def _made_at(self, thing: str) -> datetime:
        makers = [(link.time, self.nodes.get(link.target or "")) for link in self._makers(thing)]
        times = [time or (maker and (maker.ended or maker.time)) for time, maker in makers]
        return min((time for time in times if time), default=_EARLIEST)

    def _makers(self, thing: str) -> list[Record]:
        return [link for link in self._ends[thing] if link.type == "wasGeneratedBy" and link.source == thing]

    def _is_origin(self, holder: str, content: str) -> bool:
        """Whether a holder of a content had it first: something made the holder without using the content."""
        makers = [link.target or "" for link in self._makers(holder)]
        taken = {
            r.target or "" for maker in makers for r in self._ends[maker] if r.type == "used" and r.source == maker
        }
        return bool(makers) and not any(
            thing == content or relation_id("specializationOf", thing, content) in self.relations for thing in taken
        )

    @cached_property
    def _origins(self) -> dict[tuple[str, datetime], Record | None]:
        return {}

    @cached_property
    def _names(self) -> set[str | None]:
        """The things that are other names of what was there before, as the dataset of an artifact."""
        return {link.source for link in self.relations.values() if link.type == "alternateOf"}

    @cached_property
    def _naming(self) -> set[str | None]:
        """The activities that gave such a name."""
        links = self.relations.values()
        return {link.target for link in links if link.type == "wasGeneratedBy" and link.source in self._names}

    @cached_property
    def _groups(self) -> dict[str, tuple[list[Record], list[Record]]]:
        """The memberships and the uses of each collection and dataset."""
        found: dict[str, tuple[list[Record], list[Record]]] = {
            id_: ([], []) for id_, node in self.nodes.items() if node.type in _FILLED
        }
        for link in self.relations.values():
            if link.type == "hadMember" and link.source in found:
                found[link.source][0].append(link)
            elif link.type == "used" and link.target in found and link.source in self.nodes:
                found[link.target][1].append(link)
        return found

    @cached_property
    def _ends(self) -> dict[str, list[Record]]:
        return self._by_end()

    def _by_end(self) -> dict[str, list[Record]]:
        links: dict[str, list[Record]] = defaultdict(list)
        for link in self.relations.values():
            for end in {link.source, link.target}:
                if end is not None:
                    links[end].append(link)
        return links

    def _add(self, record: Record) -> None:
        kept = self.relations if record.kind == "relation" else self.nodes
        known = kept.get(record.id)
        kept[record.id] = _in_order(record if known is None else merge(known, record))

    def _join_contents(self) -> None:
        holders: dict[str, list[Record]] = defaultdict(list)
        for node in self.nodes.values():
            sha256 = content_of(node)
            known = node.kind == "entity" and node.type != "content" and isinstance(sha256, str)
            if known and node.id != file_urn(str(sha256)) and identifies(node.attributes.get("size")):
                holders[str(sha256)].append(node)
        for sha256, nodes in holders.items():
            content = file_urn(sha256)
            if content not in self.nodes:
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
        for link in self.relations.values():
            if link.type == name and link.source is not None and link.target in self.nodes:
                claims[link.source].append(link)
        starters = self._starters()
        for source, links in claims.items():
            if len(links) < 2:
                continue
            frames = {frame for link in links for frame in _frames_of(link.target or "", starters)}
            for link in links:
                if link.target in frames:
                    del self.relations[link.id]
            left = [link for link in links if link.id in self.relations]
            if source not in self.nodes or self.nodes[source].type not in SINGLE_BIRTH | WORK:
                continue
            ours = [link for link in left if self.nodes[link.target or ""].type in _OURS]
            ours.sort(key=lambda link: link.time or _LATEST)
            # If a platform says who made a thing, that counts more than who returned it here.
            for link in ours if len(ours) < len(left) else ours[1:]:
                del self.relations[link.id]
                self._add(instead(link))

    def _settle_times(self) -> None:
        """Leave one start for each activity, and no instant before another that it must follow."""
        for record in in_order(self.nodes, self.relations):
            kept = self.relations if record.kind == "relation" else self.nodes
            kept[record.id] = record
        for link in self.relations.values():
            started = self.nodes.get(link.source or "") if link.type == "wasStartedBy" and link.time else None
            if started is not None and started.time not in (None, link.time):
                self.relations[link.id] = link.model_copy(update={"time": started.time})

    def _starters(self) -> dict[str, list[str]]:
        starters: dict[str, list[str]] = defaultdict(list)
        for link in self.relations.values():
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
