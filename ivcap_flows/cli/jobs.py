"""The jobs of a run, as `show` prints them: result, products, and the events that the service sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from ivcap_flows.cli.output import console, moment
from ivcap_flows.journal import IntentRow
from ivcap_flows.provenance import Graph
from ivcap_flows.secrets import scrub

__all__ = ["jobs_of", "print_jobs"]

_SHORT: Final = 160
"""Characters of a result that are printed at most; `--json` prints all of it, as far as the journal has it."""


def jobs_of(graph: Graph, asked: Sequence[IntentRow]) -> list[dict[str, Any]]:
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


def print_jobs(jobs: Sequence[Mapping[str, Any]]) -> None:
    """Print a block for each job, and nothing if there is none."""
    if jobs:
        console.print("Jobs", style="italic")
    for job in jobs:
        _line(job["urn"], job["service"], job["status"], indent=0)
        if job["error"]:
            _line("error", job["error"])
        if job["result"] is not None:
            text = json.dumps(job["result"], ensure_ascii=False)
            _line("result", text if len(text) <= _SHORT else text[: _SHORT - 1] + "…")
        elif job["result_type"]:
            _line("result", f"of type {job['result_type']}", job["result_sha256"])
        for product in job["products"]:
            _line("product", product["name"], product["urn"])
        for event in job["events"]:
            at = event.get("at")
            _line("event", moment(datetime.fromisoformat(at)) if at else None, event.get("name"), event.get("message"))


def _line(*parts: Any, indent: int = 2) -> None:
    console.print(" " * indent + "  ".join(" ".join(str(part).split()) for part in parts if part))
