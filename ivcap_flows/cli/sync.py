"""`ivcap-flows sync`: deliver what is on record to the sinks that are switched on."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ivcap_flows.capture.deliveries import synchronise
from ivcap_flows.cli.output import Json, complain, console, emit, table
from ivcap_flows.cli.platform import ivcap, provena
from ivcap_flows.cli.records import open_journal
from ivcap_flows.settings import Settings
from ivcap_flows.sinks.sink_registry import FORMS, Clients

__all__ = ["sync"]


def sync(*, again: Annotated[bool, Parameter(negative=())] = False, as_json: Json = False) -> int:
    """Tell how runs ended that lost their process, then deliver every run to each sink; status 1 if something is left.

    The sinks are those of IVCAP_FLOWS_SINKS. Delivering twice has the effect of once; two at once share the work.

    Args:
        again: Try now what waits for its time, and what was refused.
    """
    names = Settings().sinks
    with open_journal() as journal:
        done = synchronise(journal, names, Clients(ivcap, provena), again=again)
    for problem in done.unusable.values():
        complain(problem)
    if as_json:
        told = [{"attempt": a.id, "outcome": o} for a, o in done.ended]
        failed = {name: str(problem) for name, problem in done.unusable.items()}
        emit({"ended": told, "sinks": done.sinks, "left": done.left, "unusable": failed})
    else:
        for attempt, outcome in done.ended:
            console.print(f"attempt {attempt.number} of run {attempt.run_id[:8]} ({attempt.flow_name}): {outcome}")
        if not names:
            console.print(f"No sink is switched on; name them in IVCAP_FLOWS_SINKS ({', '.join(FORMS)}).")
        table(
            "Sinks",
            ("sink", "delivered", "pending", "refused"),
            [(d.sink, "busy" if d.busy else str(d.delivered), str(d.pending), str(d.dead)) for d in done.sinks],
        )
        for row in done.left:
            console.print(f"{row.sink}: run {(row.run_id or '')[:8]} {row.state}: {row.reason}", style="red")
    return int(not done.complete)
