"""Record Prefect runs in the journal: who ran which code on which inputs, and what the run made."""

from __future__ import annotations

from ivcap_flows.capture.annotations import annotate
from ivcap_flows.capture.context import (
    acting_as,
    asker,
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
    "asker",
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
