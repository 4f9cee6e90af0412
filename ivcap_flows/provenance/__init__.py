"""W3C PROV without I/O: records, one table of rules, the graph and its exporters."""

from __future__ import annotations

from ivcap_flows.provenance.describe import describe, identify, reference
from ivcap_flows.provenance.graph import Direction, Graph
from ivcap_flows.provenance.records import Kind, Record, activity, agent, entity, relation, relation_id
from ivcap_flows.provenance.rules import RULES, faults, validate

__all__ = [
    "RULES",
    "Direction",
    "Graph",
    "Kind",
    "Record",
    "activity",
    "agent",
    "describe",
    "entity",
    "faults",
    "identify",
    "reference",
    "relation",
    "relation_id",
    "validate",
]
