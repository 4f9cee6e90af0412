"""`ivcap-flows show RUN`."""

from __future__ import annotations

from dataclasses import replace

from ivcap_flows.cli.output import Json, console, emit, moment, table
from ivcap_flows.cli.records import find_run, open_journal, standing
from ivcap_flows.identity import short_id
from ivcap_flows.journal import IntentRow
from ivcap_flows.provenance import Graph, Record
from ivcap_flows.sinks import run_graph

__all__ = ["show"]


def show(run: str, /, *, as_json: Json = False) -> None:
    """Show a run: its attempts and how each ended, what it asked of the platforms, its inputs and outputs.

    Args:
        run: Its id, the beginning of it, the id of one of its Prefect flow runs, or `latest`.
    """
    with open_journal() as journal:
        found = find_run(journal, run)
        attempts = [replace(a, outcome=standing(journal, a)) for a in journal.runs.attempts(found.id)]
        effects = journal.intents.where(run_id=found.id)
        graph = run_graph(journal, found.id)
        deliveries = journal.deliveries.where(run_id=found.id)
    outcome = next((a.outcome for a in reversed(attempts) if a.leads), found.outcome)
    used, made = _ends(graph)
    if as_json:
        emit(
            {
                "run": replace(found, outcome=outcome),
                "attempts": attempts,
                "effects": [_effect(row) for row in effects],
                "inputs": used,
                "outputs": made,
                "deliveries": deliveries,
            }
        )
        return
    console.print(f"run {found.id}  {found.flow_name}  [bold]{outcome}[/bold]  ({found.entry_point})")
    if found.missing_facts:
        console.print(f"The record is incomplete: {found.missing_facts} facts could not be written.", style="red")
    for name, value in found.parameters.items():
        console.print(f"  {name} = {value!r}", style="dim")
    table(
        "Attempts",
        ("no.", "outcome", "begun", "ended", "flow run", "process", "cause"),
        [
            (
                str(a.number),
                a.outcome,
                moment(a.started_at),
                moment(a.ended_at),
                a.flow_run_id if a.leads else f"{a.flow_run_id} ({a.flow_name})",
                f"{a.process.host}:{a.process.pid}",
                a.cause or "",
            )
            for a in attempts
        ],
    )
    table(
        "Asked of the platforms",
        ("what", "of", "state", "how", "urn", "asked", "key"),
        [
            (
                row.noun,
                row.subject or "",
                row.status or row.state,
                row.how or "",
                row.urn or row.error or "",
                moment(row.created_at),
                short_id(row.key),
            )
            for row in effects
        ],
    )
    for title, records in (("Inputs", used), ("Outputs", made)):
        table(title, ("type", "name", "sha256", "id"), [_line(record) for record in records])
    if deliveries:
        table(
            "Deliveries",
            ("sink", "state", "tries", "reason"),
            [(d.sink, d.state, str(d.tries), d.reason or "") for d in deliveries],
        )


def _effect(row: IntentRow) -> dict[str, object]:
    named = ("key", "noun", "subject", "state", "status", "how", "urn", "scope", "created_at", "sent_at", "error")
    return {name: getattr(row, name) for name in named} | {"duplicates": row.duplicates}


def _ends(graph: Graph) -> tuple[list[Record], list[Record]]:
    """Entities that the run used and nothing in it made, and those that it made."""
    generated = {r.source for r in graph.relations.values() if r.type == "wasGeneratedBy"}
    taken = {r.target for r in graph.relations.values() if r.type == "used"}
    hidden = ("parameters", "code", "service")
    nodes = [n for n in graph.nodes.values() if n.kind == "entity" and n.type not in hidden]
    return [n for n in nodes if n.id in taken - generated], [n for n in nodes if n.id in generated]


def _line(record: Record) -> tuple[str, str, str, str]:
    name = record.attributes.get("name") or record.attributes.get("path") or ""
    return record.type, str(name), str(record.attributes.get("sha256") or "")[:12], record.id
