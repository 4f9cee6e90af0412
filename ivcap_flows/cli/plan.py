"""`ivcap-flows plan`: list what a flow would request from the platforms, without sending anything."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from ivcap_flows.capture.observing import observe_tasks
from ivcap_flows.capture.recorder_registry import use_journal
from ivcap_flows.cli.effects import given, subject
from ivcap_flows.cli.entry_point import call, load
from ivcap_flows.cli.output import Json, console, print_error, print_json, table
from ivcap_flows.cli.parameters import Params, parameters
from ivcap_flows.cli.records import read_journal
from ivcap_flows.durable import Plan
from ivcap_flows.durable import plan as planned
from ivcap_flows.durable.earlier_successes import in_words
from ivcap_flows.work.kinds import KINDS

if TYPE_CHECKING:
    from prefect import Flow

__all__ = ["plan"]


def plan(
    flow: str,
    /,
    *,
    param: Params = None,
    as_json: Json = False,
) -> int:
    """List what a flow would request from the platforms, without sending anything. Exit status 1 if the flow fails.

    The flow's own code runs, up to its first wait for work that does not exist yet, without a Prefect server; what it
    prints goes to standard error. The list says where each result comes from that exists already.

    Args:
        flow: `path/to/file.py:flow` or `module:flow`.
    """
    entry = load(flow)
    found, end, error = _run(entry, parameters(entry, param or []))
    if as_json:
        print_json({"effects": [vars(effect) for effect in found.effects], "end": end})
    else:
        table(
            f"Plan of {flow}",
            ("from", "what", "name", "of", "urn", "origin", "given"),
            [
                (
                    e.source,
                    e.noun,
                    e.name or "",
                    subject(e.noun, e.subject, e.request),
                    e.urn or "",
                    e.origin or (f"equals {e.equals}" if e.equals else ""),
                    given(e.noun, e.request),
                )
                for e in found.effects
            ],
        )
        console.print(end)
        new = [effect for effect in found.new if effect.noun in KINDS]
        if spared := in_words(sum(effect.equals is not None for effect in new), len(new)):
            console.print(spared)
    if error is not None:
        print_error(error)
    return int(error is not None)


def _run(entry: Flow[..., Any], values: dict[str, Any]) -> tuple[Plan, str, Exception | None]:
    """Return the plan, how the flow ended, and the error that ended it, if any."""
    from ivcap_flows.tasks.waiting import PlannedError

    observe_tasks()
    with read_journal() as journal, use_journal(journal), _quietly(), planned() as found:
        try:
            call(entry, values)
        except PlannedError as end:
            return found, str(end), None
        except Exception as error:  # noqa: BLE001 - the flow's own
            return found, "The flow failed.", error
    return found, "The flow ran to its end: all work that it waits for exists.", None


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
