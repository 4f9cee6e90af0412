"""The services that the embedded IVCAP comes with: `echo`, `sleep` and `fail`, for trials and tests."""

from __future__ import annotations

import time
from typing import Any, Final

from ivcap_flows.local.services.job import ServiceError, ServiceJob

__all__ = ["BUILT_IN", "echo", "fail", "sleep"]


def echo(request: dict[str, Any], job: ServiceJob) -> dict[str, Any]:
    job.log(f"echo: {request['message']}")
    return {"message": request["message"]}


def sleep(request: dict[str, Any], job: ServiceJob) -> dict[str, Any]:
    seconds = float(request["seconds"])
    job.log(f"sleeping for {seconds:g} s")
    time.sleep(seconds)
    return {"seconds": seconds}


def fail(request: dict[str, Any], job: ServiceJob) -> dict[str, Any]:
    raise ServiceError(str(request["message"]))


def _definition(name: str, description: str, parameter: str, kind: str, meaning: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "policy": "urn:ivcap:policy:ivcap.open.service",
        "controller-schema": "urn:ivcap-flows:schema:service.local.1",
        "controller": {"$schema": "urn:ivcap-flows:schema:service.local.1", "entry": f"{__name__}:{name}"},
        "parameters": [{"name": parameter, "description": meaning, "type": kind}],
    }


BUILT_IN: Final = (
    _definition("echo", "Returns its message, at once.", "message", "string", "What to return."),
    _definition("sleep", "Waits, then says how long.", "seconds", "float", "How long to wait, in seconds."),
    _definition("fail", "Fails with its message.", "message", "string", "The error message to fail with."),
)
"""The result of `echo` and `sleep` is an object with their parameter."""
