"""A flow that a command names, `path/to/file.py:flow` or `module:flow`."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ivcap_flows.errors import InputError
from ivcap_flows.plain_text import described

if TYPE_CHECKING:
    from prefect import Flow, State

__all__ = ["call", "end_of", "load"]


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
        raise InputError(f"The flow {entry} cannot be loaded: {described(error)}") from error
    if not isinstance(found, Flow):
        raise InputError(f"{entry} is not a flow; decorate it with `@flow`.")
    return found


def call(flow: Flow[..., Any], values: Mapping[str, Any], **options: Any) -> Any:
    """Call a flow, asynchronous or not, and return what it returns. Of a generator, take all items, and return None."""
    result: Any = flow(**values, **options)
    if inspect.isgenerator(result):
        deque(result, maxlen=0)
        return None
    if inspect.isasyncgen(result):
        return asyncio.run(_exhausted(result))
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


def end_of(flow: Flow[..., Any], values: Mapping[str, Any]) -> State[Any]:
    """Call a flow, and return the state in which its run ended."""
    from prefect.states import Completed, Failed

    if not flow.isgenerator:
        state: State[Any] = call(flow, values, return_state=True)
        return state
    # Prefect returns no state of a generator, and raises what is not completed.
    try:
        call(flow, values)
    except Exception as error:  # noqa: BLE001 - the flow's own
        return Failed(data=error, message=str(error))
    return Completed()


async def _exhausted(items: AsyncGenerator[Any, Any]) -> None:
    async for _ in items:
        pass


async def _awaited(result: Any) -> Any:
    return await result
