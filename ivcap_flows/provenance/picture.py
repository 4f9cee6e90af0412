"""What a picture of a graph shows: things in groups, what leads from one to the other, and what is folded at first.

A group is an activity with what it started, or several alike: tries of one task at one stage, files from one kind of
step to the next. HTML, Mermaid and Graphviz draw the same picture.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from ivcap_flows.identity import digest
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.layout import ranks
from ivcap_flows.provenance.records import Kind, Record
from ivcap_flows.provenance.rules import PLANS, RULES

__all__ = ["AMISS", "OUTCOMES", "Item", "Link", "Picture", "as_opened", "kind_of", "outcome_of", "picture"]

OUTCOMES: Final[Mapping[str, str]] = {
    "completed": "it ended well",
    "failed": "it ended with an error",
    "crashed": "its process or machine broke down",
    "lost": "its process is gone, nobody knows how",
    "cancelled": "somebody ended it",
    "abandoned": "it was given up",
    "parked": "it waits outside of any process",
    "running": "it had not ended yet",
    "retried": "it was tried again",
    "reused": "an earlier result was taken",
    "unknown": "how it ended is not on record",
}
"""How an activity may have ended, and what a legend says of it."""

AMISS: Final = ("failed", "crashed", "lost", "abandoned", "cancelled")
"""The outcomes that are no good end, gravest first."""

_GRAVEST: Final = (*AMISS, "running", "parked", "retried", "unknown")
"""What a group of several is said to have come to: the gravest, where one did not end well."""

_WEAK: Final = frozenset({"wasInformedBy", "wasInfluencedBy", "hadMember"})
"""Relations that say little about what comes first."""

_PLANS_AND_PEOPLE: Final = frozenset({"hadPlan", "wasAssociatedWith", "wasAttributedTo", "actedOnBehalfOf"})
"""Relations to what stands behind an activity or thing: plans and people."""

_ALIKE: Final = 4
"""So many of a kind at one stage make a group."""

_FEW: Final = 60
"""A picture of so many items begins with all of them shown."""

_MANY: Final = 200
"""A larger one with at most so many, and with all groups of things alike folded."""

_CONTEXT: Final = PLANS - {"entity"} | {"parameters"}


@dataclass(frozen=True)
class Item:
    """One thing or group; `record` is None for several alike, `members` is how many are directly in it.

    `within` is the gravest outcome of what a group holds, where that did not end as well as the group itself.
    """

    id: str
    parent: str | None
    kind: Kind
    type: str
    title: str
    note: str
    outcome: str | None
    record: Record | None
    members: int = 0
    within: str | None = None
    open: bool = True


@dataclass(frozen=True)
class Link:
    """What leads from `origin` to `result`, the way that time goes: against the relation, which points to origins."""

    origin: str
    result: str
    type: str


@dataclass(frozen=True)
class Picture:
    """Items, each after the group it is in; the links that are drawn; all relations, drawn or told by nesting."""

    items: Mapping[str, Item]
    links: Sequence[Link]
    relations: Sequence[Record]
    starts: Sequence[str]


def picture(graph: Graph, starts: Collection[str] = ()) -> Picture:
    """What is drawn of a graph. `starts` are what was traced; those at an end of it stand outside of all groups."""
    nest = _Nest(graph, starts)
    items: dict[str, Item] = {}
    for id_, parent in nest.ordered():
        members = nest.members.get(id_, [])
        record = graph.nodes.get(id_)
        if record is None:
            items[id_] = _several(id_, parent, [graph.nodes[member] for member in members])
        else:
            outcome = outcome_of(record) if record.kind == "activity" else None
            items[id_] = Item(
                id_, parent, record.kind, record.type, title(record), note(record), outcome, record, len(members)
            )
    opened, within = _opened(items), _within(items)
    shown = {id_: replace(item, open=id_ in opened, within=within.get(id_)) for id_, item in items.items()}
    known = [start for start in starts if start in graph.nodes]
    return Picture(shown, nest.links(), list(graph.relations.values()), known)


def kind_of(relation: str) -> Literal["flow", "weak", "same", "context"]:
    """How a link of a relation is drawn: what data flows along, what says little, equal contents, plans and people."""
    if relation in _PLANS_AND_PEOPLE:
        return "context"
    return "same" if RULES[relation].same else "weak" if relation in _WEAK else "flow"


def as_opened(whole: Picture) -> Picture:
    """The picture with what is folded as one item, and what leads into or out of it as one link."""
    standing: dict[str, str] = {}
    for item in whole.items.values():
        inside = item.parent is not None and not (
            standing[item.parent] == item.parent and whole.items[item.parent].open
        )
        standing[item.id] = standing[item.parent or ""] if inside else item.id
    links = {Link(standing[link.origin], standing[link.result], link.type): None for link in whole.links}
    return Picture(
        {id_: item for id_, item in whole.items.items() if standing[id_] == id_},
        [link for link in links if link.origin != link.result],
        whole.relations,
        whole.starts,
    )


def outcome_of(record: Record) -> str:
    """How an activity ended, as a word of OUTCOMES."""
    said = str(record.attributes.get("outcome") or record.attributes.get("status")).lower()
    return said if said in OUTCOMES else "running" if said in _UNDER_WAY else "unknown"


_UNDER_WAY: Final = frozenset({"pending", "scheduled", "executing"})
_KEY: Final = re.compile(r" \[[0-9a-f]{16}(?:\.\d+)?\]$")


def title(record: Record) -> str:
    """What people call a thing, in a few words."""
    said = record.attributes
    if name := said.get("name") or said.get("flow_run_name"):
        # The key that makes an order findable says nothing to people.
        return _KEY.sub("", " ".join(str(name).split()))
    if path := said.get("path"):
        return re.split(r"[/\\]", str(path).rstrip("/\\"))[-1] or str(path)
    return record.type if record.type == "parameters" else _tail(str(said.get("schema") or record.id))


def note(record: Record) -> str:
    """The type of a thing, and what else is worth a glance."""
    said = record.attributes
    number = f" {said['number']}" if record.type == "attempt" and "number" in said else ""
    words = [record.type.replace("-", " ") + number]
    if service := said.get("service_name"):
        words.append(str(service))
    if record.type == "parameters" and isinstance(said.get("values"), dict):
        words.append(f"{len(said['values'])} values")
    if commit := said.get("commit"):
        words.append(f"commit {str(commit)[:8]}" + ("+" if said.get("dirty") else ""))
    if version := said.get("version"):
        words.append(str(version))
    if isinstance(size := said.get("size"), int):
        words.append(_bytes(size))
    if record.kind == "activity" and record.time and record.ended:
        words.append(_seconds((record.ended - record.time).total_seconds()))
    return " · ".join(words)


def _tail(id: str) -> str:  # noqa: A002
    """The end of a URN, where what tells it from others stands."""
    last = re.split(r"[:/]", id.rstrip(":/"))[-1] or id
    return last if len(last) <= 14 else f"{last[:12]}…"


def _bytes(size: int) -> str:
    value, units = float(size), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 1000 and (larger := next(units, None)):
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _several(id: str, parent: str | None, records: Sequence[Record]) -> Item:  # noqa: A002
    titles = {title(record) for record in records}
    type_ = records[0].type
    word = {"directory": "directorie", "entity": "entitie", "activity": "activitie"}.get(type_, type_.replace("-", " "))
    name = titles.pop() if len(titles) == 1 else f"{word}s"
    outcome, told = None, f"{len(records)} {word}s"
    if records[0].kind == "activity":
        outcomes = [outcome_of(record) for record in records]
        outcome = next((word for word in _GRAVEST if word in outcomes), outcomes[0])
        counts = {word: outcomes.count(word) for word in dict.fromkeys(outcomes) if word != "completed"}
        told = ", ".join([told, *(f"{count} {word}" for word, count in counts.items())])
    return Item(id, parent, records[0].kind, type_, name, told, outcome, None, len(records))


def _within(items: Mapping[str, Item]) -> dict[str, str]:
    gravest: dict[str, int] = {}
    for item in reversed(list(items.values())):
        own = _GRAVEST.index(item.outcome) if item.outcome in _GRAVEST else len(_GRAVEST)
        worst = min(own, gravest.get(item.id, own))
        if item.parent is not None:
            gravest[item.parent] = min(worst, gravest.get(item.parent, worst))
        if worst == own:
            gravest.pop(item.id, None)
    return {
        id_: _GRAVEST[grade] for id_, grade in gravest.items() if grade < len(_GRAVEST) and _GRAVEST[grade] != "unknown"
    }


def _opened(items: Mapping[str, Item]) -> set[str]:
    """The groups that are unfolded at first: all, or from outside inwards, small ones first, while there is room."""
    groups = [item for item in items.values() if item.members]
    if len(items) <= _FEW:
        return {group.id for group in groups}
    opened: set[str] = set()
    shown = sum(item.parent is None for item in items.values())
    level = [group for group in groups if group.parent is None]
    while level:
        fresh = set()
        for group in sorted(level, key=lambda item: item.members):
            if group.record is not None and shown + group.members <= _MANY:
                shown += group.members
                fresh.add(group.id)
        opened |= fresh
        level = [group for group in groups if group.parent in fresh]
    return opened


class _Nest:
    """Which group each thing is in."""

    def __init__(self, graph: Graph, starts: Collection[str]) -> None:
        self._graph = graph
        self._starts = set(starts)
        self._home: dict[str, str | None] = {}
        self._touched: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for link in graph.relations.values():
            if link.source in graph.nodes and link.target in graph.nodes:
                self._touched[link.source or ""].append((link.type, link.target or ""))
                self._touched[link.target or ""].append((link.type, link.source or ""))
        self._house_activities()
        self._house_things()
        self.members: dict[str | None, list[str]] = defaultdict(list)
        self._gather()

    def ordered(self) -> Iterator[tuple[str, str | None]]:
        """Each item with its group, groups first."""
        queue: list[str | None] = [None]
        for group in queue:
            for member in self.members.get(group, ()):
                yield member, group
                queue.append(member)

    def links(self) -> list[Link]:
        """The links that are drawn: not what nesting tells, nor of a group what is told of something in it."""
        drawn = [
            Link(link.target or "", link.source or "", link.type)
            for link in self._graph.relations.values()
            if link.source in self._graph.nodes
            and link.target in self._graph.nodes
            and link.target not in self._around(link.source or "")
            and link.source not in self._around(link.target or "")
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

    def _around(self, id: str) -> list[str]:  # noqa: A002
        """The groups around an activity or thing, innermost first."""
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
        for link in self._graph.relations.values():
            started, starter = link.source or "", link.target or ""
            if link.type != "wasStartedBy" or started not in self._home or starter not in self._home:
                continue
            if self._home[started] is None and started != starter and started not in self._around(starter):
                self._home[started] = starter

    def _house_things(self) -> None:
        """A thing is in the innermost group that holds all activities that took or made it; what nothing here has
        made comes from outside."""
        left: list[Record] = []
        for node in self._graph.nodes.values():
            if node.kind == "activity":
                continue
            touched = self._touched[node.id]
            activities = [other for _, other in touched if self._graph.nodes[other].kind == "activity"]
            origin = (
                node.type not in _CONTEXT
                and node.kind == "entity"
                and not any(
                    name == "wasGeneratedBy" and self._graph.nodes[other].kind == "activity" for name, other in touched
                )
            )
            if (activities and origin) or (node.id in self._starts and not self._is_between(node.id)):
                self._home[node.id] = None
            elif activities:
                self._home[node.id] = self._shared(activities)
            else:
                left.append(node)
        for node in left:
            known = [other for _, other in self._touched[node.id] if other in self._home]
            self._home[node.id] = self._shared(known) if known else None

    def _is_between(self, id: str) -> bool:  # noqa: A002
        """Whether a thing has both origins and results here."""
        return {link.source == id for link in self._graph.relations.values() if id in (link.source, link.target)} == {
            True,
            False,
        }

    def _shared(self, ids: Sequence[str]) -> str | None:
        """The innermost group that all of them are in."""
        trails = [self._around(id_) for id_ in ids]
        return next((group for group in trails[0] if all(group in trail for trail in trails[1:])), None)

    def _gather(self) -> None:
        """Put those alike into groups of their own."""
        alike = self._classes()
        counts: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        for id_ in self._graph.nodes:
            counts[alike[id_]].append(id_)
        for id_ in self._graph.nodes:
            kind, home = alike[id_], self._home[id_]
            if len(counts[kind]) >= _ALIKE and id_ not in self._starts and self._graph.nodes[id_].type not in _CONTEXT:
                group = "group:" + digest(json.dumps(counts[kind]).encode())[:32]
                if group not in self.members:
                    self.members[home].append(group)
                self.members[group].append(id_)
            else:
                self.members[home].append(id_)

    def _classes(self) -> dict[str, tuple[Any, ...]]:
        """What those alike have in common: group, type, stage within the group, and what people would call it; things,
        by what kind of step they come from and to which they go."""
        nodes, stages = self._graph.nodes, self._stages()
        classes: dict[str, tuple[Any, ...]] = {}
        for node in nodes.values():
            if node.kind == "activity":
                said = node.attributes
                name = said.get("service_name") if node.type in ("order", "job") else said.get("name")
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
        """How many steps of data lie at most before each in its group."""
        flows: dict[str | None, dict[tuple[str, str], None]] = defaultdict(dict)
        for link in self._graph.relations.values():
            if link.type in ("used", "wasGeneratedBy") and link.source in self._home and link.target in self._home:
                group = self._shared([link.source, link.target])
                origin, result = (self._trail(end, group)[-1] for end in (link.target, link.source))
                flows[group][origin, result] = None
        groups: dict[str | None, list[str]] = defaultdict(list)
        for id_ in self._graph.nodes:
            groups[self._home[id_]].append(id_)
        stages: dict[str, int] = {}
        for group, inside in groups.items():
            known = set(inside)
            stages |= ranks(inside, [ends for ends in flows[group] if known.issuperset(ends)], tight=False)
        return stages

    def _trail(self, id: str, group: str | None) -> list[str]:  # noqa: A002
        """A thing and what it is in, up to the one that is directly in a group."""
        trail = [id, *self._around(id)]
        return trail[: trail.index(group)] if group in trail else trail
