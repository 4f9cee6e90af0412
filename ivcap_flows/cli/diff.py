"""`ivcap-flows diff A B`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ivcap_flows.cli.output import Json, console, emit
from ivcap_flows.cli.records import find_run, open_journal
from ivcap_flows.journal import Journal, RunRow
from ivcap_flows.provenance.difference import Difference, Side, compare
from ivcap_flows.sinks import run_graph

__all__ = ["diff", "difference", "in_json", "print_difference"]


def diff(first: str, second: str, /, *, as_json: Json = False) -> int:
    """Say what changed from one run to another, and why its results differ; status 1 if they do.

    Compared are parameters, code, environment and packages, inputs, what was asked of services, and outputs by their
    contents.

    Args:
        first: A run by its id, the beginning of it, the id of one of its Prefect flow runs, or `latest`.
        second: The other run.
    """
    with open_journal() as journal:
        runs = find_run(journal, first), find_run(journal, second)
        found = difference(journal, *runs)
    if as_json:
        emit(in_json(*runs, found))
    else:
        print_difference(*runs, found)
    return int(not found.same_results)


def difference(journal: Journal, first: RunRow, second: RunRow) -> Difference:
    """What changed from one run to another."""
    sides = (Side(run.id, run.outcome, run.parameters, run_graph(journal, run.id)) for run in (first, second))
    return compare(*sides)


def in_json(first: RunRow, second: RunRow, found: Difference) -> dict[str, Any]:
    return {"first": first.id, "second": second.id, "same_results": found.same_results, **asdict(found)}


def print_difference(first: RunRow, second: RunRow, found: Difference) -> None:
    """One block for each part in which something changed, and what may have changed the results."""
    for sign, run in (("-", first), ("+", second)):
        console.print(f"{sign} run {run.id}  {run.flow_name}  {run.outcome}", style="bold")
    parts = {
        "Outcome": (found.outcome,) if found.outcome else (),
        "Parameters": found.parameters,
        "Code": found.code,
        "Environment": found.environment,
        "Packages": found.packages,
        "Inputs": found.inputs,
        "Asked for": found.work,
    }
    for title, changes in parts.items():
        if changes:
            console.print(title, style="italic")
        for change in changes:
            console.print(f"  {change}")
    if not found.outputs:
        changed = any(parts.values())
        if found.compared:
            console.print("The outputs are the same" + ("." if changed else ", and so is all else."))
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
                "    nothing on record explains it: a step is not the same each time, or uses what it is not given"
            )
