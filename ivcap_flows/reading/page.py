"""The page of a lineage."""

from __future__ import annotations

from typing import Final

from ivcap_flows.provenance import Direction
from ivcap_flows.provenance.data_view import first_view
from ivcap_flows.provenance.html import page
from ivcap_flows.provenance.labels import title
from ivcap_flows.reading.lineage import Lineage

__all__ = ["page_of", "title_of"]

_TITLES: Final = {"up": "Lineage of {}", "down": "What came from {}", "both": "What is connected with {}"}


def title_of(found: Lineage, direction: Direction) -> str:
    """Return what a lineage is of, in words."""
    first, *others = [title(found.graph.nodes[start]) for start in found.starts]
    return _TITLES[direction].format(f"{first} and {len(others)} more" if others else first)


def page_of(found: Lineage, direction: Direction) -> str:
    """Return an HTML page of a lineage: data and what was ordered at first, who and how by a button."""
    first = first_view(found.graph, found.starts)
    return page(found.graph, found.starts, title=title_of(found, direction), first=first)
