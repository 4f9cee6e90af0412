"""From a Prefect run to facts in the journal: who ran what code on which inputs, and what came of it."""

from __future__ import annotations

from ivcap_flows.capture.annotations import annotate
from ivcap_flows.capture.context import (
    acting_as,
    attempt_at_hand,
    current_attempt,
    found,
    journal,
    note,
    recorder,
    use_journal,
)
from ivcap_flows.capture.decorator import recorded
from ivcap_flows.capture.remember import aonce, once
from ivcap_flows.secrets import hide

__all__ = [
    "acting_as",
    "annotate",
    "aonce",
    "attempt_at_hand",
    "current_attempt",
    "found",
    "hide",
    "journal",
    "note",
    "once",
    "recorded",
    "recorder",
    "use_journal",
]
