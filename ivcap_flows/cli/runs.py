"""`ivcap-flows runs`."""

from __future__ import annotations

from ivcap_flows.cli.output import Json, emit, moment, table
from ivcap_flows.cli.records import open_journal

__all__ = ["runs"]


def runs(*, limit: int = 20, flow: str | None = None, as_json: Json = False) -> None:
    """List the runs on record, newest first.

    Args:
        limit: How many.
        flow: Only those of this flow.
    """
    with open_journal() as journal:
        journal.runs.reap()
        found = journal.runs.recent(limit, flow_name=flow)
        counts = {run.id: len([a for a in journal.runs.attempts(run.id) if a.leads]) for run in found}
    if as_json:
        emit([{**vars(run), "attempts": counts[run.id]} for run in found])
        return
    table(
        "Runs",
        ("run", "flow", "outcome", "attempts", "begun", "record"),
        [
            (
                run.id[:8],
                run.flow_name,
                run.outcome,
                str(counts[run.id]),
                moment(run.created_at),
                f"{run.missing_facts} facts missing" if run.missing_facts else "complete",
            )
            for run in found
        ],
    )
