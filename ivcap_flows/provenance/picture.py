"""The content of a picture of a graph: things in groups, links between them, and what is folded at first.

A group is an activity with what it started, or several similar things: the tries of one task at one stage, or the files
from one kind of step to the next. HTML and Mermaid draw the same picture.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.grouping import Grouping, Link
from ivcap_flows.provenance.labels import Labels, plural
from ivcap_flows.provenance.records import Kind, Record
from ivcap_flows.provenance.rules import BEHIND, RULES

__all__ = ["AMISS", "OUTCOMES", "Item", "Link", "Picture", "as_opened", "kind_of", "outcome_of", "picture"]

OUTCOMES: Final[Mapping[str, str]] = {
    "completed": "it succeeded",
    "failed": "it ended with an error",
    "crashed": "its process or its machine crashed",
    "lost": "its process is gone, and how it ended is unknown",
    "cancelled": "someone cancelled it",
    "abandoned": "it was given up and will not be continued",
    "parked": "it waits without a process",
    "paused": "it waits to be resumed",
    "running": "it had not ended yet",
    "retried": "it was tried again",
    "reused": "an earlier result was used instead",
    "unknown": "how it ended was not recorded",
}
"""The outcomes of an activity, each with the words for it in a legend."""

AMISS: Final = ("failed", "crashed", "lost", "abandoned", "cancelled")
"""The outcomes that are not good, gravest first."""

_GRAVEST: Final = (*AMISS, "running", "parked", "paused", "retried", "unknown")
"""The outcome of a group of several, if one of them did not end well: the first in this order."""

_WEAK: Final = frozenset({"wasInformedBy", "wasInfluencedBy", "hadMember"})
"""Relations that say little about what comes first."""

_FEW: Final = 60
"""A picture of up to this many items begins with all of them shown."""

_MANY: Final = 200
"""A larger one begins with at most this many, and with all groups of similar things folded."""


@dataclass(frozen=True)
class Item:
    """One thing or group. `record` is None for a group of similar things; `members` is how many are directly in it.
    `stage` is the maximum number of data steps before it in the group around it.

    `within` is the gravest outcome of what a group holds, if that is graver than the outcome of the group itself.
    """

    id: str
    parent: str | None
    kind: Kind
    type: str
    title: str
    note: str
    outcome: str | None
    record: Record | None
    stage: int
    members: int = 0
    within: str | None = None
    open: bool = True


@dataclass(frozen=True)
class Picture:
    """Items, each after the group that it is in; the links to draw; and all relations, drawn or shown by groups."""

    items: Mapping[str, Item]
    links: Sequence[Link]
    relations: Sequence[Record]
    starts: Sequence[str]


def picture(graph: Graph, starts: Collection[str] = ()) -> Picture:
    """Return what to draw of a graph. `starts` are what was traced; those at an end of it are outside of all groups.

    If a run was traced, its own things are shown, and each run that shares something with it is one folded thing.
    """
    grouping, labels = Grouping(graph, starts), Labels(graph)
    items: dict[str, Item] = {}
    for id_, parent in grouping.ordered():
        members = grouping.members.get(id_, [])
        record = graph.nodes.get(id_)
        if record is None:
            items[id_] = _several(
                id_, parent, [graph.nodes[member] for member in members], labels, grouping.stages[members[0]]
            )
        else:
            outcome = outcome_of(record) if record.kind == "activity" else None
            items[id_] = Item(
                id_,
                parent,
                record.kind,
                record.type,
                labels.title(record),
                labels.note(record),
                outcome,
                record,
                grouping.stages[id_],
                len(members),
            )
    opened, within = _opened(items, grouping.others), _within(items)
    shown = {id_: replace(item, open=id_ in opened, within=within.get(id_)) for id_, item in items.items()}
    known = [start for start in starts if start in graph.nodes]
    return Picture(shown, grouping.links(), list(graph.relations.values()), known)


def kind_of(relation: str) -> Literal["flow", "weak", "same", "context"]:
    """Return how to draw a relation: data flow, a weak link, equal contents, or plans and people."""
    if relation in BEHIND:
        return "context"
    return "same" if RULES[relation].same else "weak" if relation in _WEAK else "flow"


def as_opened(whole: Picture) -> Picture:
    """Return the picture with each folded group as one item, and with the links into or out of it joined."""
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
    """Return how an activity ended, as a key of OUTCOMES."""
    outcome = str(record.attributes.get("outcome") or record.attributes.get("status")).lower()
    return outcome if outcome in OUTCOMES else "running" if outcome in _UNDER_WAY else "unknown"


_UNDER_WAY: Final = frozenset({"pending", "scheduled", "executing"})


def _several(id: str, parent: str | None, records: Sequence[Record], labels: Labels, stage: int) -> Item:  # noqa: A002
    type_ = records[0].type
    titles = {labels.title(record) for record in records}
    if len(titles) > 1 and type_ == "task-run":
        titles = {str(record.attributes.get("name")) for record in records}
    name = titles.pop() if len(titles) == 1 else plural(type_)
    outcome, note = None, f"{len(records)} {plural(type_)}"
    if records[0].kind == "activity":
        outcomes = [outcome_of(record) for record in records]
        outcome = next((word for word in _GRAVEST if word in outcomes), outcomes[0])
        counts = {word: outcomes.count(word) for word in dict.fromkeys(outcomes) if word != "completed"}
        note = ", ".join([note, *(f"{count} {word}" for word, count in counts.items())])
    return Item(id, parent, records[0].kind, type_, name, note, outcome, None, stage, len(records))


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


def _opened(items: Mapping[str, Item], others: Collection[str]) -> set[str]:
    """Return the groups that are unfolded at first: all, or as many as there is room for.

    They are opened from the outside inwards, small ones first. None of the `others` is unfolded, but the groups in each
    are, as if it were the whole picture.
    """
    inside: dict[str, list[Item]] = {other: [] for other in others}
    outer: dict[str, str | None] = {}
    for item in items.values():
        outer[item.id] = item.parent if item.parent in inside else outer.get(item.parent or "")
        if (other := outer[item.id]) is not None:
            inside[other].append(item)
    own = [item for item in items.values() if outer[item.id] is None and item.id not in inside]
    opened = _while_there_is_room(own, len(inside))
    for other, held in inside.items():
        opened |= _while_there_is_room(held, 0, other)
    return opened


def _while_there_is_room(items: Sequence[Item], shown: int, parent: str | None = None) -> set[str]:
    groups = [item for item in items if item.members]
    if shown + len(items) <= _FEW:
        return {group.id for group in groups}
    opened: set[str] = set()
    shown += sum(item.parent == parent for item in items)
    level = [group for group in groups if group.parent == parent]
    while level:
        fresh = set()
        for group in sorted(level, key=lambda item: item.members):
            if group.record is not None and shown + group.members <= _MANY:
                shown += group.members
                fresh.add(group.id)
        opened |= fresh
        level = [group for group in groups if group.parent in fresh]
    return opened
