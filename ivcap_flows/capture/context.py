"""Which attempt of which logical run the running code belongs to, in any thread or process.

Prefect is never imported here: where its context module is not loaded, no flow runs.
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import logging
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows import __version__
from ivcap_flows.capture.calls import Call, now
from ivcap_flows.capture.logs import show_in_runs
from ivcap_flows.capture.values import Look
from ivcap_flows.capture.writer import Recorder, Statement
from ivcap_flows.identity import canonical, digest, flows_urn
from ivcap_flows.provenance.records import Record, activity, agent, entity, relation
from ivcap_flows.secrets import scrub, scrub_text

if TYPE_CHECKING:
    from ivcap_flows.capture.files import Seen
    from ivcap_flows.durable import LogicalRun, Plan
    from ivcap_flows.journal import Journal, OpenedAttempt, Outcome, RunIdentity

__all__ = [
    "acting_as",
    "close_attempt",
    "current_activity",
    "current_attempt",
    "flow_context",
    "found",
    "journal",
    "let_continue",
    "note",
    "open_flow_attempt",
    "process_recorder",
    "recorder",
    "seen",
    "task_context",
    "use_journal",
]

log = logging.getLogger("ivcap_flows.capture")

SOFTWARE: Final = flows_urn("software", f"ivcap-flows:{__version__}")

_attempt: ContextVar[OpenedAttempt | None] = ContextVar("ivcap_flows_attempt", default=None)
_call: ContextVar[Call | None] = ContextVar("ivcap_flows_call", default=None)
_lock = threading.RLock()
_recorders: dict[str, Recorder] = {}
_override: Recorder | None = None
_by_flow_run: dict[str, OpenedAttempt] = {}
_open: dict[str, LogicalRun] = {}
_of_process: dict[tuple[int, str], LogicalRun] = {}
_agents: set[tuple[str, str]] = set()


def _forget_parent() -> None:
    """In a forked child: connections of the parent's must not be used, its attempts are found in the journal."""
    global _lock
    _lock = threading.RLock()
    for known in (_recorders, _by_flow_run, _open, _of_process):
        known.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def recorder() -> Recorder:
    """The recorder of the journal that the environment names, opened at the first use."""
    if _override is not None:
        return _override
    url = os.environ.get("IVCAP_FLOWS_JOURNAL", "")
    found = _recorders.get(url)
    if found is None:
        with _lock:
            found = _recorders.get(url)
            if found is None:
                from ivcap_flows.journal import Journal
                from ivcap_flows.settings import Settings

                found = _recorders[url] = Recorder(Journal.open(Settings().journal))
    return found


def process_recorder() -> Recorder | None:
    """The recorder if the journal was opened already, and None otherwise."""
    return _override or _recorders.get(os.environ.get("IVCAP_FLOWS_JOURNAL", ""))


def journal() -> Journal:
    """This process's journal. JournalError or ConfigurationError if it cannot be opened."""
    return recorder().journal


@contextlib.contextmanager
def use_journal(other: Journal) -> Iterator[Recorder]:
    """Record into another journal than the environment's while the block runs, in all threads of the process."""
    global _override
    before, _override = _override, Recorder(other)
    try:
        yield _override
    finally:
        _override.flush()
        _override = before


def flow_context() -> Any:
    """Prefect's FlowRunContext, None outside of a flow."""
    module = sys.modules.get("prefect.context")
    return None if module is None else module.FlowRunContext.get()


def task_context() -> Any:
    """Prefect's TaskRunContext, None outside of a task."""
    module = sys.modules.get("prefect.context")
    return None if module is None else module.TaskRunContext.get()


def current_activity() -> str | None:
    """The id of the innermost recorded activity that the code runs in."""
    call = _call.get()
    return None if call is None else call.id


def found(urn: str, *, reused: bool = False) -> None:
    """State that the running call found this thing and did not make it: returned, it counts as used.

    `reused`: it was asked for elsewhere, and stands in the place of an equal request.
    """
    call = _call.get()
    if call is not None:
        call.found.add(urn)
        if reused:
            call.reused.add(urn)


def seen(path: str | os.PathLike[str]) -> Seen | None:
    """A file among the arguments of the running call, as it was when the call began."""
    call = _call.get()
    return None if call is None else call.entry.get(os.path.abspath(path))


def current_attempt() -> OpenedAttempt:
    """The attempt that the running code belongs to, opened in the journal where nobody did so yet.

    In order: what `@recorded` set in this context; the flow run that Prefect's context names, in this or another
    process; the only flow that is open in this process, for threads that the user started; this process's own run.
    JournalError or ConfigurationError if the journal cannot be used.
    """
    known = _attempt.get()
    if known is not None:
        return known
    context = flow_context()
    if context is not None and context.flow_run is not None:
        return _attempt_of_context(context)
    with _lock:
        here = [logical.opened for logical in _open.values() if logical.journal is journal()]
        if len(here) == 1:
            return here[0]
        return _attempt_of_process()


