"""Deliver the record of runs to outside systems: files, IVCAP aspects, Provena model runs, OpenLineage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ivcap_flows.sinks.base import Delivery, Sink, shareable
from ivcap_flows.sinks.folder import FolderSink
from ivcap_flows.sinks.ivcap import LINK_SCHEMA, RUN_SCHEMA, IvcapSink, parts_by_run
from ivcap_flows.sinks.outbox import Drained, drain, run_graph, run_records

if TYPE_CHECKING:
    from ivcap_flows.sinks.provena import ProvenaSink

__all__ = [
    "LINK_SCHEMA",
    "RUN_SCHEMA",
    "Delivery",
    "Drained",
    "FolderSink",
    "IvcapSink",
    "ProvenaSink",
    "Sink",
    "drain",
    "parts_by_run",
    "run_graph",
    "run_records",
    "shareable",
]


def __getattr__(name: str) -> Any:
    # Import Provena's client only when it is needed: commands that only read the record start faster.
    if name == "ProvenaSink":
        from ivcap_flows.sinks.provena import ProvenaSink

        return ProvenaSink
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
