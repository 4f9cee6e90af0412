"""The parts of a run: several machines, each with its own journal, may continue one run. Each records what it saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Final

from ivcap_flows.provenance import Record

__all__ = ["merged", "newest_run_states"]

_UNKNOWN: Final = datetime.min.replace(tzinfo=timezone.utc)


def merged(parts: Iterable[Sequence[Record]]) -> list[Record]:
    """Return the records of one run's parts. The part with the newest attempt comes last: it knows the run's state."""
    in_order = sorted(parts, key=lambda part: max(_newest_attempts(part).values(), default=_UNKNOWN))
    return [record for part in in_order for record in part]


def newest_run_states(there: Sequence[Record], here: Sequence[Record]) -> list[Record]:
    """Return the records in `there` of the runs whose newest attempt only `there` knows."""
    runs = [record for record in there if record.type == "flow-run"]
    if not runs:
        return []
    newest, known = _newest_attempts(there), _newest_attempts(here)
    return [run for run in runs if run.id in newest and run.id in known and newest[run.id] > known[run.id]]


def _newest_attempts(records: Sequence[Record]) -> dict[str, datetime]:
    """Return when the newest attempt of each run began."""
    begun = {record.id: record.time for record in records if record.type == "attempt" and record.time is not None}
    newest: dict[str, datetime] = {}
    for link in records:
        time = begun.get(link.source or "") if link.type == "wasStartedBy" else None
        if time is not None and link.target is not None:
            newest[link.target] = max(time, newest.get(link.target, time))
    return newest
