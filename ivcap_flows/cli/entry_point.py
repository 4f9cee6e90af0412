"""A flow that a command names, `path/to/file.py:flow` or `module:flow`, and its parameters, given as `name=value`."""

from __future__ import annotations

import asyncio
import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from cyclopts import Parameter

from ivcap_flows.errors import InputError

if TYPE_CHECKING:
    from prefect import Flow

__all__ = ["Params", "call", "load", "parameters"]

Params = Annotated[
    list[str] | None,
    Parameter(
        name=("--param", "-p"),
        help="Parameter of the flow as `name=value`; unless the flow takes a text, the value is read as YAML.",
    ),
]


def load(entry: str) -> Flow[..., Any]:
    """Return the flow of an entry point. Raises InputError if there is none.

    Modules are found in the working directory, as by `python -m`.
    """
    from prefect import Flow
    from prefect.flows import load_flow_from_entrypoint

    place, colon, name = entry.rpartition(":")
    if not colon:
        raise InputError(f"Name the flow as path/to/file.py:flow or module:flow, not {entry!r}.")
    sys.path.insert(0, os.getcwd())
    try:
        if Path(place).suffix == ".py":
            return load_flow_from_entrypoint(entry)
        found = getattr(importlib.import_module(place), name)
    except Exception as error:
        raise InputError(f"The flow {entry} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, Flow):
        raise InputError(f"{entry} is not a flow; decorate it with `@flow`.")
    return found


def parameters(flow: Flow[..., Any], given: Iterable[str]) -> dict[str, Any]:
    """Return the parameters that are given as `name=value`. Raises InputError if the flow does not accept them."""
    from prefect.exceptions import ParameterBindError, ParameterTypeError, SignatureMismatchError
    from prefect.utilities.callables import get_call_parameters

    values = dict(_parameter(flow, text) for text in given)
    try:
        whole = get_call_parameters(flow.fn, (), values)
        if flow.should_validate_parameters:
            flow.validate_parameters(whole)
    except (ParameterBindError, ParameterTypeError, SignatureMismatchError) as error:
        raise InputError(f"The flow {flow.name} does not accept these parameters: {error}") from error
    return values


def call(flow: Flow[..., Any], values: Mapping[str, Any], **options: Any) -> Any:
    """Call a synchronous or an asynchronous flow, and return what it returns."""
    result: Any = flow(**values, **options)
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


def _value(flow: Flow[..., Any], name: str, text: str) -> Any:
    """Return the value of a parameter that is given as a text: unchanged if the flow takes a text, else read as YAML.

    So `2010` is a text for `month: str`, and a number for `month: int | str`. Raises InputError if it is not YAML.
    """
    types = _types(flow.parameters.properties.get(name, {}), flow.parameters.definitions)
    if types == {"string"} or (types == {"string", "null"} and text != "null"):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"The value of {name} is not YAML: {error}") from error


def _parameter(flow: Flow[..., Any], text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"Give a parameter as name=value, not {text!r}.")
    known = flow.parameters.properties
    if name not in known and not _takes_any(flow):
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise InputError(f"The flow {flow.name} has no parameter {name}. {meant}It has: {', '.join(known) or 'none'}.")
    return name, _value(flow, name, value)


def _takes_any(flow: Flow[..., Any]) -> bool:
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(flow.fn).parameters.values())


def _types(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> set[str]:
    """Return the JSON types that a schema accepts, or `any`."""
    if "$ref" in schema:
        schema = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
    if "type" in schema:
        return {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])
    found = [_types(each, definitions) for name in ("anyOf", "oneOf", "allOf") for each in schema.get(name, ())]
    return set().union(*found) if found else {"any"}


async def _awaited(result: Any) -> Any:
    return await result
