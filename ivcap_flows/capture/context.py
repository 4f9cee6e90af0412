"""Find the attempt of the logical run that the running code belongs to, in any thread or process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.capture import pending_calls
from ivcap_flows.capture.attempts import (
    SOFTWARE,
    attempt_lock,
    attempt_of_process,
    close_attempt,
    known_here,
    open_attempt,
    open_here,
)
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.flow_ends import watch_ends
from ivcap_flows.capture.flow_identity import Parameters, identity_of, identity_of_task, scan_parameters, source_of
from ivcap_flows.capture.guard import log_and_count
from ivcap_flows.capture.prefect_context import (
    background_task,
    caller_of,
    flow_context,
    flow_run_id,
    in_worker_process,
    prefect_run_id,
    sends_tasks_away,
    task_context,
)
from ivcap_flows.capture.record_writer import Statement
from ivcap_flows.capture.recorder_registry import is_backing_off, journal, process_recorder, recorder, use_journal
from ivcap_flows.errors import ConfigurationError, JournalError
from ivcap_flows.forked import PerProcess, in_forked_child
from ivcap_flows.identity import flows_urn
from ivcap_flows.in_prefect.logs import show_in_runs
from ivcap_flows.lru_cache import Counts, LruCache
from ivcap_flows.provenance.records import Record, activity, agent, relation
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.durable import Plan
    from ivcap_flows.durable.scopes import Tries
    from ivcap_flows.journal import OpenedAttempt, Outcome

__all__ = [
    "acting_as",
    "attempt_at_hand",
    "close_attempt",
    "current_activity",
    "current_attempt",
    "journal",
    "let_continue",
    "mark_existing",
    "miss",
    "note",
    "open_flow_attempt",
    "outside_call",
    "process_recorder",
    "put_in_flow",
    "recorder",
    "running",
    "tries_around",
    "use_journal",
]

log = logger_of("ivcap_flows.capture")

_attempt: ContextVar[OpenedAttempt | None] = ContextVar("ivcap_flows_attempt", default=None)
_call: ContextVar[Call | None] = ContextVar("ivcap_flows_call", default=None)
_MOST_KNOWN: Final = 1_000


class _RunCache:
    """What this process knows of runs: each names the entries that were used last."""

    def __init__(self) -> None:
        self.remote: LruCache[str, OpenedAttempt] = LruCache(_MOST_KNOWN)
        """Attempts that other processes opened, by flow run or background task run."""
        self.accounts: LruCache[tuple[str, str], None] = LruCache(_MOST_KNOWN)
        """The attempts and accounts that `acting_as` has recorded."""
        self.unknown: LruCache[str, None] = LruCache(_MOST_KNOWN)
        """The flow runs in other processes that this process's journal did not know."""
        self.unrecorded: Counts[str] = Counts(_MOST_KNOWN)
        """The number of unrecorded facts, by flow run or background task run, or "" for the process itself, until an
        attempt can count them."""


_run_cache: Final = PerProcess(_RunCache)
"""Of a forked child, the parent reports its own missing facts."""
_ancestors: Final[list[int]] = []
"""The processes that this one was forked from. It has the context in which they forked it."""
in_forked_child(lambda: _ancestors.append(os.getppid()))


def current_activity() -> str | None:
    """Return the id of the innermost recorded activity around the running code."""
    call = _call.get()
    return None if call is None else call.id


def current_call() -> Call | None:
    """Return the innermost recorded call around the running code."""
    return _call.get()


def enter_call(call: Call) -> Token[Call | None]:
    """Let the code that follows be a call's, until `leave_call`."""
    return _call.set(call)


def leave_call(token: Token[Call | None]) -> None:
    """Return to the call around."""
    _call.reset(token)


@contextmanager
def outside_call() -> Iterator[None]:
    """Record calls of this code as parts of the flow: what they make does not come of the running call's inputs."""
    token = _call.set(None)
    try:
        yield
    finally:
        _call.reset(token)


