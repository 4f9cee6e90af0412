"""`ivcap-flows runs`: list runs, give one up, or delete old ones."""

from __future__ import annotations

from typing import Annotated, Final

import cyclopts
from cyclopts import Parameter
from cyclopts.validators import Number

from ivcap_flows.cli import deciding
from ivcap_flows.cli.output import AtLeastOne, Json, confirm, console, print_json, table
from ivcap_flows.cli.platform import ivcap, provena
from ivcap_flows.cli.records import RunName, open_journal
from ivcap_flows.identity import short_run
from ivcap_flows.settings import Settings
from ivcap_flows.sinks.sink_registry import Clients, open_sinks

__all__ = ["app"]

_OLDEST: Final = 36_500
"""Days; Python has no dates long before."""

app = cyclopts.App(name="runs", help="List the runs on record, give one up, or delete old ones.")


@app.default
def runs(*, limit: AtLeastOne = 20, flow: str | None = None, as_json: Json = False) -> None:
    """List the runs on record, newest first.

    The first column is the end of each run's id, by which other commands find the run. They also take `latest`, the
    name of a flow, for its newest run, and the name of a flow run.

    Args:
        limit: Number of runs to list.
        flow: List only runs of this flow.
    """
    with open_journal() as journal:
        found = [journal.runs.standing(run) for run in journal.runs.recent(limit, flow_name=flow)]
    listed = [(run, [attempt for attempt in attempts if attempt.leads]) for run, attempts in found]
    if as_json:
        print_json(
            [
                {**vars(run), "attempts": len(attempts), "flow_run_name": attempts[-1].flow_run_name}
                for run, attempts in listed
            ]
        )
        return
    table(
        "Runs",
        ("run", "flow", "outcome", "attempts", "begun", "flow run", "record"),
        [
            (
                short_run(run.id),
                f"{run.flow_name} (background task)" if run.is_background else run.flow_name,
                run.outcome,
                str(len(attempts)),
                run.created_at,
                attempts[-1].flow_run_name,
                f"{run.missing_facts} facts missing" if run.missing_facts else "",
            )
            for run, attempts in listed
        ],
    )


@app.command
def abandon(run: RunName, /, *, yes: bool = False) -> int:
    """Give up a run that did not complete: the same command does not continue it, and `prune` may delete it.

    Its orders are not cancelled; `orders --orphans` lists them. A run that is parked, or paused in Prefect, is
    cancelled there, so that it does not come back. If another deployed run is given up, cancel its flow run in Prefect,
    too: otherwise Prefect may run it again, and it continues. If the run is parked, paused or running, the command says
    what will happen, and asks. Exit status 1 if you refuse.

    Args:
        yes: Do not ask.
    """
    with open_journal() as journal:
        found = journal.runs.get(run)
        what = deciding.consequences(journal, found)
        if what is not None and not confirm(what, yes=yes):
            return 1
        console.print(deciding.abandon(journal, found))
    return 0


@app.command
def prune(*, older_than_days: Annotated[float, Parameter(validator=Number(gte=0, lte=_OLDEST))]) -> None:
    """Delete old records: of runs that completed, or were given up, more than `--older-than-days` ago.

    A run is kept if something of it is in doubt, if it failed and may be continued, or if a sink in IVCAP_FLOWS_SINKS
    has not received all of it. If such a sink cannot be used, nothing is deleted. Keys of scope `flow` and `account`
    are kept, and so are the orders and jobs of deployed runs, which Prefect may run again. So nothing is requested
    twice. What the journal knows of processes that nothing names any more, and digests of files that were computed as
    long ago, are deleted as well.

    Args:
        older_than_days: Delete only what ended more than this number of days ago.
    """
    with open_journal() as journal:
        opened = open_sinks(Settings().sinks, journal, Clients(ivcap, provena))
        for problem in opened.unusable.values():
            # Which deliveries are of this sink is not known.
            raise problem
        count = journal.prune(older_than_days, sinks=[sink.name for sink in opened.sinks])
        console.print(f"{count} runs deleted from {journal.url}.")
