"""What Prefect knows of the running code: its flow run, its task run, the process and the flow around it.

This module never imports Prefect. If Prefect's context module is not loaded, no flow runs.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

from ivcap_flows.capture.calls import now

__all__ = [
    "background_task",
    "caller_of",
    "flow_context",
    "flow_run_id",
    "in_worker_process",
    "passed_timeout",
    "prefect_run_id",
    "root_of",
    "sends_tasks_away",
    "task_context",
]


def flow_context() -> Any:
    """Return Prefect's FlowRunContext, or None outside of a flow."""
    module = sys.modules.get("prefect.context")
    return None if module is None else module.FlowRunContext.get()


def task_context() -> Any:
    """Return Prefect's TaskRunContext, or None outside of a task."""
    module = sys.modules.get("prefect.context")
    return None if module is None else module.TaskRunContext.get()


def flow_run_id() -> str:
    """Return the id of the flow run that owns the running code, or "" if none does."""
    context = flow_context()
    if context is not None and context.flow_run is not None:
        return str(context.flow_run.id)
    # Prefect hands no context to a task worker with a task that has no parameters, only the id.
    task = _delivered_task()
    owner = None if task is None else task.task_run.flow_run_id
    return "" if owner is None else str(owner)


def background_task() -> Any:
    """Return Prefect's context of the task run around the running code that a task worker executes for no flow run.

    Return None elsewhere. A flow that such a task calls in this process is within it.
    """
    task = _delivered_task()
    return task if task is not None and task.task_run.flow_run_id is None else None


def prefect_run_id() -> str:
    """Return the id of the flow run that owns the running code, else of its background task run, or "" without one."""
    owner = flow_run_id()
    if owner:
        return owner
    task = background_task()
    return "" if task is None else str(task.task_run.id)


def _delivered_task() -> Any:
    """Return Prefect's context of the task run that was delivered to this task worker, or None.

    Such a run was scheduled, and so has a time for which it was. Runs of tasks that code calls begin at once. The
    innermost counts: with a task that another background task sends, Prefect hands on the context of the sender.
    """
    context = task_context()
    while context is not None and context.task_run.next_scheduled_start_time is None:
        context = _outer(context)
    return context


def _outer(context: Any) -> Any:
    """Return the context of the same kind around a context of Prefect's, or None."""
    # Prefect keeps no reference to it, but the token by which it returns to it.
    token = context._token
    return None if token is None or token.old_value is token.MISSING else token.old_value


def in_worker_process() -> bool:
    """Whether the flow that owns the running code runs in another process than this one."""
    context = flow_context()
    return flow_run_id() != "" if context is None else bool(context.detached)


def caller_of(context: Any) -> Any:
    """Return Prefect's context of the flow that called the flow of a context in this process, or None."""
    inner = context
    while inner is not None and inner.flow_run is not None:
        outer = _outer(inner)
        if outer is not None and outer.flow_run is not None and outer.flow_run.id != context.flow_run.id:
            return None if outer.detached else outer
        inner = outer
    return None


def root_of(flow_run: Any) -> str:
    if flow_run.parent_task_run_id is None:
        return str(flow_run.id)
    try:
        from prefect.runtime import flow_run as runtime

        return str(runtime.root_flow_run_id)
    except Exception:  # noqa: BLE001 - without the API a child counts as a separate run
        return str(flow_run.id)


def sends_tasks_away(context: Any) -> bool:
    """Whether the task runner of the flow in a context sends its tasks to other processes."""
    from prefect.task_runners import ThreadPoolTaskRunner

    return not isinstance(context.task_runner, ThreadPoolTaskRunner)


def passed_timeout() -> float | None:
    """Return the timeout in seconds of the task run around the running code, or else its flow run, if it has passed."""
    task, flow = task_context(), flow_context()
    run, seconds = (None, None) if flow is None else (flow.flow_run, flow.flow.timeout_seconds)
    if task is not None:
        run, seconds = task.task_run, task.task.timeout_seconds
    if not seconds or run is None or run.state is None:
        return None
    return float(seconds) if now() - run.state.timestamp >= timedelta(seconds=seconds) else None
