"""A file or folder that already has what a task would write."""

from __future__ import annotations

import os
from pathlib import Path

from ivcap_flows.capture import note
from ivcap_flows.capture.context import current_activity
from ivcap_flows.capture.files import Digests, file_record, records_of, settle, snapshot
from ivcap_flows.durable import planning
from ivcap_flows.journal import Journal
from ivcap_flows.provenance.records import Record, relation

__all__ = ["state_there"]


def state_there(path: Path, journal: Journal, *of: Record) -> None:
    """Record that the running task used the file or folder: it is a result of an earlier run, and this one has met it.

    `of` is the thing whose content it has. If no run on record made the file, it counts as coming from that.
    """
    here = current_activity()
    if here is not None and planning() is None:
        records = _records(path, journal.files)
        note(*records, relation("used", here, records[0].id, role="path"), *of)


def _records(path: Path, digests: Digests) -> list[Record]:
    # The separator says that it may be a folder.
    seen = snapshot(os.path.join(path, ""), "", digests) if path.is_dir() else None
    if seen is None:
        return [file_record(path, digests)]
    settle(seen, digests)
    return records_of(seen)