def tries_around() -> Tries:
    """Return the task runs around the running code."""
    call = _call.get()
    return () if call is None else call.tries


def put_in_flow(call: Call) -> None:
    """Record a task run in the attempt of its flow or background task: now, or as soon as anything of that is recorded.

    In another process than the flow's, raises ConfigurationError the first time that the journal does not know the flow
    run, and JournalError if it cannot be read.
    """
    name = prefect_run_id()
    with attempt_lock():
        opened = _attempt.get() or known_here(name)
        if opened is None and in_worker_process():
            try:
                opened = _attempt_in_flow_process(name)
            except ConfigurationError:
                if name in _run_cache().unknown:
                    miss()
                    return
                _run_cache().unknown.put(name, None)
                raise
        elif opened is None:
            opened = _run_cache().remote.get(name)
            if opened is None:
                dropped = pending_calls.keep(call, name)
                if dropped is not None:
                    _run_cache().unrecorded.add(dropped, 1)
                return
    pending_calls.put(call, opened)


def _attempt_in_flow_process(flow_run_id: str) -> OpenedAttempt:
    """Return the newest attempt of a flow that runs in another process: this process may outlive attempts."""
    found = _newest_attempt(flow_run_id)
    if found is None:
        raise ConfigurationError(
            f"The journal {journal().url} of this process does not know the flow run of its task. Set "
            "IVCAP_FLOWS_JOURNAL here to the journal of the flow's process, on PostgreSQL if that is on another "
            "machine, and import ivcap_flows in the module of the flow, so that the flow opens the run."
        )
    _run_cache().remote.put(flow_run_id, found)
    _count_unrecorded(found, flow_run_id)
    return found


def _newest_attempt(flow_run_id: str) -> OpenedAttempt | None:
    """Return the newest attempt of a flow run in the journal. If the connection breaks, ask once more on another."""
    runs = journal().runs
    try:
        return runs.attempt_of(flow_run_id)
    except JournalError as error:
        if not error.retryable:
            raise
        return runs.attempt_of(flow_run_id)


def running(opened: OpenedAttempt) -> Record:
    """Return the innermost recorded activity around the running code: a call, a task run, or the attempt itself."""
    call = _call.get()
    if call is not None:
        return activity(call.id, call.kind)
    return activity(flows_urn("attempt", opened.attempt.id), "attempt")


def mark_existing(urn: str, *, reused: bool = False) -> None:
    """Record that the running call found this thing and did not make it. If the call returns it, it counts as used.

    Set `reused` if it was requested elsewhere, and replaces an equal request.
    """
    call = _call.get()
    if call is not None:
        call.found.add(urn)
        if reused:
            call.reused.add(urn)


def current_attempt() -> OpenedAttempt:
    """Return the attempt that the running code belongs to. Open one in the journal if there is none.

    The first of these that exists: the attempt that `@recorded` set in this context; that of the flow run in Prefect's
    context, opened in this or another process; that of the task run that this task worker executes for no flow run;
    that of the only open run in this process, for threads that the user started; that of the process itself. Raises
    JournalError or ConfigurationError if the journal cannot be used.
    """
    known = _attempt.get()
    if known is not None:
        return known
    context = flow_context()
    if context is not None and context.flow_run is not None:
        return _attempt_of_context(context)
    owner = flow_run_id()
    if owner:
        return _attempt_in_flow_process(owner)
    task = background_task()
    if task is not None:
        return _attempt_of_task(task)
    with attempt_lock():
        here = open_here()
        if len(here) == 1:
            return here[0]
        opened = attempt_of_process()
    _count_unrecorded(opened, "")
    return opened


def open_before_sending() -> None:
    """Open the attempt of the running flow if its task runner sends tasks to other processes.

    These find it in the journal by the flow run, and cannot close one of their own with the flow. So a subflow that is
    not recorded itself needs one, too. Raises as `current_attempt` does.
    """
    context = flow_context()
    if context is None or context.flow_run is None or context.detached:
        return
    if sends_tasks_away(context):
        _attempt_of_context(context)


