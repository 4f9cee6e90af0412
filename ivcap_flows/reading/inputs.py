"""The input files and folders of a run: each path that it read and did not write, with what was there."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePath

from ivcap_flows.identity import path_of
from ivcap_flows.provenance import Graph, Record
from ivcap_flows.reading.verification import LOCAL

__all__ = ["Input", "inputs_of"]


@dataclass(frozen=True)
class Input:
    """A file or folder that a run read. It has several digests if it was changed between two attempts."""

    path: str
    digests: frozenset[str]


def inputs_of(graph: Graph) -> list[Input]:
    """Return the files and folders that a run read, without those that it wrote, before or after.

    A folder that the run put something into, and a file in a folder that the run made, are not inputs.
    """
    links = graph.relations.values()
    read = _paths(graph, {link.target for link in links if link.type == "used"})
    written = _paths(graph, {link.source for link in links if link.type == "wasGeneratedBy"}).keys()
    new = written - read.keys()
    changed = {str(folder) for path in written for folder in PurePath(path).parents}
    inputs = []
    for path, versions in read.items():
        made = path in written or any(str(folder) in new for folder in PurePath(path).parents)
        digests = {_digest(version) for version in versions if version.type == "file" or path not in changed} - {None}
        if digests and not made:
            inputs.append(Input(path, frozenset(map(str, digests))))
    return inputs


def _paths(graph: Graph, ids: set[str | None]) -> dict[str, list[Record]]:
    """Return the files and folders among these, by path."""
    found: dict[str, list[Record]] = defaultdict(list)
    for node in graph.nodes.values():
        if node.id in ids and node.type in LOCAL and isinstance(node.attributes.get("path"), str):
            found[path_of(node.attributes["path"])].append(node)
    return found


def _digest(version: Record) -> str | None:
    digest = version.attributes.get("sha256" if version.type == "file" else "manifest_sha256")
    return digest if isinstance(digest, str) else None
