"""Fails with its message."""

from __future__ import annotations

from typing import Any

from ivcap_flows.local.service import ServiceError, ServiceJob

__all__ = ["run"]


def run(request: dict[str, Any], job: ServiceJob) -> dict[str, Any]:
    raise ServiceError(str(request["message"]))
