"""A graph as a Mermaid flowchart: the picture as its page opens, with each folded group as one node.

Sites that draw Mermaid, such as GitHub, refuse more than 500 links.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Final

from ivcap_flows.plain_text import visible
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.picture import Item, Link, Picture, as_opened, kind_of, picture

__all__ = ["mermaid"]

_SHAPES: Final = {"activity": ('["', '"]'), "entity": ('(["', '"])'), "agent": ('{{"', '"}}')}
_STYLES: Final = {
    "activity": "fill:#e7effb,stroke:#6f8fc0,color:#1b2430",
    "entity": "fill:#fcf4da,stroke:#b5953c,color:#1b2430",
    "agent": "fill:#fae6d8,stroke:#c0804d,color:#1b2430",
    "bad": "stroke:#c33c06,stroke-width:3px",
    "open": "stroke:#6d5a00,stroke-width:2px,stroke-dasharray:5 3",
    "traced": "stroke:#3346c8,stroke-width:4px",
}
_BAD: Final = frozenset({"failed", "crashed"})
_UNENDED: Final = frozenset({"lost", "cancelled", "abandoned", "parked", "paused", "running"})


def mermaid(graph: Graph, starts: Collection[str] = ()) -> str:
    """Return the text of the flowchart. Names are quoted; characters that could mean something become numbers."""
    return "\n".join(_Writer(as_opened(picture(graph, starts))).lines()) + "\n"


class _Writer:
    def __init__(self, shown: Picture) -> None:
        self._shown = shown
        self._names = {id_: f"n{number}" for number, id_ in enumerate(shown.items)}
        self._members: dict[str | None, list[Item]] = defaultdict(list)
        for item in shown.items.values():
            self._members[item.parent].append(item)

    def lines(self) -> Iterator[str]:
        yield "flowchart TB"
        yield from self._group(None, "    ")
        for link in self._shown.links:
            yield f"    {self._names[link.origin]} {_arrow(link)} {self._names[link.result]}"
        classes: dict[str, list[str]] = defaultdict(list)
        for item in self._shown.items.values():
            for name in self._classes(item):
                classes[name].append(self._names[item.id])
        for name, style in _STYLES.items():
            if classes[name]:
                yield f"    classDef {name} {style}"
                yield f"    class {','.join(classes[name])} {name}"

    def _group(self, parent: str | None, indent: str) -> Iterator[str]:
        """Yield the lines of a group. There is no recursion, since calls may be nested deeply."""
        stack = [(indent, iter(self._members[parent]))]
        while stack:
            indent, left = stack[-1]
            item = next(left, None)
            if item is None:
                stack.pop()
                if stack:
                    yield f"{stack[-1][0]}end"
            elif self._members[item.id]:
                yield f'{indent}subgraph {self._names[item.id]}["{_label(item)}"]'
                stack.append((indent + "    ", iter(self._members[item.id])))
            else:
                opening, closing = _SHAPES[item.kind]
                yield f"{indent}{self._names[item.id]}{opening}{_label(item)}{closing}"

    def _classes(self, item: Item) -> Iterator[str]:
        if not self._members[item.id]:
            yield item.kind
        if item.outcome in _BAD:
            yield "bad"
        elif item.outcome in _UNENDED:
            yield "open"
        if item.id in self._shown.starts:
            yield "traced"


def _arrow(link: Link) -> str:
    return {"flow": "-->", "same": "-.-"}.get(kind_of(link.type), "-.->")


def _label(item: Item) -> str:
    ended = item.outcome if item.outcome != "completed" else None
    return "<br/>".join(_plain(text) for text in (item.title, item.note, ended) if text)


def _plain(text: str) -> str:
    # Mermaid breaks the line at a backslash followed by n, however they are written. A zero-width non-joiner between
    # them prevents that.
    joined = visible(" ".join(text.split())).replace("\\", "\\\u200c")
    return re.sub(r"[^\w \-·]|_", lambda found: f"#{ord(found[0])};", joined)
