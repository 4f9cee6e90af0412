"""Logical runs, and effects that happen once: they survive lost replies and killed processes."""

from __future__ import annotations

from ivcap_flows.durable.divergence import aonce, once
from ivcap_flows.durable.effects import (
    Caller,
    Effect,
    Found,
    Limit,
    MatchedBy,
    Performed,
    RecordStore,
    Resume,
    Reusable,
)
from ivcap_flows.durable.perform import perform, requested_before
from ivcap_flows.durable.plan import Plan, Planned, plan, planning
from ivcap_flows.durable.platform_time import look_since
from ivcap_flows.durable.runs import LogicalRun

__all__ = [
    "Caller",
    "Effect",
    "Found",
    "Limit",
    "LogicalRun",
    "MatchedBy",
    "Performed",
    "Plan",
    "Planned",
    "RecordStore",
    "Resume",
    "Reusable",
    "aonce",
    "look_since",
    "once",
    "perform",
    "plan",
    "planning",
    "requested_before",
]
