"""Decide how to run a service here, from its controller and its registered mapping."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from ivcap_flows.local.directory import Directory
from ivcap_flows.local.ivcap import schemas
from ivcap_flows.local.services.hosting import HostPlan
from ivcap_flows.local.services.mapping import read_mapping

__all__ = ["NoPlan", "Plan", "plan_of"]


@dataclass(frozen=True)
class Plan:
    """How to run the service `name`: a runner for each job with this controller, or one `host` for all jobs."""

    name: str
    controller: dict[str, Any]
    concurrency: int | None = None
    host: HostPlan | None = None


@dataclass(frozen=True)
class NoPlan:
    """The reason why jobs of a service cannot run here."""

    reason: str


def plan_of(directory: Directory, service: sqlite3.Row) -> Plan | NoPlan:
    controller: dict[str, Any] = json.loads(service["controller"])
    kind, name = service["controller_schema"], service["name"] or ""
    if kind == schemas.SERVICE_LOCAL:
        return Plan(name, controller)
    if kind not in (schemas.SERVICE_BATCH, schemas.SERVICE_REST):
        return NoPlan(
            f"The embedded platform runs services whose controller is of schema {schemas.SERVICE_LOCAL},"
            f" {schemas.SERVICE_BATCH} or {schemas.SERVICE_REST}; this one is {kind}."
        )
    mapping = read_mapping(directory, service["id"])
    if mapping is None:
        return NoPlan(
            f"The embedded platform runs no container images and knows no command for the service {service['id']}."
            ' Name one with `ivcap-flows local register <its description>.json --run "<command>"`.'
        )
    if kind == schemas.SERVICE_BATCH:
        return Plan(name, {"command": list(mapping.command), "cwd": mapping.cwd}, mapping.concurrency)
    host = HostPlan(
        service["id"],
        name,
        mapping.command,
        mapping.cwd,
        # Newer versions of ivcap-lambda name the tool's path, since one server may have several tools.
        path=_path(controller.get("path")) or "/",
        ready_url=_path(controller.get("ready-url")),
    )
    return Plan(name, {}, mapping.concurrency, host)


def _path(given: Any) -> str | None:
    return f"/{given.lstrip('/')}" if isinstance(given, str) else None
