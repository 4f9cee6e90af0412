"""The services that the flow orders from."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from ivcap_flows.local.services.job import ServiceError, ServiceJob

__all__ = ["DEFINITION", "run"]

DEFINITION: dict[str, Any] = {
    "name": "moody",
    "description": "Takes a while, and fails so many times before it succeeds.",
    "parameters": [
        {"name": "name", "description": "What the order is for.", "type": "string"},
        {"name": "series", "description": "What is worked on.", "type": "artifact"},
        {"name": "ledger", "description": "The folder in which each beginning is noted.", "type": "string"},
        {"name": "fails", "description": "How often it fails.", "type": "int"},
        {"name": "seconds", "description": "How long it takes.", "type": "float"},
    ],
    "entry": "harness.services:run",
    "path": [".."],
}


_SHORT = 5.0
"""Seconds; an order that takes longer ends as soon as the file `go` is in the ledger."""


def run(request: dict[str, Any], job: ServiceJob) -> dict[str, Any]:
    # First: who asks for what the platform has lost fails for that, and it is no try.
    size = len(job.read_artifact(request["series"]))
    ledger = Path(request["ledger"])
    for number in itertools.count(1):
        try:
            (ledger / f"{request['name']}.{number}").open("x").close()
            break
        except FileExistsError:
            continue
    end = time.monotonic() + float(request["seconds"])
    while time.monotonic() < end and not (request["seconds"] > _SHORT and (ledger / "go").exists()):
        time.sleep(0.05)
    if number <= int(request["fails"]):
        raise ServiceError(f"{request['name']} does not feel well.")
    return {"name": request["name"], "size": size}
