"""W3C PROV without I/O: records, one table of rules, the graph and its exporters."""

from __future__ import annotations

from ivcap_flows.provenance.records import Kind, Record, activity, agent, entity, relation, relation_id

__all__ = ["Kind", "Record", "activity", "agent", "entity", "relation", "relation_id"]
