"""The lineage graph: the nodes and links of each activity, and queries for what is upstream and downstream of an item.

A node or link belongs to every record (activity) that wrote it, which may be very many: every run of a workflow
template writes the template's members. Only one link between two nodes, and one subtype of a node, is shown: the one
written last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from ivcap_flows.local.provena.prov.document import Lineage, Node, Relation
from ivcap_flows.local.provena.store import Store, dumps

__all__ = [
    "MOST_LINKS",
    "Graph",
    "TooLargeError",
    "contributing",
    "downstream",
    "effected_agents",
    "effected_datasets",
    "shown",
    "upstream",
]

Ends = Callable[[Node], bool]

MOST_LINKS: Final = 60_000
"""Maximum links of a reply: with more it would exceed the 6 MB that a Lambda function can return."""


class TooLargeError(Exception):
    """A query's reply would have more than MOST_LINKS links."""


class Graph:
    """The graph in the store: the nodes and links of each record, and, for queries, each node and edge once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, record_id: str, lineage: Lineage) -> None:
        """Replace everything that a record wrote."""
        self.remove(record_id)
        run = self._store.run
        for node in lineage.nodes:
            said = (node.id, node.category, node.subtype)
            run("INSERT OR REPLACE INTO graph_nodes VALUES (?, ?, ?, ?)", record_id, *said)
            run("INSERT OR REPLACE INTO graph_items VALUES (?, ?, ?)", *said)
        for link in lineage.relations:
            row = (record_id, link.source, link.type, link.target)
            run("INSERT OR REPLACE INTO graph_links VALUES (?, ?, ?, ?)", *row)
            run("INSERT OR REPLACE INTO graph_edges VALUES (?, ?, ?)", link.source, link.target, link.type)

    def remove(self, record_id: str) -> None:
        """Remove what a record wrote. Nodes and links that other records wrote too stay, as those wrote them."""
        rows, row, run = self._store.rows, self._store.row, self._store.run
        nodes = rows("SELECT id FROM graph_nodes WHERE record_id=?", record_id)
        links = rows("SELECT source, target FROM graph_links WHERE record_id=?", record_id)
        run("DELETE FROM graph_links WHERE record_id=?", record_id)
        run("DELETE FROM graph_nodes WHERE record_id=?", record_id)
        for link in links:
            ends = (link["source"], link["target"])
            run("DELETE FROM graph_edges WHERE source=? AND target=?", *ends)
            left = row("SELECT type FROM graph_links WHERE source=? AND target=? ORDER BY rowid DESC LIMIT 1", *ends)
            if left:
                run("INSERT INTO graph_edges VALUES (?, ?, ?)", *ends, left["type"])
        for node in nodes:
            run("DELETE FROM graph_items WHERE id=?", node["id"])
            left = row("SELECT * FROM graph_nodes WHERE id=? ORDER BY rowid DESC LIMIT 1", node["id"])
            if left:
                run("INSERT INTO graph_items VALUES (?, ?, ?)", node["id"], left["item_category"], left["item_subtype"])

    def clear(self) -> None:
        """Remove everything."""
        for table in ("graph_links", "graph_nodes", "graph_edges", "graph_items"):
            self._store.run(f"DELETE FROM {table}")  # noqa: S608 - the names are above

    def removal(self, record_id: str) -> list[dict[str, Any]]:
        """Return what `remove` would do, as the actions of a diff."""
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

    def nodes(self, ids: Iterable[str]) -> dict[str, Node]:
        """Return the nodes with these ids, as they were last written."""
        rows = self._store.rows(
            "SELECT graph_items.* FROM json_each(?) JOIN graph_items ON graph_items.id = value", dumps(list(ids))
        )
        return {row["id"]: Node(row["id"], row["item_category"], row["item_subtype"]) for row in rows}

    def causes(self, ids: Iterable[str]) -> list[Relation]:
        """Return the links that leave these nodes. Raises TooLargeError."""
        return self._links("source", ids)

    def effects(self, ids: Iterable[str]) -> list[Relation]:
        """Return the links that arrive at these nodes. Raises TooLargeError."""
        return self._links("target", ids)

    def _links(self, end: str, ids: Iterable[str]) -> list[Relation]:
        rows = self._store.rows(
            "SELECT graph_edges.* FROM json_each(?)"  # noqa: S608 - source or target
            f" CROSS JOIN graph_edges ON graph_edges.{end} = value LIMIT ?",
            *(dumps(list(ids)), MOST_LINKS + 1),
        )
        if len(rows) > MOST_LINKS:
            raise TooLargeError
        return [Relation(row["source"], row["type"], row["target"]) for row in rows]


def upstream(graph: Graph, start: str, depth: int) -> set[Relation]:
    """Return every link from the start towards causes within `depth` steps."""
    return _walk(graph.causes, lambda link: link.target, start, depth)[0]


def downstream(graph: Graph, start: str, depth: int) -> set[Relation]:
    """Return every link from the start towards effects within `depth` steps."""
    return _walk(graph.effects, lambda link: link.source, start, depth)[0]


def contributing(graph: Graph, start: str, depth: int, ends: Ends) -> set[Relation]:
    """Return the links of all upstream paths that end at a node for which `ends` is true."""
    links, distance = _walk(graph.causes, lambda link: link.target, start, depth)
    return _on_paths(graph, links, distance, depth, ends, lambda link: (link.source, link.target))


def effected_datasets(graph: Graph, start: str, depth: int) -> set[Relation]:
    """Return the links of all downstream paths from a dataset to a dataset."""
    first = graph.nodes([start]).get(start)
    if first is None or first.subtype != "DATASET":
        return set()
    links, distance = _walk(graph.effects, lambda link: link.source, start, depth)
    is_dataset: Ends = lambda node: node.subtype == "DATASET"  # noqa: E731
    return _on_paths(graph, links, distance, depth, is_dataset, lambda link: (link.target, link.source))


def effected_agents(graph: Graph, start: str, depth: int) -> set[Relation]:
    """Return the links to agents of all downstream nodes, including the start, and of the paths to those nodes."""
    links, distance = _walk(graph.effects, lambda link: link.source, start, depth)
    causes = graph.causes(distance)
    agents = {name for name, node in graph.nodes({link.target for link in causes}).items() if node.category == "AGENT"}
    to_agents = {link for link in causes if link.target in agents}
    having = {link.source for link in to_agents}
    has_agent: Ends = lambda node: node.id in having  # noqa: E731
    paths = _on_paths(graph, links, distance, depth, has_agent, lambda link: (link.target, link.source))
    return paths | to_agents


def shown(graph: Graph, links: Iterable[Relation]) -> dict[str, Any]:
    """Return links and their nodes in the node-link form of networkx."""
    links = list(links)
    ends = dict.fromkeys(end for link in links for end in (link.source, link.target))
    nodes = graph.nodes(ends)
    return {
        "directed": True,
        "multigraph": False,
        "graph": {},
        "nodes": [nodes[end].shown for end in ends if end in nodes],
        "links": [{"type": link.type, "source": link.source, "target": link.target} for link in links],
    }


def _walk(
    step: Callable[[Iterable[str]], list[Relation]], far: Callable[[Relation], str], start: str, depth: int
) -> tuple[set[Relation], dict[str, int]]:
    """Return the links within `depth` steps of the start, and each node's distance. Raises TooLargeError."""
    links: set[Relation] = set()
    distance = {start: 0}
    edge = [start]
    for away in range(1, depth + 1):
        found = step(edge)
        links.update(found)
        if len(links) > MOST_LINKS:
            raise TooLargeError
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
    """Return the links on paths of at most `depth` steps from the start to a node for which `ends` is true."""
    steps = [(link, *ways(link)) for link in links]
    remaining = {name: 0 for name, node in graph.nodes(distance).items() if ends(node)}
    for left in range(1, depth + 1):
        for _, near, far in steps:
            if remaining.get(far) == left - 1:
                remaining.setdefault(near, left)
    return {link for link, near, far in steps if far in remaining and distance[near] + 1 + remaining[far] <= depth}
