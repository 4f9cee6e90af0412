"""A try of a Prefect task as an activity: its id, its names, and the try before it."""

from __future__ import annotations

import os
import socket
from itertools import count
from typing import Any, Final

from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.context import tries_around
from ivcap_flows.capture.informants import ran
from ivcap_flows.capture.prefect_context import in_worker_process
from ivcap_flows.identity import flows_urn

__all__ = ["call_of", "end", "id_of", "newest"]

_newest: str | None = None
_tries: Final = count()


def id_of(task: Any) -> str:
    """The id of the try that runs in Prefect's context of a task run."""
    return _id_of_try(task.task_run.id, task.task_run.run_count or 1)


def call_of(task: Any, run_id: str, attempt_id: str, parent: str | None) -> Call:
    """The try that begins in Prefect's context of a task run."""
    run, tries = task.task_run, task.task_run.run_count or 1
    call = Call(id_of(task), "task-run", task.task.name, run_id, attempt_id, parent)
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
