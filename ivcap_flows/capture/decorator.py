"""`@recorded`: a function whose calls state what they used and made. It stands below `@flow` and `@task`."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from contextvars import Token
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, overload

from ivcap_flows.capture import context, files
from ivcap_flows.capture.calls import Call, CallKind, now, seen_in
from ivcap_flows.capture.file_edges import Given
from ivcap_flows.capture.guard import unraised
from ivcap_flows.capture.values import Look
from ivcap_flows.durable.plan import planning
from ivcap_flows.errors import InputError, JournalError
from ivcap_flows.handles import LocalFile
from ivcap_flows.identity import flows_urn
from ivcap_flows.secrets import scrub_text

if TYPE_CHECKING:
    from ivcap_flows.journal import ProcessRow

__all__ = ["recorded"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
Names = str | Iterable[str]

log = logging.getLogger("ivcap_flows.capture")

_MAX_CAUSE: Final = 2_000
_SILENCE: Final = 30.0
_silent_until = 0.0


@overload
def recorded(function: Callable[P, R]) -> Callable[P, R]: ...
@overload
def recorded(function: bool = True, *, reads: Names = (), writes: Names = ()) -> Callable[[F], F]: ...
def recorded(function: Any = True, *, reads: Names = (), writes: Names = ()) -> Any:
    """Record the calls of a flow's, a task's or any other function: `@flow @recorded def …`.

    Handles, paths and plain values in arguments and result are found in lists, dicts, dataclasses and models. A call
    costs no network and waits for no disk beyond the files it names, but that a flow, where it was run before with the
    same parameters, may ask Prefect once how that ended; whatever goes wrong in recording is logged, not raised.
    `@recorded(False)` leaves the function as it is.

    `reads` and `writes` name parameters whose paths the function only reads, or only writes: what lay there before it
    wrote is then no input. A parameter in both is changed in place. Without either, what was seen of the files decides.
    InputError for a generator function, for a finished flow or task, which `@recorded` has to be below of, and for a
    parameter that the function has not.
    """
    says = Given(_names(reads), _names(writes))
    if isinstance(function, bool):
        return partial(_wrap, says=says) if function else _leave
    return _wrap(function, says)


def _names(names: Names) -> frozenset[str]:
    return frozenset((names,) if isinstance(names, str) else names)


def _leave(function: F) -> F:
    return function


def _wrap(function: Callable[..., Any], says: Given) -> Callable[..., Any]:
    name = getattr(function, "__qualname__", type(function).__name__)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InputError(f"`@recorded` cannot follow the generator function {name!r}. Return a list, or leave it out.")
    if hasattr(function, "fn") or not callable(function):
        raise InputError(f"`@recorded` has to stand below `@flow` or `@task` on {name!r}, next to the function.")
    shape = _Shape(function, says)
    if unknown := sorted((says.reads | says.writes) - shape.names):
        raise InputError(f"{name!r} has no parameter {unknown[0]!r}, which `@recorded` says that it reads or writes.")

    wrapper: Any
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            scope = _enter(asynchronous, shape, args, kwargs)
            if scope is None:
                return await function(*args, **kwargs)
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                scope.fail(error)
                raise
            scope.finish(result)
            return result

        wrapper = asynchronous
    else:

        @functools.wraps(function)
        def synchronous(*args: Any, **kwargs: Any) -> Any:
            scope = _enter(synchronous, shape, args, kwargs)
            if scope is None:
                return function(*args, **kwargs)
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                scope.fail(error)
                raise
            scope.finish(result)
            return result

        wrapper = synchronous
    if shape.signature is not None:
        # Prefect asks for the signature at every call; computed once, it costs nothing.
        wrapper.__signature__ = shape.signature
    recorded_function: Callable[..., Any] = wrapper
    return recorded_function


class _Shape:
    """What a function's calls have in common: its parameters' names, and where its code is."""

    def __init__(self, function: Callable[..., Any], says: Given) -> None:
        self.source = context.source_of(function)
        self.name = str(getattr(function, "__name__", self.source[1]))
        # What the package itself says of a file that it has written is taken from it.
        self.ours = str(getattr(function, "__module__", "")).startswith("ivcap_flows.")
        self.says = says
        self.signature: inspect.Signature | None = None
        try:
            plain = inspect.signature(function)
        except (TypeError, ValueError):
            plain = inspect.Signature()
        try:
            self.signature = inspect.signature(function, eval_str=True)
        except Exception:  # noqa: BLE001 - annotations that cannot be evaluated yet are left to Prefect
            self.signature = None
        kinds = inspect.Parameter
        self.names = frozenset(plain.parameters)
        self.positional = tuple(
            name
            for name, parameter in plain.parameters.items()
            if parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        )
        self.method = bool(self.positional) and self.positional[0] in ("self", "cls")

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The given arguments by name; those beyond the named ones as `*`."""
        given = dict(zip(self.positional, args))  # noqa: B905 - either may be longer
        if self.method:
            given.pop(self.positional[0], None)
        if len(args) > len(self.positional):
            given["*"] = args[len(self.positional) :]
        given.update(kwargs)
        return given


