"""Returns its message."""

from __future__ import annotations

from typing import Any

from ivcap_flows.local.service import ServiceJob

__all__ = ["run"]


def run(request: dict[str, Any], job: ServiceJob) -> dict[str, Any]:
    job.log(f"echo: {request['message']}")
    return {"message": request["message"]}
