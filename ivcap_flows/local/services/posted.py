"""Turn a service's result, in either protocol, into the record that its job's process leaves in the outbox."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from ivcap_flows.local.services.job import ServiceJob

__all__ = ["Posted", "ended", "gone", "outbox_record", "with_products"]

_ERRORS: Final = ("urn:ivcap:schema.service.error.", "urn:ivcap:schema.ai-tool.error.")
"""Schemas of the documents in which the SDKs report an exception."""
_WORDS: Final = ("error", "message", "detail", "type")
"""Keys of the reason in ivcap-service, ivcap-ai-tool and FastAPI; the type is for an exception without a text."""


@dataclass(frozen=True)
class Posted:
    """A result as received: media type, whether the service reports an error, and the bytes."""

    kind: str
    failed: bool
    body: bytes


def outbox_record(posted: Posted, job: ServiceJob) -> dict[str, Any]:
    """Return the outcome of a job from its service's result. A result that is not JSON is stored as a product."""
    media = posted.kind.split(";")[0].strip().lower()
    if media == "application/json" or media.startswith("application/vnd.ivcap."):
        try:
            value = json.loads(posted.body, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return ended("failed", "The service returned a result of type JSON that is not valid JSON.")
        if posted.failed or _is_error(value):
            return ended("failed", _text(value))
        return {"status": "succeeded", "result": value}
    if posted.failed:
        return ended("failed", posted.body.decode("utf-8", "replace"))
    job.keep(None, posted.body, posted.kind, is_result=True)
    return {"status": "succeeded", "result": None}


def ended(status: str, message: str) -> dict[str, Any]:
    """Return the record of a job without a result: `failed` if the service failed, `error` if it was interrupted."""
    # An exception may contain a file name that is not UTF-8.
    return {"status": status, "message": message.encode("utf-8", "replace").decode()}


def gone(what: str, status: int) -> dict[str, Any]:
    """Return the record for a process that ended without a result; a negative status is a signal from outside."""
    if status < 0:
        return ended("error", f"{what} was killed by signal {-status} before it returned a result.")
    return ended("failed", f"{what} ended with exit status {status} and posted no result.")


def with_products(record: dict[str, Any], job: ServiceJob) -> dict[str, Any]:
    return {**record, "products": [asdict(product) for product in job.products]}


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _is_error(value: Any) -> bool:
    return isinstance(value, dict) and str(value.get("$schema")).startswith(_ERRORS)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        found = next((value[name] for name in _WORDS if value.get(name)), value)
        return found if isinstance(found, str) else json.dumps(found)
    return value if isinstance(value, str) else json.dumps(value)
