"""A file that already has what a task would write."""

from __future__ import annotations

from pathlib import Path

from ivcap_flows.capture import note
from ivcap_flows.capture.context import current_activity
from ivcap_flows.capture.files import file_record
from ivcap_flows.durable import planning
from ivcap_flows.journal import Journal
from ivcap_flows.provenance.records import Record, relation

__all__ = ["state_there"]


def state_there(path: Path, journal: Journal, *of: Record) -> None:
    """Record that the running task used the file: it is a result of an earlier run, and this one has met it.

    `of` is the thing whose content it has. If no run on record made the file, it counts as coming from that.
    """
    here = current_activity()
    if here is not None and planning() is None:
        record = file_record(path, journal.files)
        note(record, relation("used", here, record.id, role="path"), *of)
