"""`ivcap-flows plan`: list what a flow would request from the platforms, without sending anything."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import yaml
from cyclopts import Parameter

from ivcap_flows.capture.observing import observe_tasks
from ivcap_flows.cli.effects import given
from ivcap_flows.cli.output import Json, complain, console, emit, table
from ivcap_flows.durable import Plan
from ivcap_flows.durable import plan as planned
from ivcap_flows.errors import InputError

__all__ = ["plan"]


def plan(
    flow: str,
    /,
    *,
    param: Annotated[list[str] | None, Parameter(name=("--param", "-p"))] = None,
    as_json: Json = False,
) -> int:
    """List what a flow would request from the platforms, without sending anything. Exit status 1 if the flow fails.

    The flow's own code runs, up to its first wait for work that does not exist yet, without a Prefect server; what it
    prints goes to standard error. The list says where each result comes from that exists already.

    Args:
        flow: `path/to/file.py:flow` or `module:flow`.
        param: Parameter of the flow as `name=value`; the value is read as YAML.
    """
    parameters = dict(_parameter(text) for text in param or [])
    found, end, error = _run(_load(flow), parameters)
    if as_json:
        emit({"effects": [vars(effect) for effect in found.effects], "end": end})
    else:
        table(
            f"Plan of {flow}",
            ("from", "what", "name", "of", "urn", "origin", "given"),
            [
                (e.source, e.noun, e.name or "", e.subject or "", e.urn or "", e.origin or "", given(e.noun, e.request))
                for e in found.effects
            ],
        )
        console.print(end)
    if error is not None:
        complain(error)
    return int(error is not None)


def _run(entry: Any, parameters: dict[str, Any]) -> tuple[Plan, str, Exception | None]:
    """Return the plan, how the flow ended, and the error that ended it, if any."""
    from ivcap_flows.tasks.waiting import PlannedError

    _check(entry, parameters)
    observe_tasks()
    with _quietly(), planned() as found:
        try:
            result = entry(**parameters)
            if inspect.isawaitable(result):
                asyncio.run(_awaited(result))
        except PlannedError as end:
            return found, str(end), None
        except Exception as error:  # noqa: BLE001 - the flow's own
            return found, "The flow failed.", error
    return found, "The flow ran to its end: all work that it waits for exists.", None


def _check(entry: Any, parameters: dict[str, Any]) -> None:
    """Check that the flow accepts the parameters. Raise InputError that says what is wrong."""
    from prefect.exceptions import ParameterBindError, ParameterTypeError, SignatureMismatchError
    from prefect.utilities.callables import get_call_parameters

    try:
        call = get_call_parameters(entry.fn, (), parameters)
        if entry.should_validate_parameters:
            entry.validate_parameters(call)
    except (ParameterBindError, ParameterTypeError, SignatureMismatchError) as error:
        raise InputError(f"The flow {entry.name} does not accept these parameters: {error}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep standard output for the plan, and hide Prefect's log of a run that is not a real one."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(before)


async def _awaited(result: Any) -> Any:
    return await result


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"Give a parameter as name=value, not {text!r}.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"The value of {name} is not YAML: {error}") from error


def _load(entry: str) -> Any:
    from prefect import Flow
    from prefect.flows import load_flow_from_entrypoint

    place, colon, name = entry.rpartition(":")
    if not colon:
        raise InputError(f"Name the flow as path/to/file.py:flow or module:flow, not {entry!r}.")
    try:
        if Path(place).suffix == ".py":
            return load_flow_from_entrypoint(entry)
        # Find modules in the working directory, as `python -m` does.
        sys.path.insert(0, os.getcwd())
        found = getattr(importlib.import_module(place), name)
    except Exception as error:
        raise InputError(f"The flow {entry} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, Flow):
        raise InputError(f"{entry} is not a flow; decorate it with `@flow`.")
    return found
