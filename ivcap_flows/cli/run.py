"""`ivcap-flows run`: run a flow once, in this process."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from ivcap_flows.cli.entry_point import end_of, load
from ivcap_flows.cli.output import console, print_error, table
from ivcap_flows.cli.parameters import Params, how_written, parameters
from ivcap_flows.errors import InputError

if TYPE_CHECKING:
    from prefect import Flow

__all__ = ["app"]

app = cyclopts.App(name="run", help_flags=(), usage="Usage: ivcap-flows run FLOW [OPTIONS]")


@app.default
def run(
    flow: str | None = None,
    /,
    *,
    param: Params = None,
    fresh: bool = False,
    about: Annotated[bool, Parameter(name=("--help", "-h"))] = False,
) -> int:
    """Run a flow in this process, as a call of it in Python does. Exit status 1 if the flow fails.

    The last run with the same parameters goes on if it did not complete: nothing is ordered again.

    Args:
        flow: `path/to/file.py:flow` or `module:flow`.
        fresh: Begin a new run instead of continuing one.
        about: Print what the flow does and its parameters; without a flow, this.
    """
    if flow is None:
        if about:
            app.help_print()
            return 0
        raise InputError("Name the flow as path/to/file.py:flow or module:flow.")
    entry = load(flow)
    if about:
        _describe(entry)
        return 0
    values = parameters(entry, param or [])
    with _fresh_run() if fresh else nullcontext():
        try:
            state = end_of(entry, values)
        except KeyboardInterrupt:
            return 130
    if state.is_completed():
        if state.name != "Completed":
            console.print(f"{state.name}: {state.message}")
        return 0
    # A paused run has no result yet.
    error = None if state.is_paused() else state.result(raise_on_failure=False)
    print_error(error if isinstance(error, Exception) else RuntimeError(f"The flow is {state.name}: {state.message}"))
    return 1


@contextmanager
def _fresh_run() -> Iterator[None]:
    """Set IVCAP_FLOWS_FRESH in the block, for this process and those that it starts."""
    before = os.environ.get("IVCAP_FLOWS_FRESH")
    os.environ["IVCAP_FLOWS_FRESH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["IVCAP_FLOWS_FRESH"]
        else:
            os.environ["IVCAP_FLOWS_FRESH"] = before


def _describe(flow: Flow[..., Any]) -> None:
    """Print the docstring of a flow, and its parameters as a table, with how each is written."""
    description = (inspect.getdoc(flow.fn) or flow.name).partition("\n\nArgs:")[0]
    console.print(description, end="\n\n")
    needed, written = flow.parameters.required or [], how_written(flow)
    table(
        "Parameters",
        ("name", "written like", "default", "about"),
        [
            (
                name,
                written.get(name, ""),
                "" if name in needed else str(about.get("default")),
                about.get("description", ""),
            )
            for name, about in flow.parameters.properties.items()
        ],
    )