class _Scope:
    """One recorded call between its begin and its end."""

    __slots__ = ("attempt", "attempt_token", "call", "call_token", "ours", "recorder")

    def __init__(self, call: Call, attempt: Any, recorder: Any, *, opens: bool, ours: bool = False) -> None:
        self.call, self.attempt, self.recorder, self.ours = call, attempt, recorder, ours
        self.attempt_token: Token[Any] | None = context._attempt.set(attempt) if opens else None
        self.call_token = context._call.set(call)
        call.opened.begin()

    def finish(self, result: Any) -> None:
        try:
            with self._unraised("The end of %s could not be recorded."):
                if result is not None:
                    self.call.returned.at("result", result)
                self._end(*_outcome_of(result))
        finally:
            self._leave()

    def fail(self, error: BaseException) -> None:
        try:
            with self._unraised("The failure of %s could not be recorded."):
                self._end(*_outcome_of_error(error))
        finally:
            self._leave()

    def _unraised(self, told: str) -> AbstractContextManager[None]:
        return unraised(lambda: self.recorder.miss(self.attempt.run.id), told, self.call.name)

    def _end(self, outcome: str, cause: str | None) -> None:
        call, digests = self.call, self.recorder.journal.files
        if self.ours:
            for _, handle in call.returned.handles:
                if isinstance(handle, LocalFile):
                    files.remember(handle.path, handle.sha256, handle.size, digests)
        here = _runs_here(self.attempt.attempt.process, os.getpid())
        if call.given.paths or call.returned.paths or call.held or call.returned.data:
            call.look_at_exit(digests, apart=not here)
        call.outcome = outcome
        call.cause = scrub_text(cause)[:_MAX_CAUSE] if cause is not None else None
        # Last, since the recorder takes a call with an end as a finished one.
        # Clocks are set back, and the start of an attempt is told by the journal's.
        call.ended = max(now(), call.started)
        self.recorder.put(call)
        if self.attempt_token is not None:
            context.close_attempt(self.attempt, outcome, call.cause)  # type: ignore[arg-type]
        elif not here:
            # A worker of a pool may be ended at any moment and runs no exit handlers.
            self.recorder.flush()

    def _leave(self) -> None:
        context._call.reset(self.call_token)
        if self.attempt_token is not None:
            context._attempt.reset(self.attempt_token)
        self.call.opened.end()