def _attempt_of_context(context: Any) -> OpenedAttempt:
    flow_run_id = str(context.flow_run.id)
    with _lock:
        known = _by_flow_run.get(flow_run_id)
        if known is None:
            runs = journal().runs
            elsewhere = runs.attempt_of(flow_run_id)
            if elsewhere is not None and (context.detached or runs.alive(elsewhere.attempt)):
                known = elsewhere
            else:
                known = open_flow_attempt(context, context.parameters or {}, source_of(context.flow.fn))
                _close_with_flow(context.flow)
            _by_flow_run[flow_run_id] = known
    return known


def source_of(function: Any) -> tuple[str | None, str]:
    """The file and the name of a function, through all its decorators."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    name = str(getattr(function, "__qualname__", "flow"))
    return (os.path.abspath(code.co_filename) if code is not None else None), name


def open_flow_attempt(context: Any, parameters: dict[str, Any], source: tuple[str | None, str]) -> OpenedAttempt:
    """Open an attempt for the flow run of a Prefect context and record who runs what, with which parameters."""
    show_in_runs()
    return _opened(identity_of(context, parameters, source), *source, flow_run_name=context.flow_run.name)


def identity_of(context: Any, parameters: dict[str, Any], source: tuple[str | None, str]) -> RunIdentity:
    """What the flow run of a Prefect context is asked to do, by which an earlier run of the same is known."""
    from ivcap_flows.journal import RunIdentity

    flow_run, (path, name) = context.flow_run, source
    shown = scrub({key: Look().at(key, value) for key, value in parameters.items()})
    outer = _attempt.get()
    root = outer.attempt.root_flow_run_id if outer is not None else _root_of(flow_run)
    return RunIdentity(
        flow_name=context.flow.name,
        entry_point=f"{path}:{name}",
        parameters=shown,
        root_flow_run_id=root,
        flow_run_id=str(flow_run.id),
        deployed=flow_run.deployment_id is not None,
        deployment_id=str(flow_run.deployment_id) if flow_run.deployment_id is not None else None,
    )


def let_continue(plan: Plan, parameters: dict[str, Any], source: tuple[str | None, str]) -> None:
    """Tell a plan which flow is being planned, and which run it would continue."""
    context = flow_context()
    if plan.flow is None and context is not None and context.flow_run is not None:
        from ivcap_flows.settings import Settings

        if task_context() is not None:
            # The first to be recorded is a task, of a flow that is not.
            parameters, source = context.parameters or {}, source_of(context.flow.fn)
        identity = identity_of(context, parameters, source)
        plan.flow = identity.entry_point
        if plan.run is None:
            plan.run = journal().runs.continued(identity, fresh=Settings().fresh)


def _root_of(flow_run: Any) -> str:
    if flow_run.parent_task_run_id is None:
        return str(flow_run.id)
    try:
        from prefect.runtime import flow_run as runtime

        return str(runtime.root_flow_run_id)
    except Exception:  # noqa: BLE001 - without the API a child is a run of its own
        return str(flow_run.id)


def _attempt_of_process() -> OpenedAttempt:
    with _lock:
        place = os.getpid(), journal().id
        if place in _of_process:
            return _of_process[place].opened
        from ivcap_flows.journal import RunIdentity

        script = sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c", "-m") else ""
        own = str(uuid.uuid4())
        identity = RunIdentity(
            flow_name=os.path.basename(script) or "python",
            entry_point=f"{os.path.abspath(script)}:" if script else f"{os.getcwd()}:",
            parameters={"arguments": [scrub_text(argument) for argument in sys.argv[1:]]},
            root_flow_run_id=own,
            flow_run_id=own,
        )
        opened = _opened(identity, os.path.abspath(script) if script else None, identity.flow_name)
        # It is no flow that a thread of the user's could belong to.
        _of_process[place] = _open.pop(opened.attempt.id)
        atexit.register(_close_process, place, recorder())
        return opened


def _close_process(place: tuple[int, str], writer: Recorder) -> None:
    if place[0] != os.getpid():
        return
    logical = _of_process.pop(place)
    _open[logical.attempt.id] = logical
    error = getattr(sys, "last_value", None)
    with contextlib.suppress(Exception):
        if error is None:
            close_attempt(logical.opened, "completed", writer=writer)
        else:
            close_attempt(logical.opened, "failed", f"{type(error).__name__}: {error}", writer=writer)


def _opened(identity: RunIdentity, path: str | None, name: str, **attributes: Any) -> OpenedAttempt:
    from ivcap_flows.durable import LogicalRun
    from ivcap_flows.settings import Settings

    writer = recorder()
    logical = LogicalRun.open(writer.journal, identity, fresh=Settings().fresh)
    opened = logical.opened
    with _lock:
        _open[opened.attempt.id] = logical
    run_id, attempt_id, parent = opened.run.id, opened.attempt.id, current_activity()
    writer.put(Statement(run_id, attempt_id, lambda: _begun(opened, parent, attributes)))
    _in_background(lambda: _code_of(writer, opened, path, name))
    return opened


def _begun(opened: OpenedAttempt, parent: str | None, attributes: dict[str, Any]) -> Iterator[Record]:
    run, attempt = opened.run, opened.attempt
    run_urn, urn = flows_urn("run", run.id), flows_urn("attempt", attempt.id)
    yield activity(run_urn, "flow-run", run.created_at, name=run.flow_name, deployed=run.deployed)
    yield activity(
        urn,
        "attempt",
        attempt.started_at,
        name=attempt.flow_name,
        number=attempt.number,
        subflow=None if attempt.leads else True,
        flow_run_id=attempt.flow_run_id,
        deployment_id=run.deployment_id,
        outcome="running",
        **attributes,
    )
    yield relation("wasStartedBy", urn, run_urn if attempt.leads or parent is None else parent, attempt.started_at)
    yield agent(SOFTWARE, "software", name="ivcap-flows", version=__version__)
    yield relation("wasAssociatedWith", urn, SOFTWARE)
    user = flows_urn("user", _user_name())
    yield agent(user, "user", name=_user_name(), local=True)
    yield relation("wasAssociatedWith", urn, user)
    if attempt.leads and run.parameters:
        parameters = flows_urn("parameters", digest(canonical(run.parameters)))
        yield entity(parameters, "parameters", values=run.parameters)
        yield relation("used", urn, parameters, attempt.started_at)


@lru_cache(maxsize=1)
def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


_background: list[threading.Thread] = []


def _in_background(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, name="ivcap-flows-code", daemon=True)
    _background[:] = [other for other in _background if other.is_alive()]
    _background.append(thread)
    thread.start()


def _code_of(writer: Recorder, opened: OpenedAttempt, path: str | None, name: str) -> None:
    from ivcap_flows.capture.code import code_record

    def made() -> Iterator[Record]:
        yield record
        yield relation("hadPlan", flows_urn("attempt", opened.attempt.id), record.id)

    try:
        record = code_record(path, name)
    except Exception:
        log.warning("The code of %s could not be described.", name, exc_info=True)
        return
    writer.put(Statement(opened.run.id, opened.attempt.id, made))


def close_attempt(
    opened: OpenedAttempt, outcome: Outcome, cause: str | None = None, *, writer: Recorder | None = None
) -> None:
    """End an attempt: write all that is known of it, then its outcome. JournalError if that cannot be written."""
    writer = writer or recorder()
    run, attempt = opened.run, opened.attempt
    cause = scrub_text(cause) if cause is not None else None
    ended = now()
    with _lock:
        logical = _open.pop(attempt.id, None)
        if _by_flow_run.get(attempt.flow_run_id) is opened:
            del _by_flow_run[attempt.flow_run_id]

    def told() -> Iterator[Record]:
        yield activity(
            flows_urn("attempt", attempt.id), "attempt", attempt.started_at, ended, outcome=outcome, cause=cause
        )
        if attempt.leads:
            yield activity(flows_urn("run", run.id), "flow-run", run.created_at, ended, outcome=outcome, cause=cause)

    for thread in _background:
        thread.join(30.0)
    writer.put(Statement(run.id, attempt.id, told))
    if not writer.flush(60.0):
        log.warning("The facts of run %s are still being written.", run.id)
    if logical is not None:
        logical.close(outcome, cause)
    else:
        writer.journal.runs.close_attempt(attempt.id, outcome, cause)


def _close_with_flow(flow: Any) -> None:
    """Let a flow without `@recorded` tell how its runs end, in the process that runs them."""
    if getattr(flow, "_ivcap_flows_closes", False):
        return
    flow._ivcap_flows_closes = True
    flow.on_completion_hooks.append(_flow_ended)
    flow.on_failure_hooks.append(_flow_ended)
    flow.on_crashed_hooks.append(_flow_ended)
    flow.on_cancellation_hooks.append(_flow_ended)


def _flow_ended(flow: Any, flow_run: Any, state: Any) -> None:
    # Prefect calls hooks by these names.
    opened = _by_flow_run.get(str(flow_run.id))
    if opened is None:
        return
    outcomes: dict[str, Outcome] = {"completed": "completed", "crashed": "crashed", "cancelled": "cancelled"}
    outcome = outcomes.get(str(state.type.value).lower(), "failed")
    try:
        close_attempt(opened, outcome, None if outcome == "completed" else state.message)
    except Exception:
        log.warning("The end of run %s could not be recorded.", opened.run.id, exc_info=True)


def note(*records: Record) -> None:
    """State further records in the current run; never raises."""
    try:
        opened = current_attempt()
        recorder().put(Statement(opened.run.id, opened.attempt.id, lambda: records))
    except Exception:
        log.warning("A record could not be stated.", exc_info=True)


def acting_as(id: str, name: str | None = None) -> None:  # noqa: A002
    """State once per attempt that it acts for this account: an IVCAP account URN or a Provena user's URN."""
    try:
        opened = current_attempt()
        if (opened.attempt.id, id) in _agents:
            return
        _agents.add((opened.attempt.id, id))
        urn = flows_urn("attempt", opened.attempt.id)
        note(agent(id, "user", name=name), relation("wasAssociatedWith", urn, id))
    except Exception:
        log.warning("The account %s could not be stated.", id, exc_info=True)
