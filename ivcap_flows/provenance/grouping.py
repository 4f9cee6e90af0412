"""The group of each thing in a picture.

An activity is in the activity that started it. A thing is where the steps that touch it meet. Several similar things
form a group of their own.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ivcap_flows.identity import digest
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record
from ivcap_flows.provenance.rules import BEHIND
from ivcap_flows.provenance.things import CONTEXT

__all__ = ["Grouping", "Link"]

_ALIKE: Final = 4
"""This many of a kind at one stage form a group."""

_NEIGHBOURS: Final = 20
"""Up to this many other runs are shown one by one on the page of a run."""

_STEPS: Final = frozenset({"used", "wasGeneratedBy", "wasDerivedFrom"})
"""Relations that set one stage after another."""


@dataclass(frozen=True)
class Link:
    """A link from `origin` to `result`, in the direction of time. The relation itself points to the origin."""

    origin: str
    result: str
    type: str


class Grouping:
    """The group of each thing.

    If a run was traced, `others` are the other runs in the graph. Each of these holds what the traced run did not
    touch.
    """

    def __init__(self, graph: Graph, starts: Collection[str]) -> None:
        self._graph = graph
        self._starts = set(starts)
        self._home: dict[str, str | None] = {}
        self._touched = {id_: list(self._ends(id_)) for id_ in graph.nodes}
        self._house_activities()
        self._own = {self._outermost(start) for start in starts if start in self._home and self._is_frame(start)}
        runs = [id_ for id_, home in self._home.items() if home is None and graph.nodes[id_].type == "flow-run"]
        self.others = frozenset(runs) - self._own if self._own else frozenset()
        self._house_things()
        self.stages = self._stages()
        self.members: dict[str | None, list[str]] = defaultdict(list)
        self._gather()

    def _ends(self, id: str) -> Iterator[tuple[str, str]]:  # noqa: A002
        """Yield the things on record to which a thing is related, each with the type of the relation."""
        for link in self._graph.index.at(id):
            other = (link.target if link.source == id else link.source) or ""
            if other in self._graph.nodes:
                yield link.type, other

    def ordered(self) -> Iterator[tuple[str, str | None]]:
        """Yield each item with its group, groups first."""
        queue: list[str | None] = [None]
        for group in queue:
            for member in self.members.get(group, ()):
                yield member, group
                queue.append(member)

    def links(self) -> list[Link]:
        """Return the links to draw. Leave out what grouping shows, and a group's links that one of its members has."""
        drawn = [
            Link(link.target or "", link.source or "", link.type)
            for link in self._graph.relations.values()
            if link.source in self._graph.nodes
            and link.target in self._graph.nodes
            and link.target not in self._around(link.source or "")
            and link.source not in self._around(link.target or "")
            and not self._is_behind_another(link)
        ]
        deeper = {
            (other, group, link.type)
            for link in drawn
            for near, other in ((link.result, link.origin), (link.origin, link.result))
            for group in self._around(near)
        }
        return [
            link
            for link in drawn
            if (link.origin, link.result, link.type) not in deeper
            and (link.result, link.origin, link.type) not in deeper
        ]

    def _is_behind_another(self, link: Record) -> bool:
        """Whether a link only says that another run had the code or person of the traced one."""
        ends = [self._outermost(end or "") in self.others for end in (link.source, link.target)]
        return link.type in BEHIND and ends[0] != ends[1]

    def _around(self, id: str) -> list[str]:  # noqa: A002
        """Return the groups around an activity or thing, innermost first."""
        around: list[str] = []
        home = self._home.get(id)
        while home is not None:
            around.append(home)
            home = self._home.get(home)
        return around

    def _house_activities(self) -> None:
        for node in self._graph.nodes.values():
            if node.kind == "activity":
                self._home[node.id] = None
        for link in self._graph.links("wasStartedBy"):
            started, starter = link.source or "", link.target or ""
            if started not in self._home or starter not in self._home:
                continue
            if self._home[started] is None and started != starter and started not in self._around(starter):
                self._home[started] = starter

    def _house_things(self) -> None:
        """Put each thing into the innermost group that holds all activities that used or made it.

        What nothing here has made comes from outside.
        """
        left: list[Record] = []
        for node in self._graph.nodes.values():
            if node.kind == "activity":
                continue
            touched = self._touched[node.id]
            by = [(name, other) for name, other in touched if self._graph.nodes[other].kind == "activity"]
            if self.others:
                by = self._of_one_run(by)
            activities = [other for _, other in by]
            origin = (
                node.type not in CONTEXT
                and node.kind == "entity"
                and not any(name == "wasGeneratedBy" for name, _ in by)
                and not any(self._outermost(other) in self.others for other in activities)
            )
            if (activities and origin) or (node.id in self._starts and not self._is_between(node.id)):
                self._home[node.id] = None
            elif activities:
                self._home[node.id] = self._shared(activities)
            else:
                left.append(node)
        for node in left:
            known = [other for _, other in self._touched[node.id] if other in self._home]
            # A thing that joins the traced run to another one belongs to the other.
            apart = [other for other in known if self._outermost(other) in self.others]
            self._home[node.id] = self._shared(apart or known) if known else None

    def _of_one_run(self, touched: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the activities of one run that touched a thing, each with its relation.

        The run is the traced one if it touched the thing, else the run that made the thing, else the first that used
        it.
        """
        mine = [(name, other) for name, other in touched if self._outermost(other) in self._own]
        if mine or not touched:
            return mine
        _, first = next((each for each in touched if each[0] == "wasGeneratedBy"), touched[0])
        run = self._outermost(first)
        return [(name, other) for name, other in touched if self._outermost(other) == run]

    def _outermost(self, id: str) -> str:  # noqa: A002
        """Return the outermost group around an activity or thing, or the thing itself if it is in none."""
        return [id, *self._around(id)][-1]

    def _is_frame(self, id: str) -> bool:  # noqa: A002
        return self._graph.nodes[id].type in ("flow-run", "attempt")

    def _is_between(self, id: str) -> bool:  # noqa: A002
        """Whether a thing has both origins and results in this graph."""
        return {link.source == id for link in self._graph.index.at(id)} == {True, False}

    def _shared(self, ids: Sequence[str]) -> str | None:
        """Return the innermost group that all of them are in."""
        trails = [self._around(id_) for id_ in ids]
        return next((group for group in trails[0] if all(group in trail for trail in trails[1:])), None)

    def _gather(self) -> None:
        """Put similar things into groups of their own."""
        alike = self._classes()
        counts: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        apart = self._own | (self.others if len(self.others) <= _NEIGHBOURS else frozenset())
        for id_ in self._graph.nodes:
            counts[alike[id_]].append(id_)
        for id_ in self._graph.nodes:
            kind, home = alike[id_], self._home[id_]
            alone = id_ in self._starts or id_ in apart or self._graph.nodes[id_].type in CONTEXT
            if len(counts[kind]) >= _ALIKE and not alone:
                group = "group:" + digest(json.dumps(counts[kind]).encode())[:32]
                if group not in self.members:
                    self.members[home].append(group)
                self.members[group].append(id_)
            else:
                self.members[home].append(id_)

    def _classes(self) -> dict[str, tuple[Any, ...]]:
        """Return what similar things have in common.

        For activities: type, group, stage within the group, and the name that people use. For things: type, group,
        stage, and the kinds of steps that they come from and go to.
        """
        nodes, stages = self._graph.nodes, self.stages
        classes: dict[str, tuple[Any, ...]] = {}
        for node in nodes.values():
            if node.kind == "activity":
                facts = node.attributes
                name = facts.get("service_name") if node.type in ("order", "job") else facts.get("name")
                classes[node.id] = (node.type, self._home[node.id], stages[node.id], str(name))
        for node in nodes.values():
            if node.kind != "activity":
                home = self._home[node.id]
                ends = {
                    (name, classes.get(self._trail(other, home)[-1], ()))
                    for name, other in self._touched[node.id]
                    if nodes[other].kind == "activity"
                }
                classes[node.id] = (node.type, home, stages[node.id], tuple(sorted(ends, key=repr)))
        return classes

    def _stages(self) -> dict[str, int]:
        """Return the maximum number of data steps before each thing in its group."""
        flows: dict[str | None, dict[tuple[str, str], None]] = defaultdict(dict)
        for link in self._graph.relations.values():
            if link.type in _STEPS and link.source in self._home and link.target in self._home:
                group = self._shared([link.source, link.target])
                origin, result = (self._trail(end, group)[-1] for end in (link.target, link.source))
                flows[group][origin, result] = None
        groups: dict[str | None, list[str]] = defaultdict(list)
        for id_ in self._graph.nodes:
            groups[self._home[id_]].append(id_)
        stages: dict[str, int] = {}
        for group, inside in groups.items():
            known = set(inside)
            stages |= _longest_paths(inside, [ends for ends in flows[group] if known.issuperset(ends)])
        return stages

    def _trail(self, id: str, group: str | None) -> list[str]:  # noqa: A002
        """Return a thing and the groups that it is in, up to the one directly in `group`."""
        trail = [id, *self._around(id)]
        return trail[: trail.index(group)] if group in trail else trail


def _longest_paths(nodes: Sequence[str], links: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return the maximum number of links before each node. A link that closes a cycle does not count."""
    after: dict[str, list[str]] = defaultdict(list)
    waiting = Counter(target for _, target in links)
    for source, target in links:
        after[source].append(target)
    lengths = dict.fromkeys(nodes, 0)
    free, rest = deque(node for node in nodes if not waiting[node]), iter(nodes)
    seen: set[str] = set()
    while len(seen) < len(lengths):
        node = free.popleft() if free else next(rest)
        if node in seen:
            continue
        seen.add(node)
        for target in after[node]:
            waiting[target] -= 1
            if target in seen:
                continue
            lengths[target] = max(lengths[target], lengths[node] + 1)
            if not waiting[target]:
                free.append(target)
    return lengths
