"""The rules of lineage: from which thing to which other one it leads, in each direction."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import cached_property
from typing import Final

from ivcap_flows.provenance.graph_index import RelationIndex
from ivcap_flows.provenance.lineage_rules import Direction, Step, Way, end_of, follows
from ivcap_flows.provenance.records import Record, relation_id
from ivcap_flows.provenance.rules import BEHIND, RULES

__all__ = ["Direction", "LineageWalk"]

_SAME: Final = tuple(name for name, rule in RULES.items() if rule.same)
_EARLIEST: Final = datetime.min.replace(tzinfo=timezone.utc)
_LATEST: Final = datetime.max.replace(tzinfo=timezone.utc)
_Step = tuple[Record, str, bool]
"""A step of a lineage: by which relation, to which thing, and whether to follow that thing in full."""


class LineageWalk:
    """Walks through the relations of one graph."""

    def __init__(self, nodes: Mapping[str, Record], relations: Mapping[str, Record], index: RelationIndex) -> None:
        self._nodes = nodes
        self._relations = relations
        self._index = index
        self._equal: dict[str, Record | None] = {}

    def from_(self, starts: Sequence[str], direction: Direction) -> tuple[Collection[str], Collection[str]]:
        """Return the ids of the things that lineage leads to from `starts`, and those of the relations on the way."""
        if direction != "both":
            starts = self._with_parts(starts)
        reached: dict[str, bool] = dict.fromkeys(starts, True)
        begin = frozenset(starts)
        taken: set[str] = set()
        queue = deque(starts)
        while queue:
            node = queue.popleft()
            for link in self._links(node, direction):
                if direction == "both":
                    steps = self._any_step(link, node, whole=reached[node])
                else:
                    steps = self._steps(link, node, direction, start=node in begin, whole=reached[node])
                for via, other, whole in steps:
                    taken.add(via.id)
                    if other not in reached or (whole and not reached[other]):
                        reached[other] = whole
                        queue.append(other)
        return reached, taken

    def equal_origin(self, thing: str) -> Record | None:
        """Return the relation to its content of what a thing or a content came from; None if that is not known.

        What nothing is known to have made came from a thing that was made with its content before it was used: the last
        one at its path, else the last one.
        """
        if thing not in self._equal:
            path = self._path(thing)
            self._equal[thing] = max(
                self.equal_origins(thing),
                key=lambda link: (
                    path is not None and self._path(link.source or "") == path,
                    self._made_at(link.source or ""),
                    link.id,
                ),
                default=None,
            )
        return self._equal[thing]

    def equal_origins(self, thing: str) -> list[Record]:
        """Return the relations to its content of all that a thing or a content may have come from, in no order."""
        if self._makers(thing):
            return []
        contents = self._index.from_(thing).get("specializationOf", ())
        content = next((link.target or "" for link in contents), thing)
        before = self._first_use(thing)
        return [
            link
            for link in self._index.to(content).get("specializationOf", ())
            if self._made_at(link.source or "") <= before and self.is_origin(link.source or "", content)
        ]

    def is_origin(self, holder: str, content: str) -> bool:
        """Whether a holder of a content had it first: something made the holder without using the content."""
        makers = [link.target or "" for link in self._makers(holder)]
        used = {link.target or "" for maker in makers for link in self._index.from_(maker).get("used", ())}
        return bool(makers) and not any(
            thing == content or relation_id("specializationOf", thing, content) in self._relations for thing in used
        )

    def _links(self, node: str, direction: Direction) -> Iterator[Record]:
        """Yield the relations of a node that may lead on: to its origins or its results, and to its other names."""
        if direction == "both":
            yield from self._index.at(node)
            return
        here, back = self._index.from_(node), self._index.to(node)
        if direction == "down":
            here, back = back, here
        for links in here.values():
            yield from links
        for name in _SAME:
            yield from back.get(name, ())

    def _with_parts(self, starts: Sequence[str]) -> list[str]:
        """Return runs and attempts together with everything that they started."""
        found = dict.fromkeys(starts)
        queue = [start for start in starts if end_of(self._nodes[start].type) == "frame"]
        while queue:
            parts = [link.source or "" for link in self._index.to(queue.pop()).get("wasStartedBy", ())]
            fresh = [part for part in parts if part in self._nodes and part not in found]
            found.update(dict.fromkeys(fresh))
            queue += fresh
        return list(found)

    def _any_step(self, link: Record, node: str, *, whole: bool) -> list[_Step]:
        """Return where a relation leads from a node, in either direction, and whether to go on from the other end."""
        other = link.target if link.source == node else link.source
        if not whole or other is None or other not in self._nodes or link.type not in RULES:
            return []
        common = link.type in BEHIND or end_of(self._nodes[other].type) == "fact"
        return [(link, other, not (common and other == link.target))]

    def _steps(self, link: Record, node: str, direction: Way, *, start: bool, whole: bool) -> list[_Step]:
        """Return where a relation leads from a node in one direction."""
        other = link.target if link.source == node else link.source
        if other is None or other not in self._nodes or link.type not in RULES:
            return []
        here, there = self._nodes[node], self._nodes[other]
        if RULES[link.type].same:
            held = here.type == "content" and not whole
            return [] if held else self._same_steps(link, node, other, direction, start=start)
        if (link.source == node) != (direction == "up"):
            return []
        naming = node in self._names if direction == "up" else other in self._naming
        ends = end_of(here.type), end_of(there.type)
        follow = follows(Step(direction, link.type, *ends, whole=whole, start=start, naming=naming))
        if follow == "no":
            return []
        through = self._through(link, other, direction) if ends[1] == "group" else ()
        return [(link, other, follow == "in full"), *through]

    def _through(self, link: Record, group: str, direction: Way) -> list[_Step]:
        """Return where lineage leads on through a group: from a use to what was in it then, or the way back."""
        passed: list[Record] = []
        if direction == "up" and link.type == "used":
            members = self._index.from_(group).get("hadMember", ())
            passed = [membership for membership in members if self._was_member(membership, link)]
        elif direction == "down" and link.type == "hadMember":
            uses = [use for use in self._index.to(group).get("used", ()) if use.source in self._nodes]
            passed = [use for use in uses if self._was_member(link, use)]
        return [step for each in passed for step in self._steps(each, group, direction, start=True, whole=True)]

    def _was_member(self, membership: Record, use: Record) -> bool:
        """Whether a thing was in a group when that was used. A membership without a time began with the thing."""
        user = self._nodes[use.source or ""]
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
                follows = start or not self.is_origin(other, node)
            else:
                follows = start or link == self.equal_origin(node)
            return [(link, other, True)] if follows else []
        if direction == "down":
            return [(link, other, True)]
        origin = self.equal_origin(node)
        return [(link, other, False), *([] if origin is None else [(origin, origin.source or "", True)])]

    def _path(self, thing: str) -> object:
        node = self._nodes.get(thing)
        return None if node is None else node.attributes.get("path")

    def _first_use(self, thing: str) -> datetime:
        times = [link.time for link in self._index.to(thing).get("used", ())]
        return min((time for time in times if time is not None), default=_LATEST)

    def _made_at(self, thing: str) -> datetime:
        makers = [(link.time, self._nodes.get(link.target or "")) for link in self._makers(thing)]
        times = [time or (maker and (maker.ended or maker.time)) for time, maker in makers]
        return min((time for time in times if time), default=_EARLIEST)

    def _makers(self, thing: str) -> Sequence[Record]:
        return self._index.from_(thing).get("wasGeneratedBy", ())

    @cached_property
    def _names(self) -> set[str | None]:
        """The things that are other names of what was there before, as the dataset of an artifact."""
        return {link.source for link in self._index.of_type("alternateOf")}

    @cached_property
    def _naming(self) -> set[str | None]:
        """The activities that gave such a name."""
        return {link.target for name in self._names for link in self._makers(name or "")}
