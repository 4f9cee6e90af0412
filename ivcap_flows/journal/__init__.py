"""The durable store: runs, intents and their outcomes, facts, and deliveries to sinks.

Of intents, `claims` decides who works on one, `intents` writes what its holder did, `decisions` what the user says,
each through `transitions`, which checks the fence and the arrow; `known_intents` only reads. Runs are written by `runs`
and read by `known_runs`.
"""

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
