"""`ivcap-flows runs`."""

from __future__ import annotations

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
        found = [standing(journal, run) for run in journal.runs.recent(limit, flow_name=flow)]
    counted = [(run, sum(attempt.leads for attempt in attempts)) for run, attempts in found]
    if as_json:
        emit([{**vars(run), "attempts": attempts} for run, attempts in counted])
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
            for run, attempts in counted
        ],
    )
