"""The lineage graph as prov-api returns it: networkx's node-link form, with `links` or, in some versions, `edges`.

Every link points from effect to cause, so upstream follows the links and downstream goes against them.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from ivcap_flows.provena.wire import Wire

__all__ = ["Lineage", "Link", "Node"]


class Node(Wire):
    """An item in the graph: its id and subtype. The registry has its name and times."""

    id: str
    item_category: str | None = None
    item_subtype: str

    @property
    def subtype(self) -> str:
        """The registry's subtype. In the graph, the node of a workflow template may have an older name."""
        return "MODEL_RUN_WORKFLOW_TEMPLATE" if self.item_subtype == "WORKFLOW_TEMPLATE" else self.item_subtype


class Link(Wire):
    """A relation of W3C PROV, such as `used` or `wasGeneratedBy`. There is at most one link between two nodes."""

    type: str
    source: str
    target: str


class Lineage(Wire):
    """The graph found from an item. If it has no links, it has no nodes either, not even the item itself."""

    nodes: list[Node] = Field(default_factory=list)
    links: list[Link] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _either_key(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        links = value.get("links") or value.get("edges") or []
        return {"nodes": value.get("nodes") or [], "links": links}
