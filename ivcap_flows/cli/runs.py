"""`ivcap-flows runs`."""

from __future__ import annotations

import cyclopts

from ivcap_flows.cli import deciding
from ivcap_flows.cli.output import Json, console, emit, moment, table
from ivcap_flows.cli.records import find_run, open_journal
from ivcap_flows.errors import InputError
from ivcap_flows.settings import Settings
from ivcap_flows.sinks.sink_registry import check_sinks, delivered_as

__all__ = ["app"]

app = cyclopts.App(name="runs", help="The runs on record.")


@app.default
def runs(*, limit: int = 20, flow: str | None = None, as_json: Json = False) -> None:
    """List the runs on record, newest first.

    Args:
        limit: How many.
        flow: Only those of this flow.
    """
    if limit < 1:
        raise InputError(f"There are no {limit} runs to list; give a limit of 1 or more.")
    with open_journal() as journal:
        found = [journal.runs.standing(run) for run in journal.runs.recent(limit, flow_name=flow)]
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


@app.command
def abandon(run: str, /) -> None:
    """Give up a run that did not complete: the same command does not continue it, and `prune` may delete it.

    What it ordered is not cancelled; `orders --orphans` names it. Of a deployed run the flow run is Prefect's to
    cancel: if Prefect runs it again, it goes on.

    Args:
        run: Its id, the beginning of it, the id of one of its Prefect flow runs, or `latest`.
    """
    with open_journal() as journal:
        console.print(deciding.abandon(journal, find_run(journal, run)))


@app.command
def prune(*, older_than_days: float) -> None:
    """Delete the record of runs that completed, or were given up, so long ago.

    Kept are runs of which something is in doubt, of which a sink of IVCAP_FLOWS_SINKS has not got all, or that failed
    and may be continued; the keys of scope `flow` and `account`; and the orders and jobs of deployed runs, which
    Prefect may run again. So nothing is asked for twice.

    Args:
        older_than_days: Days since the run ended.
    """
    if older_than_days < 0:
        raise InputError("A run cannot have ended in the future; give days of 0 or more.")
    names = Settings().sinks
    check_sinks(names)
    with open_journal() as journal:
        count = journal.runs.prune(older_than_days, sinks=[delivered_as(name) for name in names])
        console.print(f"{count} runs deleted from {journal.url}.")
