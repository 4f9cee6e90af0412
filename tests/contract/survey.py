"""The services that `survey.yaml` and `note.yaml` define."""

from __future__ import annotations

from typing import Any

from ivcap_flows.local.services.job import ServiceJob


def run(request: dict[str, Any], job: ServiceJob) -> dict[str, Any]:
    """Makes a product that holds the title so often as asked."""
    job.log(f"The title is {request['title']}.")
    product = job.add_product("titles.txt", (request["title"] + "\n").encode() * request["count"], "text/plain")
    level = request["sea-level"]
    return {"$schema": "urn:ivcap-flows:schema:survey.1", "level": level, "kind": request["kind"], "titles": product}


def note(request: dict[str, Any], job: ServiceJob) -> dict[str, Any]:
    """The request itself."""
    return request
