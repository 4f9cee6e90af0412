"""Record Prefect runs in the journal: who ran which code on which inputs, and what the run made."""

from __future__ import annotations

from ivcap_flows.capture.annotations import annotate
from ivcap_flows.capture.context import (
    acting_as,
    attempt_at_hand,
    current_attempt,
    journal,
    mark_existing,
    note,
    recorder,
    tries_around,
    use_journal,
)
from ivcap_flows.capture.decorator import recorded
from ivcap_flows.capture.once_per_run import aonce, once
from ivcap_flows.secrets import hide

__all__ = [
    "acting_as",
    "annotate",
    "aonce",
    "attempt_at_hand",
    "current_attempt",
    "hide",
    "journal",
    "mark_existing",
    "note",
    "once",
    "recorded",
    "recorder",
    "tries_around",
    "use_journal",
]
