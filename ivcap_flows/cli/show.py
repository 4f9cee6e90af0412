"""`ivcap-flows show RUN`: print all that is on record of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.text import Text

from ivcap_flows.cli import effects
from ivcap_flows.cli.output import Full, Json, brief, coloured, console, moment, print_json, table
from ivcap_flows.cli.records import RunName, open_journal, unknowns
from ivcap_flows.journal import IntentRow, RunRow
from ivcap_flows.journal.rows import AttemptRow
from ivcap_flows.provenance import Graph, Record
from ivcap_flows.provenance.activities import Activities
from ivcap_flows.provenance.difference import ends
from ivcap_flows.provenance.records import NOT_LOOKED_AT
from ivcap_flows.secrets import scrub
from ivcap_flows.sinks import run_graph

__all__ = ["show"]

_SHORT: Final = 160
"""Characters of a result that are printed at most; `--json` prints all of it, as far as the journal has it."""


def show(run: RunName, /, *, full: Full = False, as_json: Json = False) -> None:
    """Show a run: attempts, task runs, requests to the platforms, jobs, inputs, outputs and intermediate results."""
    with open_journal() as journal:
        found, attempts = journal.runs.standing(journal.runs.get(run))
        asked = journal.intents.where(run_id=found.id, limit=None)
        graph = run_graph(journal, found.id)
        deliveries = journal.deliveries.where(run_id=found.id, limit=None)
    used, made = ends(graph)
    products = {product.id for product in Activities(graph).products()}
    ran = sorted((node for node in graph.nodes.values() if node.type == "task-run"), key=_begin)
    record: dict[str, Any] = {
        "run": found,
        "attempts": attempts,
        "task_runs": ran,
        "effects": [effects.as_json(row) for row in asked],
        "jobs": _jobs_of(graph, asked),
        "inputs": used,
        "outputs": [thing for thing in made if thing.id in products],
        "intermediates": [thing for thing in made if thing.id not in products],
        "deliveries": deliveries,
    }
    if as_json:
        print_json(record)
        return
    _print_heading(found, graph)
    _print_attempts(attempts, full=full)
    _print_task_runs(ran, graph, full=full)
    effects.print_effects("Requests to the platforms", asked, full=full)
    _print_jobs(record["jobs"])
    for title, part in (("Inputs", "inputs"), ("Outputs", "outputs"), ("Intermediate results", "intermediates")):
        table(title, ("type", "name", "sha256", "id"), [_line(thing, full=full) for thing in record[part]], full=full)
    if deliveries:
        table(
            "Deliveries",
            ("sink", "state", "tries", "reason"),
            [(d.sink, d.state, str(d.tries), d.reason or "") for d in deliveries],
        )


def _print_heading(run: RunRow, graph: Graph) -> None:
    kind = "background task, " if run.is_background else ""
    heading = Text.assemble(f"run {run.id}  {run.flow_name}  ", coloured(run.outcome), f"  ({kind}{run.entry_point})")
    console.print(heading, style="bold")
    if run.missing_facts:
        console.print(f"The record is incomplete: {run.missing_facts} facts could not be written.", style="red")
    for name, value in run.parameters.items():
        console.print(f"  {name} = {value!r}", style="dim")
    for line in dict.fromkeys(_ran(graph)):  # a flow and a subflow of one file have one code each
        console.print(f"  {line}", style="dim")


def _print_attempts(attempts: Sequence[AttemptRow], *, full: bool) -> None:
    table(
        "Attempts",
        ("no.", "outcome", "begun", "ended", "flow run", "id", "process", "cause"),
        [
            (
                str(a.number),
                a.outcome,
                a.started_at,
                a.ended_at,
                (a.flow_run_name or "") + ("" if a.leads else f" ({a.flow_name})"),
                brief(a.flow_run_id, full=full),
                f"{a.process.host}:{a.process.pid}",
                a.cause,
            )
            for a in attempts
        ],
        full=full,
    )


def _print_task_runs(task_runs: Sequence[Record], graph: Graph, *, full: bool) -> None:
    """Print the task runs, and what the record does not know about files."""
    columns = ("name", "outcome", "begun", "ended", "process", "cause")
    table("Task runs", columns, [_task_run(node) for node in task_runs], full=full)
    if unseen := _not_looked_at(graph):
        console.print(f"Tasks whose files were not looked at: {unseen}", style="dim")
    for node in graph.nodes.values():
        for line in unknowns(node):
            console.print(f"{node.attributes.get('name') or node.id}, {line}", style="dim")


def _ran(graph: Graph) -> Iterator[str]:
    """Yield lines that say which code ran, in which environment, and for whom."""
    for node in graph.nodes.values():
        about = node.attributes
        if node.type == "code":
            commit = f"commit {about['commit'][:12]}" if about.get("commit") else "under no version control"
            dirty = " with uncommitted changes" if about.get("dirty") else ""
            python = f", Python {about['python']} on {about.get('system')}" if about.get("python") else ""
            packages = f", {len(about['packages'])} packages" if about.get("packages") else ""
            yield f"code {about.get('file') or about.get('name')}, {commit}{dirty}{python}{packages}"
        elif node.kind == "agent":
            yield f"{node.type} {about.get('name') or node.id}"


def _not_looked_at(graph: Graph) -> str:
    """Return the names of tasks with Prefect's own decorator, whose files nobody looked at, with their run counts."""
    runs = Counter(
        str(node.attributes.get("name"))
        for node in graph.nodes.values()
        if node.type == "task-run" and node.attributes.get("files") == NOT_LOOKED_AT and "try" not in node.attributes
    )
    return ", ".join(name if count == 1 else f"{name} ({count} runs)" for name, count in runs.items())


