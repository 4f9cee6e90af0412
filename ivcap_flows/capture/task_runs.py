"""A try of a Prefect task as an activity: its id, its names, and the try before it."""

from __future__ import annotations

import os
import socket
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.context import tries_around
from ivcap_flows.capture.informants import ran
from ivcap_flows.capture.prefect_context import in_worker_process
from ivcap_flows.identity import flows_urn

if TYPE_CHECKING:
    from ivcap_flows.journal import OpenedAttempt

__all__ = ["call_of", "end", "id_of", "newest"]

_newest: str | None = None
_tries: Final = count()


def id_of(task: Any, opened: OpenedAttempt | None = None) -> str:
    """The id of the try that runs in Prefect's context of a task run. `opened` is its attempt, if it is known."""
    return _id_of_try(task.task_run.id, _number_of(task, opened))


def _number_of(task: Any, opened: OpenedAttempt | None) -> int:
    """The number of a try. That of a background task is its attempt's: Prefect counts anew if it is delivered again."""
    if opened is not None and str(task.task_run.id) == opened.attempt.flow_run_id:
        return opened.attempt.number
    return int(task.task_run.run_count or 1)


def call_of(task: Any, opened: OpenedAttempt | None, parent: str | None) -> Call:
    """The try that begins in Prefect's context of a task run. `opened` is its attempt, if it is known."""
    run, tries = task.task_run, _number_of(task, opened)
    ids = ("", "") if opened is None else (opened.run.id, opened.attempt.id)
    call = Call(id_of(task, opened), "task-run", task.task.name, *ids, parent)
    call.attributes = {"run_name": run.name}
    call.tries = (*tries_around(), (str(run.id), next(_tries)))
    if in_worker_process():
        # The flow runs in another process, which its attempt names.
        call.attributes["process"] = f"{socket.gethostname()}:{os.getpid()}"
    if tries > 1:
        call.attributes["try"] = tries
        call.before = _id_of_try(run.id, tries - 1)
    ran(str(run.id), call.id)
    return call


def end(call: Call, outcome: str, cause: str | None) -> None:
    """State how a call ended."""
    global _newest
    call.end(outcome, cause)
    if call.kind == "task-run":
        _newest = call.id.rpartition(":")[2].partition(".")[0]


def newest() -> str | None:
    """The id of the task run whose function ended last in this process."""
    return _newest


def _id_of_try(task_run_id: Any, number: int) -> str:
    return flows_urn("task-run", task_run_id) if number <= 1 else flows_urn("task-run", f"{task_run_id}.{number}")
