"""`@recorded`: record what the calls of a function used and made. It stands below `@flow` and `@task`."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from contextvars import Token
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

from ivcap_flows.capture import context, files
from ivcap_flows.capture.call_scope import CallScope
from ivcap_flows.capture.calls import Call, CallKind, digest_values
from ivcap_flows.capture.file_edges import Declared
from ivcap_flows.capture.flow_identity import Parameters, source_of
from ivcap_flows.capture.guard import log_and_count
from ivcap_flows.capture.likeness import function_within
from ivcap_flows.capture.observing import observe_tasks
from ivcap_flows.capture.prefect_context import flow_context, task_context
from ivcap_flows.capture.recorder_registry import BACK_OFF, back_off, is_backing_off
from ivcap_flows.capture.task_runs import call_of, end, id_of
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.capture.wrapping import followed, is_ours
from ivcap_flows.durable.plan import planning
from ivcap_flows.errors import InputError, JournalError
from ivcap_flows.handles import LocalFile
from ivcap_flows.identity import flows_urn
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.journal import Outcome

__all__ = ["record", "recorded"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
Names = str | Iterable[str]

log = logger_of("ivcap_flows.capture")

_NOTHING: Final = Declared()


@overload
def recorded(function: Callable[P, R]) -> Callable[P, R]: ...
@overload
def recorded(function: bool = True, *, reads: Names = (), writes: Names = ()) -> Callable[[F], F]: ...
def recorded(function: Any = True, *, reads: Names = (), writes: Names = ()) -> Any:
    """Record the calls of a flow, a task or any other function: `@flow @recorded def …`.

    Handles, paths and plain values are found in arguments and results, also within lists, dicts, dataclasses and
    models. A call does not wait for the network, and waits for the disk only to read the files that it names. Two
    exceptions: a flow that was run before with the same parameters may ask Prefect once how that run ended, and the end
    of a flow waits until its record is in the journal. Errors in recording are logged, not raised. A generator's call
    lasts until its last item is taken. `@recorded(False)` leaves the function unchanged.

    `reads` and `writes` name parameters whose paths the function only reads, or only writes. What was at a path before
    the function wrote it is then not an input. A parameter in both is changed in place. Without either, the observed
    file operations decide. Raises InputError for a finished flow or task, since `@recorded` must stand below it, and
    for a parameter that the function does not have.
    """
    declared = Declared(_names(reads), _names(writes))
    if isinstance(function, bool):
        return partial(_wrap, declared=declared) if function else _unchanged
    return _wrap(function, declared)


def _names(names: Names) -> frozenset[str]:
    return frozenset((names,) if isinstance(names, str) else names)


def _unchanged(function: F) -> F:
    return function


def _wrap(function: Callable[..., Any], declared: Declared) -> Callable[..., Any]:
    name = getattr(function, "__qualname__", type(function).__name__)
    if hasattr(function, "fn") or not callable(function):
        raise InputError(f"Put `@recorded` below `@flow` or `@task` on {name!r}, directly above the function.")
    return record(function, declared)


def record(function: Callable[..., Any], declared: Declared = _NOTHING) -> Callable[..., Any]:
    """Return a function whose calls are recorded. It may also be a flow or task, for a task or flow that calls it."""
    shape = _Shape(function, declared)
    if unknown := sorted((declared.reads | declared.writes) - shape.names):
        raise InputError(
            f"`@recorded` says that {shape.name!r} reads or writes {unknown[0]!r}, which is not a parameter."
        )
    wrapper: Any = followed(function, lambda wrapper, args, kwargs: _enter(wrapper, shape, args, kwargs))
    if shape.signature is not None:
        # Prefect reads the signature at every call, so compute it only once.
        wrapper.__signature__ = shape.signature
    observe_tasks()
    recorded_function: Callable[..., Any] = wrapper
    return recorded_function


class _Shape:
    """The facts that all calls of a function share: the names of its parameters, and where its code is."""

    def __init__(self, function: Callable[..., Any], declared: Declared) -> None:
        self.function = function
        self.source = source_of(function)
        self.name = str(getattr(function, "__name__", self.source[1]))
        # The package's own functions return the digest of a file that they wrote, so that nobody need read it again.
        self.ours = is_ours(function)
        self.declared = declared
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
        defaults = {name: each.default for name, each in plain.parameters.items()}
        self.defaults = {name: default for name, default in defaults.items() if default is not inspect.Parameter.empty}
        self.method = bool(self.positional) and self.positional[0] in ("self", "cls")

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, defaults included. Positional ones without a name are under `*`."""
        given = dict(zip(self.positional, args))  # noqa: B905 - either may be longer
        if self.method:
            given.pop(self.positional[0], None)
        if len(args) > len(self.positional):
            given["*"] = args[len(self.positional) :]
        return self.defaults | given | kwargs