def _begin(node: Record) -> tuple[bool, str]:
    """By when it began, and last what has no time."""
    return node.time is None, str(node.time)


def _task_run(node: Record) -> tuple[str | datetime | None, ...]:
    """What is shown of a task run; its process only if that is not the flow's."""
    about = node.attributes
    name = about.get("run_name") or about.get("name") or node.id
    return name, about.get("outcome"), node.time, node.ended, about.get("process"), about.get("cause")


def _line(record: Record, *, full: bool) -> tuple[str, str, str, str]:
    name = record.attributes.get("name") or record.attributes.get("path") or ""
    sha256 = str(record.attributes.get("sha256") or "")
    return record.type, str(name), brief(sha256, full=full), brief(record.id, full=full)


def _jobs_of(graph: Graph, asked: Sequence[IntentRow]) -> list[dict[str, Any]]:
    """Return the jobs in a run's record, oldest first. Only those that the run itself requested have a result."""
    known = {row.urn: row.outcome for row in asked if row.noun == "job" and isinstance(row.outcome, Mapping)}
    jobs = sorted((n for n in graph.nodes.values() if n.type == "job"), key=lambda n: (str(n.time or ""), n.id))
    return [
        {
            "urn": job.id,
            "service": job.attributes.get("service_name"),
            "status": job.attributes.get("status"),
            "error": job.attributes.get("cause"),
            "result": scrub(known.get(job.id, {}).get("result")),
            "result_sha256": known.get(job.id, {}).get("result_sha256"),
            "result_type": job.attributes.get("result_type"),
            "products": [
                {"urn": product.id, "name": product.attributes.get("name")}
                for product in graph.sources(job.id, "wasGeneratedBy")
            ],
            "events": job.attributes.get("events") or [],
        }
        for job in jobs
    ]


def _print_jobs(jobs: Sequence[Mapping[str, Any]]) -> None:
    """Print a block for each job, and nothing if there is none."""
    if jobs:
        console.print("Jobs", style="italic")
    for job in jobs:
        _job_line(job["urn"], job["service"], job["status"], indent=0)
        if job["error"]:
            _job_line("error", job["error"])
        if job["result"] is not None:
            text = json.dumps(job["result"], ensure_ascii=False)
            _job_line("result", text if len(text) <= _SHORT else text[: _SHORT - 1] + "…")
        elif job["result_type"]:
            _job_line("result", f"of type {job['result_type']}", job["result_sha256"])
        for product in job["products"]:
            _job_line("product", product["name"], product["urn"])
        for event in job["events"]:
            at = event.get("at")
            _job_line(
                "event", moment(datetime.fromisoformat(at)) if at else None, event.get("name"), event.get("message")
            )


def _job_line(*parts: Any, indent: int = 2) -> None:
    console.print(" " * indent + "  ".join(" ".join(str(part).split()) for part in parts if part))
