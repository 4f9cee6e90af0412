"""`ivcap-flows plan`: what a flow would ask of the platforms, without asking."""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path
from typing import Annotated, Any

import yaml
from cyclopts import Parameter

from ivcap_flows.cli.output import Json, console, emit, table
from ivcap_flows.durable import Plan
from ivcap_flows.durable import plan as planned
from ivcap_flows.errors import InputError
from ivcap_flows.tasks.waiting import PlannedError

__all__ = ["plan"]


def plan(
    flow: str,
    /,
    *,
    param: Annotated[list[str] | None, Parameter(name=("--param", "-p"), negative=())] = None,
    as_json: Json = False,
) -> None:
    """Run a flow up to its first wait for work that is not there yet, sending nothing, and list what it asks for.

    The flow's own code runs, on a Prefect server that is thrown away. What was sent before shows with where it is from.

    Args:
        flow: `path/to/file.py:flow` or `module:flow`.
        param: A parameter of the flow, `name=value`; the value is read as YAML.
    """
    parameters = dict(_parameter(text) for text in param or [])
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    logging.getLogger("prefect").setLevel(logging.CRITICAL)
    entry = _load(flow)
    found, end = _run(entry, parameters)
    if as_json:
        emit({"effects": [vars(effect) for effect in found.effects], "end": end})
        return
    table(
        f"Plan of {flow}",
        ("from", "what", "of", "urn", "origin"),
        [(e.source, e.noun, e.subject or "", e.urn or "", e.origin or "") for e in found.effects],
    )
    console.print(end)


def _run(entry: Any, parameters: dict[str, Any]) -> tuple[Plan, str]:
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), planned() as found:
        try:
            result = entry(**parameters)
            if hasattr(result, "__await__"):
                import asyncio

                asyncio.run(_awaited(result))
        except PlannedError as end:
            return found, str(end)
    return found, "The flow ran to its end: all that it waits for is there."


async def _awaited(result: Any) -> Any:
    return await result


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"A parameter is given as name=value, not {text!r}.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"The value of {name} is no YAML: {error}") from error


def _load(entry: str) -> Any:
    place, colon, name = entry.rpartition(":")
    if not colon:
        raise InputError(f"The flow is named as path/to/file.py:flow or module:flow, not {entry!r}.")
    from prefect.flows import load_flow_from_entrypoint

    try:
        if Path(place).suffix == ".py":
            return load_flow_from_entrypoint(entry)
        return getattr(importlib.import_module(place), name)
    except (OSError, ImportError, AttributeError) as error:
        raise InputError(f"The flow {entry} cannot be loaded: {error}") from error
