"""The record of runs in outside systems: files, IVCAP aspects, Provena model runs."""

from __future__ import annotations

from ivcap_flows.sinks.base import Delivery, Sink, shareable
from ivcap_flows.sinks.ivcap import RUN_SCHEMA, IvcapSink
from ivcap_flows.sinks.mapping import ModelRunMapping
from ivcap_flows.sinks.outbox import Drained, drain, run_graph, run_records
from ivcap_flows.sinks.prov_json import ProvJsonSink
from ivcap_flows.sinks.provena import ProvenaSink

__all__ = [
    "RUN_SCHEMA",
    "Delivery",
    "Drained",
    "IvcapSink",
    "ModelRunMapping",
    "ProvJsonSink",
    "ProvenaSink",
    "Sink",
    "drain",
    "run_graph",
    "run_records",
    "shareable",
]