def attempt_at_hand() -> OpenedAttempt | None:
    """Return `current_attempt()`, or None if it would wait for the journal or for a thread that opens an attempt."""
    known = _attempt.get()
    if known is not None or process_recorder() is None or not attempt_lock().acquire(blocking=False):
        return known
    try:
        name = prefect_run_id()
        # While the journal is left alone, the newest attempt elsewhere is not looked for.
        return known_here(name) or (None if is_backing_off() else _run_cache().remote.get(name))
    finally:
        attempt_lock().release()


def _attempt_of_context(context: Any) -> OpenedAttempt:
    flow_run_id = str(context.flow_run.id)
    with attempt_lock():
        for known in open_here(flow_run_id):
            return known
        if context.detached:
            return _attempt_in_flow_process(flow_run_id)
        opened = _attempt_of_ancestor(flow_run_id)
        if opened is not None:
            return opened
        opened = open_flow_attempt(context, scan_parameters(context.parameters or {}), source_of(context.flow.fn))
        watch_ends(_ended)
        return opened


def _attempt_of_ancestor(run_id: str) -> OpenedAttempt | None:
    """Return the attempt that this forked child's context is of; None if the process runs the flow or task itself.

    Any other process that runs it is a new attempt, although that of the last one may still live.
    """
    other = _newest_attempt(run_id) if _ancestors else None
    if other is None or other.attempt.process.pid not in _ancestors or not journal().runs.alive_here(other.attempt):
        return None
    _run_cache().remote.put(run_id, other)
    return other


def _attempt_of_task(task: Any) -> OpenedAttempt:
    """Return the attempt of the background task run in a Prefect context. Each delivery and each try opens one."""
    task_run_id = str(task.task_run.id)
    with attempt_lock():
        for known in open_here(task_run_id):
            return known
        opened = _attempt_of_ancestor(task_run_id)
        if opened is not None:
            return opened
        show_in_runs()
        source = source_of(task.task.fn)
        identity = identity_of_task(task, scan_parameters(task.parameters or {}), source)
        opened = open_attempt(identity, *source, task_run_name=task.task_run.name)
        _count_unrecorded(opened, task_run_id)
        pending_calls.put_kept(opened)
        watch_ends(_ended)
        return opened


def open_flow_attempt(
    context: Any, parameters: Parameters, source: tuple[str | None, str], parent: str | None = None
) -> OpenedAttempt:
    """Open an attempt for the flow run in a Prefect context. Record who runs what, with which parameters.

    A flow belongs to the run of the flow or background task that called it, so the caller's attempt is opened first.
    `parent` is the activity that called it, by default that attempt.
    """
    from ivcap_flows.in_prefect.reconcile import recheck
    from ivcap_flows.settings import Settings

    show_in_runs()
    caller, task = caller_of(context), background_task()
    outer = _attempt.get()
    if outer is None and caller is not None:
        outer = _attempt_of_context(caller)
    elif outer is None and task is not None:
        outer = _attempt_of_task(task)
    identity = identity_of(context, parameters, source, outer)
    if not Settings.current().fresh:
        recheck(journal(), identity)
    image = (context.flow_run.job_variables or {}).get("image")
    facts = {"flow_run_name": context.flow_run.name, **({} if image is None else {"container_image": str(image)})}
    if parent is None and outer is not None:
        parent = flows_urn("attempt", outer.attempt.id)
    opened = open_attempt(identity, *source, parent=parent, **facts)
    _count_unrecorded(opened, identity.flow_run_id)
    pending_calls.put_kept(opened)
    _asked_by(context.flow_run, opened)
    return opened