def _enter(wrapper: Any, shape: _Shape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Scope | None:
    """Begin to record a call; None, with a warning, where that is not possible."""
    global _silent_until
    if time.monotonic() < _silent_until:
        context.miss()
        return None
    try:
        given = shape.bind(args, kwargs)
        plan = planning()
        if plan is not None:
            # What is only planned has not happened; the plan needs to know which run it would continue.
            context.let_continue(plan, given, shape.source)
            return None
        return _begin(wrapper, shape, given)
    except JournalError as error:
        # Every task would wait for a journal that is down; the flow goes on, and what must not go on fails by itself.
        _silent_until = time.monotonic() + _SILENCE
        log.warning("Nothing is recorded for %d s: %s", _SILENCE, error)
    except Exception:
        log.warning("%s runs without a record.", shape.name, exc_info=True)
    context.miss()
    return None


def _begin(wrapper: Any, shape: _Shape, given: dict[str, Any]) -> _Scope:
    outer = context.current_activity()
    task = context.task_context()
    if task is not None and _is(task.task.fn, wrapper):
        run = task.task_run
        tries = run.run_count or 1
        id_ = flows_urn("task-run", run.id) if tries <= 1 else flows_urn("task-run", f"{run.id}.{tries}")
        if id_ != outer:
            attempt = context.current_attempt()
            call = _call(id_, "task-run", task.task.name, attempt, _parent(outer, attempt))
            call.attributes = {"run_name": run.name} if tries <= 1 else {"run_name": run.name, "try": tries}
            if tries > 1:
                last = run.id if tries == 2 else f"{run.id}.{tries - 1}"
                call.before = flows_urn("task-run", last)
            return _scope(call, attempt, given, shape)
    elif task is None:
        flow = context.flow_context()
        if flow is not None and flow.flow is not None and flow.flow_run is not None and _is(flow.flow.fn, wrapper):
            known = context._attempt.get()
            if known is None or known.attempt.flow_run_id != str(flow.flow_run.id):
                return _scope_of_flow(flow, shape, given)
    attempt = context.current_attempt()
    call = _call(flows_urn("call", uuid.uuid4()), "call", shape.name, attempt, _parent(outer, attempt))
    return _scope(call, attempt, given, shape)


def _is(function: Any, wrapper: Any) -> bool:
    return getattr(function, "__func__", function) is wrapper


def _parent(outer: str | None, attempt: Any) -> str:
    return outer if outer is not None else flows_urn("attempt", attempt.attempt.id)


def _call(id_: str, kind: CallKind, name: str, attempt: Any, parent: str | None) -> Call:
    return Call(id_, kind, name, attempt.run.id, attempt.attempt.id, parent)


def _scope(call: Call, attempt: Any, given: dict[str, Any], shape: _Shape) -> _Scope:
    recorder = context.recorder()
    call.says = shape.says
    call.parameters = {name: call.given.at(name, value) for name, value in given.items()}
    if call.given.paths or call.given.data:
        call.look_at_entry(recorder.journal.files)
    recorder.put(call)
    return _Scope(call, attempt, recorder, opens=False, ours=shape.ours)


def _scope_of_flow(flow: Any, shape: _Shape, given: dict[str, Any]) -> _Scope:
    look = Look()
    shown = {name: look.at(name, value) for name, value in given.items()}
    held = seen_in(look)
    attempt = context.open_flow_attempt(flow, context.Parameters(given, shown, held), shape.source)
    recorder = context.recorder()
    # Its start and its parameters are stated by the attempt itself.
    call = _call(flows_urn("attempt", attempt.attempt.id), "attempt", flow.flow.name, attempt, None)
    call.started, call.given, call.held, call.says = attempt.attempt.started_at, look, held, shape.says
    if look.paths or held:
        call.look_at_entry(recorder.journal.files)
    recorder.put(call)
    return _Scope(call, attempt, recorder, opens=True)


@lru_cache(maxsize=256)
def _runs_here(process: ProcessRow, pid: int) -> bool:
    """Whether this process, of number `pid`, is the one; in containers the numbers of two are often the same."""
    from ivcap_flows.journal.processes import is_this

    return process.pid == pid and is_this(process)


def _outcome_of(result: Any) -> tuple[Literal["completed", "failed", "crashed", "cancelled"], str | None]:
    """A flow may return Prefect states, which decide its outcome (Prefect: final state determination)."""
    states = result if isinstance(result, list | tuple) else (result,)
    for state in states:
        if type(state).__name__ == "State" and type(state).__module__.startswith("prefect"):
            if state.is_cancelled():
                return "cancelled", state.message
            if state.is_failed() or state.is_crashed():
                return "failed", state.message
    return "completed", None


def _outcome_of_error(error: BaseException) -> tuple[str, str | None]:
    kind = type(error)
    names = {base.__name__ for base in kind.__mro__ if base.__module__.startswith(("prefect", "asyncio"))}
    if "Pause" in names:
        return "parked", getattr(getattr(error, "state", None), "message", None)
    cause = f"{kind.__name__}: {error}"
    if names & {"CancelledError", "CancelledRun"}:
        return "cancelled", cause
    return ("failed" if isinstance(error, Exception) else "crashed"), cause
