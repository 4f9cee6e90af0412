"""The page that `ivcap-flows trace --html` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ivcap_flows.cli.output import console
from ivcap_flows.errors import InputError
from ivcap_flows.provenance import Direction
from ivcap_flows.provenance.data_view import data_view
from ivcap_flows.provenance.html import page
from ivcap_flows.provenance.labels import title
from ivcap_flows.reading import Lineage

__all__ = ["write_page"]

_TITLES: Final = {"up": "Lineage of {}", "down": "What came from {}", "both": "What is connected with {}"}


def write_page(path: Path, found: Lineage, direction: Direction) -> None:
    """Write the page of a lineage and print how much it shows. Raise InputError if the file cannot be written."""
    first, *others = [title(found.graph.nodes[start]) for start in found.starts]
    named = f"{first} and {len(others)} more" if others else first
    data = data_view(found.graph, found.starts)
    # Of code, people and what nothing came of, there is only the whole.
    view = data if data.relations else None
    text = page(found.graph, found.starts, title=_TITLES[direction].format(named), first=view)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"The file {path} cannot be written: {error.strerror or error}.") from error
    console.print(f"{path}: {len(found.graph.nodes)} things, {len(found.graph.relations)} relations")
    for trouble in found.unasked:
        console.print(trouble, style="red")
