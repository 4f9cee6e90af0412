"""A flow that a command names, `path/to/file.py:flow` or `module:flow`."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivcap_flows.errors import InputError

if TYPE_CHECKING:
    from prefect import Flow

__all__ = ["call", "load"]


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


def call(flow: Flow[..., Any], values: Mapping[str, Any], **options: Any) -> Any:
    """Call a synchronous or an asynchronous flow, and return what it returns."""
    result: Any = flow(**values, **options)
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(result: Any) -> Any:
    return await result
