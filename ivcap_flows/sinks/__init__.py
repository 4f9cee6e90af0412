"""Deliver the record of runs to outside systems: files, IVCAP aspects, Provena model runs, OpenLineage."""

from __future__ import annotations

from ivcap_flows.sinks.base import Delivery, Sink, shareable
from ivcap_flows.sinks.folder import FolderSink
from ivcap_flows.sinks.ivcap import LINK_SCHEMA, RUN_SCHEMA, IvcapSink, parts_by_run
from ivcap_flows.sinks.outbox import Drained, drain, run_graph, run_records

__all__ = [
    "LINK_SCHEMA",
    "RUN_SCHEMA",
    "Delivery",
    "Drained",
    "FolderSink",
    "IvcapSink",
    "Sink",
    "drain",
    "parts_by_run",
    "run_graph",
    "run_records",
    "shareable",
]
