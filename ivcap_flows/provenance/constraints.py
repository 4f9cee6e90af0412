"""Cycles that cannot be (W3C PROV-CONSTRAINTS, 2013): a thing that is its own origin, or that began within itself.

`ordering` checks the order of instants. If none of the instants is known, a cycle in time can still be found as one of
derivations and specializations, or as one of starts. `rules` has the other constraints that apply to our records: which
things a relation may join, and that some things are made only once. The id of a relation is computed from its ends, so
no generation or usage of one entity by one activity is recorded twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from ivcap_flows.provenance.records import Record

__all__ = ["closing", "cycles", "leads"]

_ORDERS: Final = (frozenset({"wasDerivedFrom", "specializationOf"}), frozenset({"wasStartedBy"}))

Arrows = Mapping[str, Collection[str]]
"""The things to which each leads."""


def cycles(relations: Iterable[Record]) -> list[str]:
    """Return one sentence for each order in time that leads back to where it began."""
    # A relation of a thing to itself is another fault.
    links = [link for link in relations if link.source != link.target]
    found = []
    for order in _ORDERS:
        caught = _caught(_arrows(link for link in links if link.type in order))
        if caught:
            found.append(f"A cycle of {' and '.join(sorted(order))} leads to {', '.join(sorted(caught)[:5])}.")
    return found


def closing(relations: Iterable[Record]) -> list[str]:
    """Return the ids of the derivations that lead back in time: of each cycle, the one that was recorded later.

    A file that is changed and changed back has one name for its first and its last content, and it cannot be its own
    origin.
    """
    order, _ = _ORDERS
    links = [link for link in relations if link.type in order and link.source != link.target]
    if not _caught(_arrows(links)):
        return []
    kept: dict[str, list[str]] = defaultdict(list)
    for link in links:
        if link.type != "wasDerivedFrom":
            kept[link.source or ""].append(link.target or "")
    dropped = []
    for link in links:
        if link.type == "wasDerivedFrom":
            if leads(kept, [link.target or ""], link.source or ""):
                dropped.append(link.id)
            else:
                kept[link.source or ""].append(link.target or "")
    return dropped


def _arrows(links: Iterable[Record]) -> Arrows:
    arrows: dict[str, list[str]] = defaultdict(list)
    for link in links:
        arrows[link.source or ""].append(link.target or "")
    return arrows


def _caught(arrows: Arrows) -> set[str]:
    """Return the members of cycles and what leads there: the rest when everything that leads to an end is removed."""
    into: dict[str, list[str]] = defaultdict(list)
    left: dict[str, int] = {}
    for source, targets in arrows.items():
        ends = set(targets)
        left[source] = len(ends)
        for target in ends:
            into[target].append(source)
    free = [target for target in into if target not in left]
    while free:
        for source in into.pop(free.pop(), ()):
            left[source] -= 1
            if left[source] == 0:
                del left[source]
                free.append(source)
    return set(left)


def leads(arrows: Arrows, starts: Collection[str], goal: str) -> bool:
    """Whether one of the things is the goal, or leads to it."""
    reached, queue = {*starts}, [*starts]
    while queue and goal not in reached:
        fresh = {*arrows.get(queue.pop(), ())} - reached
        reached |= fresh
        queue += fresh
    return goal in reached
