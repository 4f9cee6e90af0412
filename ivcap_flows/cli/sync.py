"""`ivcap-flows sync`: deliver the record to the configured sinks."""

from __future__ import annotations

from ivcap_flows.cli.output import Json, console, print_error, print_json, table
from ivcap_flows.cli.platform import ivcap, provena
from ivcap_flows.cli.records import open_journal
from ivcap_flows.identity import short_run
from ivcap_flows.settings import Settings
from ivcap_flows.sinks.sink_registry import NAMES, Clients
from ivcap_flows.sinks.synchronise import synchronise

__all__ = ["sync"]


def sync(*, again: bool = False, as_json: Json = False) -> int:
    """Close runs whose process died, then deliver every run to each sink. Exit status 1 if something is left.

    The sinks are those in IVCAP_FLOWS_SINKS. Repeating the command delivers nothing twice; commands that run at the
    same time share the work.

    Args:
        again: Also try now what waits for a later try, and what was refused.
    """
    names = Settings().sinks
    with open_journal() as journal:
        done = synchronise(journal, names, Clients(ivcap, provena), again=again)
    for problem in done.unusable.values():
        print_error(problem)
    if as_json:
        ended = [{"attempt": a.id, "outcome": o} for a, o in done.ended]
        failed = {name: str(problem) for name, problem in done.unusable.items()}
        print_json({"ended": ended, "sinks": done.sinks, "left": done.left, "unusable": failed})
    else:
        for attempt, outcome in done.ended:
            console.print(
                f"attempt {attempt.number} of run {short_run(attempt.run_id)} ({attempt.flow_name}): {outcome}"
            )
        if not names:
            console.print(f"No sink is configured; name sinks in IVCAP_FLOWS_SINKS ({', '.join(NAMES)}).")
        table(
            "Sinks",
            ("sink", "delivered", "pending", "refused"),
            [(d.sink, "busy" if d.busy else str(d.delivered), str(d.pending), str(d.dead)) for d in done.sinks],
        )
        for drained in done.sinks:
            for reason, count in drained.reasons.items():
                console.print(f"{drained.sink}: of {count} delivered {'run' if count == 1 else 'runs'}, {reason}")
        for row in done.left:
            console.print(f"{row.sink}: run {short_run(row.run_id or '')} {row.state}: {row.reason}", style="red")
    return int(not done.complete)
