"""Record the runs of Prefect tasks without `@recorded`: how they ended, and which values went in and out.

Prefect has no hook for task runs in the flow's process. So this module wraps the public methods that run a task, and
gives them a copy of the task whose function is followed. The files, tables and arrays of such a task are not looked at,
and its parameters are not recorded.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.capture import context, makers
from ivcap_flows.capture.call_scope import CallScope
from ivcap_flows.capture.guard import log_and_count
from ivcap_flows.capture.informants import DOUBTED, doubted
from ivcap_flows.capture.likeness import function_within
from ivcap_flows.capture.prefect_context import in_worker_process, prefect_run_id, task_context
from ivcap_flows.capture.recorder_registry import back_off, is_backing_off
from ivcap_flows.capture.task_runs import call_of, end
from ivcap_flows.capture.wrapping import followed, is_followed, is_ours
from ivcap_flows.durable.plan import planning
from ivcap_flows.errors import JournalError
from ivcap_flows.provenance.records import NOT_LOOKED_AT

if TYPE_CHECKING:
    from ivcap_flows.journal import Outcome

__all__ = ["observe_tasks", "runs_again"]

_OBSERVED: Final = "_ivcap_flows_observed"
_RUNS: Final = ("__call__", "submit", "map")
"""The methods of Prefect's `Task` that run it within a flow."""
_OF_TASK: Final = ("__prefect_self__", "__prefect_cls__")
"""The attributes of a function in which Prefect keeps what its task is bound to."""


_run_again: set[str] = set()


def runs_again(task_key: str) -> bool:
    """Whether a task runs again in a flow that begins anew, even if its result is persisted: it is not read back.

    This is known of each task that a flow of this process has called.
    """
    return task_key in _run_again


def _is_not_read_back(task: Any) -> bool:
    from prefect.cache_policies import NO_CACHE

    uncached = task.result_storage_key is None and task.cache_policy in (None, NO_CACHE)
    # A result that expires may have done so when the flow begins anew.
    return bool(uncached or task.refresh_cache or task.cache_expiration is not None)


def observe_tasks() -> None:
    """Record every Prefect task that runs in a recorded flow, and plan flows and tasks. A second call does nothing."""
    _wrap("prefect.tasks", "Task", _RUNS, _observing)
    _wrap("prefect.flows", "Flow", ("__call__",), _planning)
    _wrap("prefect.flows", "Flow", ("validate_parameters",), _carrying)


def _wrap(module: str, kind: str, methods: Iterable[str], wrapper: Callable[[Any, str], Any]) -> None:
    """Wrap methods of a class of Prefect once, if its module is loaded."""
    owner = getattr(sys.modules.get(module), kind, None)
    for name in methods if owner is not None else ():
        method = getattr(owner, name)
        if not hasattr(method, _OBSERVED):
            wrapped = wrapper(method, name)
            setattr(wrapped, _OBSERVED, True)
            setattr(owner, name, wrapped)


def _planning(run: Callable[..., Any], _: str) -> Callable[..., Any]:
    @functools.wraps(run)
    def planned(flow: Any, *args: Any, **kwargs: Any) -> Any:
        if planning() is None:
            return run(flow, *args, **kwargs)
        from ivcap_flows.capture.planned_runs import run_flow

        return run_flow(flow, *args, **kwargs)

    return planned


def _carrying(validate: Callable[..., Any], _: str) -> Callable[..., Any]:
    @functools.wraps(validate)
    def validated(flow: Any, parameters: dict[str, Any]) -> Any:
        valid = validate(flow, parameters)
        with log_and_count(context.miss, "Whose values the parameters of %s are could not be recorded.", flow.name):
            # Prefect has pydantic copy the lists and dicts among them.
            makers.carry(parameters, valid)
        return valid

    return validated


def _observing(run: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(run)
    def observed(task: Any, *args: Any, **kwargs: Any) -> Any:
        if planning() is not None:
            from ivcap_flows.capture.planned_runs import run_task

            return run_task(task, name, *args, **kwargs)
        if _is_not_read_back(task):
            _run_again.add(task.task_key)
        if name != "__call__":
            _open_before_sending(task)
        others: set[str] = set()
        if name == "map":
            with log_and_count(context.miss, "The links of %s could not be told apart.", task.name):
                others = doubted([*args, *kwargs.values()])
        taken = _observed(task)
        if others:
            taken = copy.copy(taken)
            setattr(taken, DOUBTED, others)
        return run(taken, *args, **kwargs)

    return observed


def _open_before_sending(task: Any) -> None:
    if is_ours(task.fn):
        context.open_before_sending()
        return
    if is_backing_off():
        return
    # What a user's task does may need no journal.
    with log_and_count(
        lambda: context.miss(0), "%s is sent to another process without a record of its flow.", task.name
    ):
        try:
            context.open_before_sending()
        except JournalError:
            back_off()
            raise


def _observed(task: Any) -> Any:
    """Return a copy of the task that is observed; the task itself if it is recorded, or no run of Prefect's owns it."""
    if is_followed(task.fn) or prefect_run_id() == "":
        return task
    other = copy.copy(task)
    other.fn = followed(task.fn, _enter)
    for name in _OF_TASK:
        if hasattr(task.fn, name):
            setattr(other.fn, name, getattr(task.fn, name))
    return other


def _enter(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _ObservedTry | None:
    task = task_context()
    if task is None or function_within(task.task.fn) is not wrapper:
        return None
    call = None
    with log_and_count(context.miss, "%s runs, but its record could not be begun.", task.task.name):
        call = call_of(task, None, context.current_activity())
        call.attributes["files"] = NOT_LOOKED_AT
        call.take(task.parameters or {}, task.task.fn, context.current_call(), task)
        # The end tells all that the begin does, so nothing is missing yet.
        with log_and_count(lambda: context.miss(0), "The begin of %s could not be recorded.", task.task.name):
            context.put_in_flow(call)
    return None if call is None else _ObservedTry(call)


class _ObservedTry(CallScope):
    """One try of an observed task."""

    def record_end(self, outcome: Outcome, cause: str | None) -> None:
        with self.log_and_count("The end of %s could not be recorded."):
            end(self.call, outcome, cause)
            context.put_in_flow(self.call)
            if in_worker_process():
                # A worker of a pool may be killed at any moment, and runs no exit handlers.
                context.recorder().flush()
