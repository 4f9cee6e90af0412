"""The lineage graph as prov-api answers it: a node-link form of networkx, with `links` or, by version, `edges`.

Every link points from effect to cause, so upstream is with the links and downstream against them.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from ivcap_flows.provena.wire import Wire

__all__ = ["Lineage", "Link", "Node"]


class Node(Wire):
    """An item in the graph: its id and what it is, but neither name nor time, which the registry tells."""

    id: str
    item_category: str | None = None
    item_subtype: str

    @property
    def subtype(self) -> str:
        """The registry's subtype. The node of a workflow template may bear an older name in the graph."""
        return "MODEL_RUN_WORKFLOW_TEMPLATE" if self.item_subtype == "WORKFLOW_TEMPLATE" else self.item_subtype


class Link(Wire):
    """A relation of W3C PROV, such as `used` or `wasGeneratedBy`. There is one link for a pair of nodes at most."""

    type: str
    source: str
    target: str


class Lineage(Wire):
    """What was found from an item. Without any link there are no nodes either, not even the item's own."""

    nodes: list[Node] = Field(default_factory=list)
    links: list[Link] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _either_key(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        links = value.get("links") or value.get("edges") or []
        return {"nodes": value.get("nodes") or [], "links": links}

    def of_subtype(self, subtype: str) -> list[Node]:
        """The nodes of a subtype of the registry, such as `"DATASET"`."""
        return [node for node in self.nodes if node.subtype == subtype]
