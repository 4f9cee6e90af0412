"""What a page of a graph begins with: data and what was ordered, without the tasks, code and people behind them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from ivcap_flows.provenance.constraints import leads
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record, relation
from ivcap_flows.provenance.rules import BEHIND
from ivcap_flows.provenance.things import CONTEXT

__all__ = ["SHOWN", "data_view", "first_view"]

SHOWN: Final = frozenset(
    {
        *("file", "directory", "url", "artifact", "order", "job", "model-run", "dataset", "dataset-file"),
        *("frame", "array", "unhashed", "collection", "aspect"),
    }
)
"""The types that are shown: data, and what was ordered or registered."""

_PASSED: Final = frozenset(
    {"used", "wasGeneratedBy", "wasDerivedFrom", "wasInformedBy", "wasInfluencedBy", "alternateOf"}
)
"""The relations along which something was passed on, from what came of it to its origin."""
_BETWEEN: Final = frozenset({"task-run", "call", "content"})
"""The types that lie between two that are shown."""
_STEP: Final = {
    ("entity", "entity"): "wasDerivedFrom",
    ("activity", "entity"): "used",
    ("activity", "activity"): "wasInformedBy",
}
"""What a way between two things is called, by their kinds; any other is an influence."""


def first_view(graph: Graph, starts: Collection[str] = ()) -> Graph | None:
    """Return the data of a graph; where these are related to nothing, the work; None if there is only the whole."""
    data = data_view(graph, starts)
    if data.relations:
        return data
    work = {id_: node for id_, node in graph.nodes.items() if id_ in starts or not _is_behind(node)}
    links = [
        link
        for link in graph.relations.values()
        if link.type not in BEHIND and {link.source, link.target} <= work.keys()
    ]
    return Graph.of(work, links) if links and len(work) < len(graph.nodes) else None


def _is_behind(node: Record) -> bool:
    return node.kind == "agent" or node.type in CONTEXT


def data_view(graph: Graph, starts: Collection[str] = ()) -> Graph:
    """Return the shown things, the relations between them, and a relation for each way that leads through others.

    `starts` are kept, whatever they are. A way that says no more than others do together is left out.
    """
    kept = {id_: node for id_, node in graph.nodes.items() if node.type in SHOWN or id_ in starts}
    steps = _steps(graph)
    links = [link for link in graph.relations.values() if link.source in kept and link.target in kept]
    direct: dict[str, set[str]] = defaultdict(set)
    for link in links:
        direct[link.source or ""].add(link.target or "")
    ways = {id_: [each for each in _origins(id_, steps, kept, graph) if each not in direct[id_]] for id_ in kept}
    whole = {id_: {*direct[id_], *ways[id_]} for id_ in kept}
    for id_, origins in ways.items():
        links += (
            relation(_name(kept[id_], kept[origin], graph), id_, origin)
            for origin in origins
            if not leads(whole, whole[id_] - {origin}, origin)
        )
    return Graph.of(kept, links)


def _name(thing: Record, origin: Record, graph: Graph) -> str:
    if origin.id == graph.equal_origin(thing.id):
        # Concluded, not seen.
        return "specializationOf"
    return _STEP.get((thing.kind, origin.kind), "wasInfluencedBy")


def _steps(graph: Graph) -> Mapping[str, list[str]]:
    """Return the next things on the way to the origins of each."""
    steps: dict[str, list[str]] = defaultdict(list)
    for link in graph.relations.values():
        if link.type in _PASSED:
            steps[link.source or ""].append(link.target or "")
    for id_ in graph.nodes:
        if origin := graph.equal_origin(id_):
            steps[id_].append(origin)
    return steps


def _origins(start: str, steps: Mapping[str, list[str]], kept: Mapping[str, Record], graph: Graph) -> Iterator[str]:
    """Yield the nearest shown origins of a thing."""
    queue, seen = list(steps.get(start, ())), {start}
    while queue:
        id_ = queue.pop()
        if id_ in seen or id_ not in graph.nodes:
            continue
        seen.add(id_)
        if id_ in kept:
            yield id_
        elif graph.nodes[id_].type in _BETWEEN:
            queue += steps.get(id_, ())
