"""The lineage graph: what each activity wrote into it, and what is upstream and downstream of an item.

A node or link belongs to every record (activity) that wrote it. Between two nodes one link is shown, and of a node one
subtype: the last that was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ivcap_flows.local.provena.prov.document import Lineage, Node, Relation
from ivcap_flows.local.provena.store import Store

__all__ = ["Graph", "contributing", "downstream", "effected_agents", "effected_datasets", "shown", "upstream"]

Ends = Callable[[Node], bool]


class Graph:
    """The graph in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, record_id: str, lineage: Lineage) -> None:
        """Make this all that a record says."""
        self.remove(record_id)
        for node in lineage.nodes:
            self._store.run(
                "INSERT OR REPLACE INTO graph_nodes VALUES (?, ?, ?, ?)",
                record_id,
                node.id,
                node.category,
                node.subtype,
            )
        for link in lineage.relations:
            self._store.run(
                "INSERT OR REPLACE INTO graph_links VALUES (?, ?, ?, ?)", record_id, link.source, link.type, link.target
            )

    def remove(self, record_id: str) -> None:
        """Take out what a record says."""
        self._store.run("DELETE FROM graph_links WHERE record_id=?", record_id)
        self._store.run("DELETE FROM graph_nodes WHERE record_id=?", record_id)

    def clear(self) -> None:
        """Take out everything."""
        self._store.run("DELETE FROM graph_links")
        self._store.run("DELETE FROM graph_nodes")

    def removal(self, record_id: str) -> list[dict[str, Any]]:
        """What `remove` would do, in the words of a diff."""
        actions: list[dict[str, Any]] = []
        for row in self._store.rows("SELECT * FROM graph_links WHERE record_id=?", record_id):
            ends = {"source": row["source"], "target": row["target"], "type": row["type"]}
            shared = self._store.row(
                "SELECT 1 FROM graph_links WHERE source=? AND target=? AND record_id<>?",
                *(row["source"], row["target"], record_id),
            )
            kind = "REMOVE_RECORD_ID_FROM_LINK" if shared else "REMOVE_LINK"
            actions.append({"action_type": kind, "link": ends, "record_id": record_id})
        for row in self._store.rows("SELECT * FROM graph_nodes WHERE record_id=?", record_id):
            shared = self._store.row("SELECT 1 FROM graph_nodes WHERE id=? AND record_id<>?", row["id"], record_id)
            kind = "REMOVE_RECORD_ID_FROM_NODE" if shared else "REMOVE_NODE"
            actions.append({"action_type": kind, "node_id": row["id"], "record_id": record_id})
        return actions

    def node(self, id: str) -> Node | None:  # noqa: A002 - the wire's own word
        """A node as it was last written."""
        row = self._store.row("SELECT * FROM graph_nodes WHERE id=? ORDER BY rowid DESC LIMIT 1", id)
        return Node(row["id"], row["item_category"], row["item_subtype"]) if row else None

    def causes(self, id: str) -> list[Relation]:  # noqa: A002
        """The links that leave a node."""
        return self._links("source", id)

    def effects(self, id: str) -> list[Relation]:  # noqa: A002
        """The links that arrive at a node."""
        return self._links("target", id)

    def _links(self, end: str, id: str) -> list[Relation]:  # noqa: A002
        rows = self._store.rows(f"SELECT * FROM graph_links WHERE {end}=? ORDER BY rowid", id)  # noqa: S608
        last = {(row["source"], row["target"]): Relation(row["source"], row["type"], row["target"]) for row in rows}
        return list(last.values())


def upstream(graph: Graph, start: str, depth: int) -> set[Relation]:
    """Every link that leads from the start towards causes within `depth` steps."""
    return _walk(graph.causes, lambda link: link.target, start, depth)[0]


def downstream(graph: Graph, start: str, depth: int) -> set[Relation]:
    """Every link that leads from the start towards effects within `depth` steps."""
    return _walk(graph.effects, lambda link: link.source, start, depth)[0]


def contributing(graph: Graph, start: str, depth: int, ends: Ends) -> set[Relation]:
    """The links of all upstream paths that end at such a node."""
    links, distance = _walk(graph.causes, lambda link: link.target, start, depth)
    return _on_paths(graph, links, distance, depth, ends, lambda link: (link.source, link.target))


def effected_datasets(graph: Graph, start: str, depth: int) -> set[Relation]:
    """The links of all downstream paths from a dataset to a dataset."""
    first = graph.node(start)
    if first is None or first.subtype != "DATASET":
        return set()
    links, distance = _walk(graph.effects, lambda link: link.source, start, depth)
    is_dataset: Ends = lambda node: node.subtype == "DATASET"  # noqa: E731
    return _on_paths(graph, links, distance, depth, is_dataset, lambda link: (link.target, link.source))


def effected_agents(graph: Graph, start: str, depth: int) -> set[Relation]:
    """The links to agents of all nodes downstream, the start included, and of the paths to those nodes."""
    links, distance = _walk(graph.effects, lambda link: link.source, start, depth)
    to_agents = {
        node: [link for link in graph.causes(node) if (end := graph.node(link.target)) and end.category == "AGENT"]
        for node in distance
    }
    has_agent: Ends = lambda node: bool(to_agents.get(node.id))  # noqa: E731
    paths = _on_paths(graph, links, distance, depth, has_agent, lambda link: (link.target, link.source))
    return paths | {link for found in to_agents.values() for link in found}


def shown(graph: Graph, links: Iterable[Relation]) -> dict[str, Any]:
    """Links and their nodes in the node-link form of networkx."""
    links = list(links)
    ends = dict.fromkeys(end for link in links for end in (link.source, link.target))
    nodes = [node for end in ends if (node := graph.node(end)) is not None]
    return {
        "directed": True,
        "multigraph": False,
        "graph": {},
        "nodes": [node.shown for node in nodes],
        "links": [{"type": link.type, "source": link.source, "target": link.target} for link in links],
    }


def _walk(
    step: Callable[[str], list[Relation]], far: Callable[[Relation], str], start: str, depth: int
) -> tuple[set[Relation], dict[str, int]]:
    """The links within `depth` steps of the start, and how many steps each node is away."""
    links: set[Relation] = set()
    distance = {start: 0}
    edge = [start]
    for away in range(1, depth + 1):
        found = [link for node in edge for link in step(node)]
        links.update(found)
        edge = [node for node in dict.fromkeys(map(far, found)) if node not in distance]
        distance.update(dict.fromkeys(edge, away))
    return links, distance


def _on_paths(
    graph: Graph,
    links: set[Relation],
    distance: dict[str, int],
    depth: int,
    ends: Ends,
    ways: Callable[[Relation], tuple[str, str]],
) -> set[Relation]:
    """The links that lie on a way from the start to such an end, of at most `depth` steps."""
    steps = [(link, *ways(link)) for link in links]
    remaining = {end: 0 for end in distance if (node := graph.node(end)) is not None and ends(node)}
    for left in range(1, depth + 1):
        for _, near, far in steps:
            if remaining.get(far) == left - 1:
                remaining.setdefault(near, left)
    return {link for link, near, far in steps if far in remaining and distance[near] + 1 + remaining[far] <= depth}
