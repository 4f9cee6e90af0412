"""`ivcap-flows runs`."""

from __future__ import annotations

from dataclasses import replace

from ivcap_flows.cli.output import Json, emit, moment, table
from ivcap_flows.cli.records import open_journal, standing

__all__ = ["runs"]


def runs(*, limit: int = 20, flow: str | None = None, as_json: Json = False) -> None:
    """List the runs on record, newest first.

    Args:
        limit: How many.
        flow: Only those of this flow.
    """
    with open_journal() as journal:
        found = []
        for run in journal.runs.recent(limit, flow_name=flow):
            leading = [attempt for attempt in journal.runs.attempts(run.id) if attempt.leads]
            outcome = standing(journal, leading[-1]) if run.outcome == "running" and leading else run.outcome
            found.append((replace(run, outcome=outcome), len(leading)))
    if as_json:
        emit([{**vars(run), "attempts": attempts} for run, attempts in found])
        return
    table(
        "Runs",
        ("run", "flow", "outcome", "attempts", "begun", "record"),
        [
            (
                run.id[:8],
                run.flow_name,
                run.outcome,
                str(attempts),
                moment(run.created_at),
                f"{run.missing_facts} facts missing" if run.missing_facts else "complete",
            )
            for run, attempts in found
        ],
    )
