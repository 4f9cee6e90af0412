"""The durable store: runs, intents and their outcomes, facts, and deliveries to sinks."""

from __future__ import annotations

from ivcap_flows.journal.journal import Journal
from ivcap_flows.journal.rows import (
    AttemptRow,
    Claim,
    Cursor,
    DeliveryRow,
    DeliveryState,
    Fact,
    IntentRow,
    NewIntent,
    OpenedAttempt,
    Outcome,
    ProcessRow,
    RunIdentity,
    RunRow,
)
from ivcap_flows.journal.states import State

__all__ = [
    "AttemptRow",
    "Claim",
    "Cursor",
    "DeliveryRow",
    "DeliveryState",
    "Fact",
    "IntentRow",
    "Journal",
    "NewIntent",
    "OpenedAttempt",
    "Outcome",
    "ProcessRow",
    "RunIdentity",
    "RunRow",
    "State",
]
