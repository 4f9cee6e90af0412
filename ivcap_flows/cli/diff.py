"""`ivcap-flows diff A B`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ivcap_flows.cli.output import Json, console, print_json
from ivcap_flows.cli.records import RunName, open_journal
from ivcap_flows.journal import Journal, RunRow
from ivcap_flows.provenance.difference import Difference, Side, compare
from ivcap_flows.sinks import run_graph

__all__ = ["diff", "difference", "in_json", "print_difference"]


def diff(first: RunName, second: RunName, /, *, as_json: Json = False) -> int:
    """Compare two runs: list what changed and why the results differ. Exit status 1 if they differ.

    Parameters, code, environment, packages, inputs and requests to services are compared, and outputs by content.
    """
    with open_journal() as journal:
        before, after = (journal.runs.standing(journal.runs.get(name))[0] for name in (first, second))
        found = difference(journal, before, after)
    if as_json:
        print_json(in_json(before, after, found))
    else:
        print_difference(before, after, found)
    return int(not found.same_results)


def difference(journal: Journal, first: RunRow, second: RunRow) -> Difference:
    """Return what changed from the first run to the second."""
    sides = (Side(run.id, run.outcome, run.parameters, run_graph(journal, run.id)) for run in (first, second))
    return compare(*sides)


def in_json(first: RunRow, second: RunRow, found: Difference) -> dict[str, Any]:
    return {"first": first.id, "second": second.id, "same_results": found.same_results, **asdict(found)}


def print_difference(first: RunRow, second: RunRow, found: Difference) -> None:
    """Print a block for each part that changed, then each output that differs with its possible reasons."""
    for sign, run in (("-", first), ("+", second)):
        console.print(f"{sign} run {run.id}  {run.flow_name}  {run.outcome}", style="bold")
    parts = {
        "Outcome": (found.outcome,) if found.outcome else (),
        "Parameters": found.parameters,
        "Code": found.code,
        "Environment": found.environment,
        "Packages": found.packages,
        "Inputs": found.inputs,
        "Requests": found.work,
    }
    for title, changes in parts.items():
        if changes:
            console.print(title, style="italic")
        for change in changes:
            console.print(f"  {change}")
    if not found.outputs:
        changed = any(parts.values())
        if found.compared:
            console.print("The outputs are the same" + ("." if changed else ", and so is everything else."))
        else:
            console.print("There are no outputs to compare." + ("" if changed else " Nothing has changed."))
        return
    console.print("Outputs", style="italic")
    for result in found.outputs:
        console.print(f"  {result}", style="red")
        for reason in result.why:
            console.print(f"    may come from {reason}")
        if not result.why:
            console.print(
                "    nothing on record explains it: a step varies from run to run, or uses data that are not its inputs"
            )
