"""A graph as one page for a browser: drawing, script and style in one file that loads nothing from the network.

Its script lays the graph out, by the library Dagre. The page's own content security policy allows only its script and
its style, by their digests. Names that users gave are data: the script reads them as JSON and sets them as text, never
as markup.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any, Final

from ivcap_flows.plain_text import visible
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.picture import AMISS, OUTCOMES, Item, kind_of, picture
from ivcap_flows.provenance.records import Record
from ivcap_flows.provenance.rules import RULES, WORDS
from ivcap_flows.provenance.things import THINGS

__all__ = ["page"]

_SCRIPTS: Final = ("scene.js", "layout.js", "draw.js", "details.js", "legend.js", "page.js")
_PLAIN: Final = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
"""JSON escapes for the characters in which an HTML parser would see markup."""


def page(graph: Graph, starts: Collection[str] = (), *, title: str = "Provenance", first: Graph | None = None) -> str:
    """Return the page of a graph, in UTF-8. `starts` are the ids that were traced.

    If `first` is given, the page opens with that view of the graph, and a switch leads to all of it.

    Equal graphs have equal pages.
    """
    views = [_view(each, starts, title, graph.size) for each in (first, graph) if each is not None]
    style, script = _part("page.css"), _script()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_source(script)}'",
            f"style-src '{_source(style)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    parts = {
        "policy": policy,
        "title": escape(visible(title)),
        "style": style,
        "script": script,
        "data": json.dumps(visible(views), separators=(",", ":"), default=str).translate(_PLAIN),
    }
    head, *rest = _part("page.html").split("{{")
    return head + "".join(parts[name] + after for name, _, after in (piece.partition("}}") for piece in rest))


def _view(graph: Graph, starts: Collection[str], title: str, size: str) -> dict[str, Any]:
    shown = picture(graph, starts)
    number = {id_: index for index, id_ in enumerate(shown.items)}
    types = {name: index for index, name in enumerate(RULES)}
    return {
        "title": title,
        "size": size,
        "starts": [number[start] for start in shown.starts],
        "types": [{"words": [word.capitalize() for word in WORDS[name]], "kind": kind_of(name)} for name in RULES],
        "meanings": {name: thing.meaning for name, thing in THINGS.items()},
        "outcomes": OUTCOMES,
        "amiss": AMISS,
        "items": [_item(item, number) for item in shown.items.values()],
        "links": [[number[link.origin], number[link.result], types[link.type]] for link in shown.links],
        "relations": [
            [number[link.source or ""], number[link.target or ""], types[link.type], _role(link)]
            for link in shown.relations
            if link.source in number and link.target in number and link.type in types
        ],
    }


def _item(item: Item, number: dict[str, int]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "parent": number[item.parent] if item.parent is not None else None,
        "kind": item.kind,
        "type": item.type,
        "title": item.title,
        "note": item.note,
        "outcome": item.outcome,
        "within": item.within,
        "open": item.open,
        "stage": item.stage,
    }
    if item.record is not None:
        shown |= {
            "id": item.id,
            "attributes": item.record.attributes,
            "time": item.record.time,
            "ended": item.record.ended,
        }
    return shown


def _role(link: Record) -> str | None:
    role = link.attributes.get("role")
    words = ", ".join(map(str, role)) if isinstance(role, list) else role
    return f"{words}, not seen to be read" if link.attributes.get("basis") == "given" else words


def _source(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


@cache
def _part(name: str) -> str:
    return (files("ivcap_flows.provenance") / "page" / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    """Return the script: Dagre, under its licence, and the page's own files in a scope of their own."""
    library = _part("dagre.min.js.LEGAL.txt") + _part("dagre.min.js")
    return '"use strict";\n' + library + "\n{\n" + "\n".join(map(_part, _SCRIPTS)) + "}\n"
