"""`ivcap-flows trace ID`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from rich.tree import Tree

from ivcap_flows.capture.files import sha256_of
from ivcap_flows.cli.output import Json, console, emit, moment
from ivcap_flows.cli.records import around, existing_file, open_journal
from ivcap_flows.errors import InputError
from ivcap_flows.identity import file_urn
from ivcap_flows.provenance import RULES, Direction, Graph, Record

__all__ = ["trace"]


def trace(
    id: str,  # noqa: A002 - the platforms' own word
    /,
    *,
    up: Annotated[bool, Parameter(negative=())] = False,
    down: Annotated[bool, Parameter(negative=())] = False,
    as_json: Json = False,
) -> None:
    """Show what a thing came from (`--up`, the default) or what came from it (`--down`), through all runs on record.

    Args:
        id: A URN, a Provena handle, or the path of a local file, which is known by its content.
        up: Towards its origins.
        down: Towards what was made from it.
    """
    if up and down:
        raise InputError("A trace goes up or down; give one of --up and --down.")
    direction: Direction = "down" if down else "up"
    path = existing_file(id)
    with open_journal() as journal:
        start = file_urn(sha256_of(path, journal.files)) if path else id
        lineage = around(journal, start).lineage(start, direction)
    if as_json:
        emit([record.model_dump(mode="json", exclude_none=True) for record in lineage])
        return
    tree = Tree(_label(lineage.nodes[start]))
    _grow(tree, start, lineage, direction, {start})
    console.print(tree)


def _grow(branch: Tree, node: str, graph: Graph, direction: Direction, seen: set[str]) -> None:
    for link in graph.relations.values():
        if link.type not in RULES:
            continue
        forwards = link.source == node
        if not forwards and link.target != node:
            continue
        if not RULES[link.type].same and forwards != (direction == "up"):
            continue
        other = (link.target if forwards else link.source) or ""
        if other not in graph.nodes or other in seen:
            continue
        seen.add(other)
        word = link.type if forwards or RULES[link.type].same else f"{link.type} (of)"
        leaf = branch.add(f"[dim]{word}[/dim] {_label(graph.nodes[other])}")
        _grow(leaf, other, graph, direction, seen)


def _label(record: Record) -> str:
    said = record.attributes
    name = said.get("name") or said.get("path") or said.get("service_name")
    facts = [
        str(name) if name else "",
        f"commit {str(said['commit'])[:12]}" if said.get("commit") else "",
        f"sha256 {str(said['sha256'])[:12]}" if said.get("sha256") else "",
        str(said.get("outcome") or said.get("status") or ""),
        moment(record.time) if record.kind == "activity" else "",
        "uncommitted changes" if said.get("dirty") else "",
    ]
    return f"[bold]{record.type}[/bold] {record.id}  " + "  ".join(fact for fact in facts if fact)