class _RecordedCall(CallScope):
    """One recorded call."""

    def __init__(self, call: Call, attempt: Any, recorder: Any, *, is_flow: bool, ours: bool = False) -> None:
        self.attempt, self.recorder, self.is_flow, self.ours = attempt, recorder, is_flow, ours
        self._attempt_token: Token[Any] | None = None
        self._closing: Callable[[], None] | None = None
        call.file_activity.begin(flow=is_flow)
        super().__init__(call)

    def enter(self) -> None:
        super().enter()
        self._attempt_token = context._attempt.set(self.attempt) if self.is_flow else None
        self.call.file_activity.resume()

    def leave(self) -> None:
        super().leave()
        if self._attempt_token is not None:
            context._attempt.reset(self._attempt_token)
            self._attempt_token = None
        self.call.file_activity.pause()

    def end(self) -> None:
        super().end()
        self.call.file_activity.end()

    def note_result(self, value: Any) -> None:
        if value is not None:
            self.call.returned.at("result", value)

    def log_and_count(self, message: str) -> AbstractContextManager[None]:
        return log_and_count(lambda: self.recorder.miss(self.attempt.run.id), message, self.call.name)

    def record_end(self, outcome: Outcome, cause: str | None) -> None:
        from ivcap_flows.journal.processes import is_this

        call, digests = self.call, self.recorder.journal.files
        here = is_this(self.attempt.attempt.process)
        with self.log_and_count("The files and data of %s could not be recorded."):
            if self.ours:
                for _, handle in call.returned.handles:
                    if isinstance(handle, LocalFile):
                        files.remember(handle.path, handle.sha256, handle.size, digests)
            call.snapshot_exit(digests, other_process=not here)
        end(call, outcome, cause)
        self.recorder.put(call)
        if self.is_flow:
            self._closing = partial(context.close_attempt, self.attempt, outcome, call.cause)
        elif not here:
            # A worker of a pool may be killed at any moment, and runs no exit handlers.
            self.recorder.flush()

    @property
    def closes(self) -> bool:  # type: ignore[override]
        return self._closing is not None

    def close(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            with self.log_and_count("The end of %s could not be recorded."):
                closing()


def _enter(wrapper: Any, shape: _Shape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _RecordedCall | None:
    """Begin to record a call. Return None if the call is not recorded, and warn if that is due to an error."""
    if is_backing_off():
        context.miss()
        return None
    try:
        given = shape.bind(args, kwargs)
        plan = planning()
        if plan is not None:
            # A planned call does not happen. The plan only needs to know which run it would continue.
            context.let_continue(plan, given, shape.source)
            return None
        return _begin(wrapper, shape, given)
    except JournalError as error:
        # The flow goes on. A task that needs the journal raises its own error.
        back_off()
        log.warning("Recording pauses for %d s. %s", BACK_OFF, error)
    except Exception:
        log.warning("%s runs, but its record could not be begun.", shape.name, exc_info=True)
    context.miss()
    return None


def _begin(wrapper: Any, shape: _Shape, given: dict[str, Any]) -> _RecordedCall:
    outer = context.current_activity()
    task, flow = task_context(), flow_context()
    if task is not None and function_within(task.task.fn) is wrapper:
        attempt = context.current_attempt()
        if id_of(task, attempt) != outer:
            call = call_of(task, attempt, _parent(outer, attempt))
            return _recorded_call(call, attempt, given, shape, task)
    elif _is_flow(flow, wrapper):
        known = context._attempt.get()
        if known is None or known.attempt.flow_run_id != str(flow.flow_run.id):
            return _flow_call(flow, shape, given)
    attempt = context.current_attempt()
    call = _call(flows_urn("call", uuid.uuid4()), "call", shape.name, attempt, _parent(outer, attempt))
    call.tries = context.tries_around()
    return _recorded_call(call, attempt, given, shape)


def _is_flow(flow: Any, wrapper: Any) -> bool:
    """Whether a wrapper is the function of the innermost flow that runs in this process."""
    if flow is None or flow.detached or flow.flow is None or flow.flow_run is None:
        return False
    return function_within(flow.flow.fn) is wrapper


def _parent(outer: str | None, attempt: Any) -> str:
    return outer if outer is not None else flows_urn("attempt", attempt.attempt.id)


def _call(id_: str, kind: CallKind, name: str, attempt: Any, parent: str | None) -> Call:
    return Call(id_, kind, name, attempt.run.id, attempt.attempt.id, parent)


def _recorded_call(call: Call, attempt: Any, given: dict[str, Any], shape: _Shape, task: Any = None) -> _RecordedCall:
    recorder = context.recorder()
    call.declared = shape.declared
    call.take(given, shape.function, context.current_call(), task)
    call.parameters = call.given.shown(call.arguments)
    if call.arguments.paths or call.arguments.data:
        call.snapshot_entry(recorder.journal.files)
    recorder.put(call)
    return _RecordedCall(call, attempt, recorder, is_flow=False, ours=shape.ours)


def _flow_call(flow: Any, shape: _Shape, given: dict[str, Any]) -> _RecordedCall:
    look = ValueScan()
    shown = {name: look.named(name, name, value) for name, value in given.items()}
    held = digest_values(look, context.current_call())
    parameters = Parameters(given, shown, held)
    attempt = context.open_flow_attempt(flow, parameters, shape.source, context.current_activity())
    recorder = context.recorder()
    # The attempt itself records its start and its parameters.
    call = _call(flows_urn("attempt", attempt.attempt.id), "attempt", flow.flow.name, attempt, None)
    call.started, call.arguments, call.data = attempt.attempt.started_at, look, held
    call.declared = shape.declared
    call.take(given, shape.function, context.current_call())
    if look.paths or held:
        call.snapshot_entry(recorder.journal.files)
    recorder.put(call)
    return _RecordedCall(call, attempt, recorder, is_flow=True)
