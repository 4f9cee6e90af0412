"""A graph in the language of Graphviz: the whole graph, with each group as a cluster around its activity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Final

from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.picture import Item, Link, Picture, kind_of, picture

__all__ = ["dot"]

_FORMS: Final = {
    "activity": 'shape=box fillcolor="#e7effb" color="#6f8fc0"',
    "entity": 'shape=box style="filled,rounded" fillcolor="#fcf4da" color="#b5953c"',
    "agent": 'shape=hexagon fillcolor="#fae6d8" color="#c0804d"',
}
_ENDS: Final = {
    "failed": 'color="#c33c06" penwidth=2.5',
    "crashed": 'color="#9c1458" penwidth=2.5',
    "lost": 'color="#4d5663" penwidth=2 style="filled,dashed"',
    "abandoned": 'color="#5d4037" penwidth=2 style="filled,dashed"',
    "cancelled": 'color="#6d5a00" penwidth=2',
    "parked": 'color="#1f5fb4" penwidth=2',
    "running": 'color="#0b6f8a" penwidth=2 style="filled,dotted"',
}


def dot(graph: Graph, starts: Collection[str] = ()) -> str:
    """Return the text of the graph, for `dot -Tsvg` and the like."""
    return "\n".join(_lines(picture(graph, starts))) + "\n"


def _lines(shown: Picture) -> Iterator[str]:
    names = {id_: f"n{number}" for number, id_ in enumerate(shown.items)}
    members: dict[str | None, list[Item]] = defaultdict(list)
    for item in shown.items.values():
        members[item.parent].append(item)
    yield "digraph provenance {"
    yield '  graph [charset="UTF-8" fontname="Helvetica" color="#b9c4d2" labeljust=l]'
    yield '  node [fontname="Helvetica" fontsize=11 style=filled]'
    yield '  edge [color="#7b8695" arrowsize=0.7]'
    stack = [("  ", iter(members[None]))]
    while stack:
        indent, left = stack[-1]
        inner = next(left, None)
        if inner is None:
            stack.pop()
            if stack:
                yield f"{stack[-1][0]}}}"
            continue
        attributes = f"label={_quoted(inner)} {_FORMS[inner.kind]} {_ENDS.get(inner.outcome or '', '')}".rstrip()
        if inner.id in shown.starts:
            attributes += ' color="#3346c8" penwidth=3'
        if members[inner.id]:
            yield f"{indent}subgraph cluster_{names[inner.id]} {{"
            indent += "  "
            # A group of similar things is not a thing itself, so no link leads to it.
            yield f"{indent}label={_quoted(inner)}" if inner.record is None else f'{indent}label=""'
            stack.append((indent, iter(members[inner.id])))
        if inner.record is not None:
            yield f"{indent}{names[inner.id]} [{attributes}]"
    for link in shown.links:
        yield f"  {names[link.origin]} -> {names[link.result]}{_style(link)}"
    yield "}"


def _style(link: Link) -> str:
    return {"flow": "", "same": " [style=dotted dir=none]"}.get(kind_of(link.type), " [style=dashed]")


def _quoted(item: Item) -> str:
    ended = item.outcome if item.outcome != "completed" else None
    return '"' + "\\n".join(_plain(text) for text in (item.title, item.note, ended) if text) + '"'


def _plain(text: str) -> str:
    """Escape a text for a label: Graphviz reads escapes and HTML entities there, and no other markup within quotes."""
    shown = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return shown.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