def _asked_by(flow_run: Any, opened: OpenedAttempt) -> None:
    """Record the Prefect account that requested a flow run, if Prefect's API knows accounts."""
    asked = getattr(flow_run, "created_by", None)
    if asked is None or not (asked.id or asked.display_value):
        return
    name = str(asked.display_value or asked.id)
    kind = "user" if "user" in str(asked.type).lower() else "software"
    urn = flows_urn("prefect-account", str(asked.id or name))
    with log_and_count(miss, "The account %s could not be recorded.", urn):
        _acts_for(opened, urn, name, kind, account=str(asked.type).lower())


def let_continue(plan: Plan, parameters: dict[str, Any], source: tuple[str | None, str]) -> None:
    """Tell a plan which flow is planned, and which run it would continue."""
    context = flow_context()
    if plan.flow is None and context is not None and context.flow_run is not None:
        from ivcap_flows.settings import Settings

        here = context
        while (caller := caller_of(context)) is not None:
            context = caller
        if task_context() is not None or context is not here:
            # The first recorded function is a task or a subflow of a flow that is not recorded.
            parameters, source = context.parameters or {}, source_of(context.flow.fn)
        identity = identity_of(context, scan_parameters(parameters), source, _attempt.get())
        plan.flow = identity.flow_name
        if plan.run is None:
            plan.run = journal().runs.continued(identity, fresh=Settings.current().fresh)


def _ended(run_id: str, outcome: Outcome, cause: str | None) -> None:
    """Close the attempt of a flow without `@recorded`, or of a background task. A recorded flow's has been closed."""
    with log_and_count(miss, "The end of the run %s could not be recorded.", run_id):
        for opened in open_here(run_id):
            _close(opened, outcome, cause)


def _close(opened: OpenedAttempt, outcome: Outcome, cause: str | None) -> None:
    # If closing fails, the attempt is not open any more, so count for its run by name.
    count = partial(recorder().miss, opened.run.id)
    with log_and_count(count, "The end of the run %s could not be recorded.", opened.attempt.flow_run_id):
        close_attempt(opened, outcome, cause)


def note(*records: Record) -> None:
    """Record further facts in the current run. Never raises."""
    with log_and_count(lambda: miss(len(records)), "A fact could not be recorded."):
        opened = current_attempt()
        holds = sum(1_000 + len(str(record.attributes)) for record in records)
        recorder().put(Statement(opened.run.id, opened.attempt.id, lambda: records, holds=holds))


def acting_as(id: str, name: str | None = None, *, kind: str = "user", **facts: Any) -> None:  # noqa: A002
    """Record once per attempt that it acts for an account of IVCAP, Provena or Prefect. `id` is the account's URN."""
    with log_and_count(miss, "The account %s could not be recorded.", id):
        _acts_for(current_attempt(), id, name, kind, **facts)


def _acts_for(opened: OpenedAttempt, urn: str, name: str | None, kind: str, **facts: Any) -> None:
    if (opened.attempt.id, urn) in _run_cache().accounts:
        return
    attempt = flows_urn("attempt", opened.attempt.id)
    records = [agent(urn, kind, name=name, **facts), relation("wasAssociatedWith", attempt, urn)]
    if kind == "user":
        records.append(relation("actedOnBehalfOf", SOFTWARE, urn))
    recorder().put(Statement(opened.run.id, opened.attempt.id, lambda: records))
    _run_cache().accounts.put((opened.attempt.id, urn), None)


def miss(facts: int = 1) -> None:
    """Count facts that could not be recorded as missing from their run. Never raises, and never reads the journal.

    If no attempt is open yet, the next one that is opened for the same flow run, background task run or process counts
    them.
    """
    name, writer = prefect_run_id(), process_recorder()
    if writer is not None:
        attempt = _attempt.get() or known_here(name) or _run_cache().remote.get(name)
        if attempt is not None:
            writer.miss(attempt.run.id, facts)
            return
    _run_cache().unrecorded.add(name, facts)


def _count_unrecorded(opened: OpenedAttempt, flow_run_id: str) -> None:
    facts = _run_cache().unrecorded.pop(flow_run_id)
    if facts:
        recorder().miss(opened.run.id, facts)
