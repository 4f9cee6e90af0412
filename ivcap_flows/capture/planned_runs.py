"""The flows and tasks of a plan, run as plain functions: no flow run begins, and no Prefect server is asked."""

from __future__ import annotations

import concurrent.futures
import contextlib
import inspect
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from typing import Any

from prefect import Flow, State, Task
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.futures import PrefectConcurrentFuture
from prefect.results import ResultRecord, ResultRecordMetadata  # type: ignore[attr-defined] # not in `__all__`
from prefect.serializers import JSONSerializer
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect.utilities.callables import call_with_parameters, get_call_parameters
from prefect.utilities.engine import resolve_inputs_sync

from ivcap_flows.in_prefect.parameters import validated

__all__ = ["run_flow", "run_task"]


class _AtOnce(TaskRunner[PrefectConcurrentFuture[Any]]):
    """A task runner that runs each task as it is submitted, so a plan has one order. `map` is Prefect's own."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._started = True

    def duplicate(self) -> _AtOnce:
        return self

    def submit(
        self, task: Task[Any, Any], parameters: dict[str, Any], wait_for: Any = None, dependencies: Any = None
    ) -> PrefectConcurrentFuture[Any]:
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        state = _called(task.fn, parameters, as_state=True)
        done.set_result(run_coro_as_sync(state) if inspect.iscoroutine(state) else state)
        future: PrefectConcurrentFuture[Any] = PrefectConcurrentFuture(uuid.uuid4(), done)
        # It has its state from now on. Otherwise it would ask the server.
        future.wait()
        return future


def run_task(task: Task[Any, Any], method: str, *args: Any, **kwargs: Any) -> Any:
    """Do what the method `__call__`, `submit` or `map` of a task does, without an engine."""
    as_state, wait_for = kwargs.pop("return_state", False), kwargs.pop("wait_for", None)
    given = get_call_parameters(task.fn, args, kwargs, apply_defaults=method != "map")
    if method == "__call__":
        return _called(task.fn, given, as_state=as_state)
    if method == "map":
        futures = _AtOnce().map(task, given, wait_for)
        return [future.state for future in futures] if as_state else futures
    future = _AtOnce().submit(task, given, wait_for)
    return future.state if as_state else future


def run_flow(flow: Flow[Any, Any], *args: Any, **kwargs: Any) -> Any:
    """Do what a call of a flow does, without an engine."""
    as_state = kwargs.pop("return_state", False)
    kwargs.pop("wait_for", None)
    given = validated(flow, resolve_inputs_sync(get_call_parameters(flow.fn, args, kwargs)))
    return _called(flow.fn, given, as_state=as_state, within=lambda: _running(flow, given))


@contextlib.contextmanager
def _running(flow: Flow[Any, Any], parameters: dict[str, Any]) -> Iterator[None]:
    """Set what the code of a flow finds of its run: a logger, names and parameters. It has no client."""
    run = FlowRun(flow_id=uuid.uuid4(), name=flow.name, parameters=parameters)
    known: dict[str, Any] = {
        "flow": flow,
        "flow_run": run,
        "parameters": parameters,
        "task_runner": _AtOnce(),
        "client": None,
    }
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}), FlowRunContext.model_construct(**known):
        yield


def _called(
    function: Callable[..., Any],
    parameters: dict[str, Any],
    *,
    as_state: bool,
    within: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Any:
    """Return what a function returns, or its state; awaitable if the function is asynchronous.

    What a generator function returns is a generator, which runs as its items are taken. Its state has them in a list.
    """

    async def awaited(result: Awaitable[Any]) -> Any:
        with _ending(as_state) as end, within():
            end.append(await result)
        return end[0]

    def items(results: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        with _ending(as_state) as end, within():
            end.append((yield from results))
        return end[0]

    async def awaited_items(results: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
        with within():
            async for item in results:
                yield item

    given = resolve_inputs_sync(parameters)
    if inspect.iscoroutinefunction(function):
        return awaited(call_with_parameters(function, given))
    if inspect.isasyncgenfunction(function):
        return awaited_items(call_with_parameters(function, given))
    if inspect.isgeneratorfunction(function) and not as_state:
        return items(call_with_parameters(function, given))
    with _ending(as_state) as end, within():
        result = call_with_parameters(function, given)
        end.append(list(result) if as_state and inspect.isgenerator(result) else result)
    return end[0]


@contextlib.contextmanager
def _ending(as_state: bool) -> Iterator[list[Any]]:
    """Yield a list for what a function returned. Replace it by the value that the caller gets, or by its state."""
    end: list[Any] = []
    try:
        yield end
    except Exception as error:
        if not as_state:
            raise
        end.append(Failed(data=error, message=str(error)))
    [given] = end
    if not isinstance(given, State):
        given = Completed(data=given)
    if as_state:
        end[0] = given.model_copy(update={"data": _kept(given.data)})
    else:
        end[0] = given.data


def _kept(value: Any) -> ResultRecord[Any]:
    metadata = ResultRecordMetadata(storage_key="planned", expiration=None, serializer=JSONSerializer())
    return ResultRecord(result=value, metadata=metadata)
