"""The attempts that this process has opened. Opening records who runs what; closing records how it ended."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows import __version__
from ivcap_flows.capture.calls import now
from ivcap_flows.capture.exits import failure_of_exit, watch_exit
from ivcap_flows.capture.flow_identity import Project, parameters_sha256
from ivcap_flows.capture.guard import log_and_count
from ivcap_flows.capture.host import host
from ivcap_flows.capture.record_writer import Recorder, Statement
from ivcap_flows.capture.recorder_registry import is_backing_off, journal, recorder
from ivcap_flows.errors import JournalError
from ivcap_flows.forked import PerProcess
from ivcap_flows.identity import canonical, digest, flows_urn, path_text, utf8_safe
from ivcap_flows.in_prefect.end_of_run import tell_of_live_orders, tell_of_what_was_left, tell_what_is_on_record
from ivcap_flows.in_prefect.reconcile import agree
from ivcap_flows.in_prefect.run_page import show_in_prefect
from ivcap_flows.plain_text import described
from ivcap_flows.provenance.records import Record, activity, agent, entity, relation
from ivcap_flows.secrets import logger_of, scrub_arguments, scrub_text

if TYPE_CHECKING:
    from ivcap_flows.durable import LogicalRun
    from ivcap_flows.journal import AttemptRow, Journal, OpenedAttempt, Outcome, RunIdentity

__all__ = [
    "attempt_lock",
    "attempt_of_process",
    "close_attempt",
    "close_process",
    "known_here",
    "open_attempt",
    "open_here",
]

log = logger_of("ivcap_flows.capture")

SOFTWARE: Final = flows_urn("software", f"ivcap-flows:{__version__}")


@dataclass
class _Attempts:
    """The attempts of flows and background tasks that are open here, by attempt; those of the process, by journal.

    `describing` are the threads that describe the code of an attempt, by attempt.
    """

    lock: threading.RLock = field(default_factory=threading.RLock)
    of_flows: dict[str, LogicalRun] = field(default_factory=dict)
    of_process: dict[str, LogicalRun] = field(default_factory=dict)
    describing: dict[str, threading.Thread] = field(default_factory=dict)


_attempts: Final = PerProcess(_Attempts)
"""A forked child finds its parent's attempts in the journal."""


def attempt_lock() -> threading.RLock:
    """Return the lock to hold while you look for an attempt and, if there is none, open one."""
    return _attempts().lock


def open_here(flow_run_id: str | None = None) -> list[OpenedAttempt]:
    """Return the attempts that this process has open in its journal for flows and background tasks: all, or those of
    one flow run or task run.
    """
    with attempt_lock():
        return [
            logical.opened
            for logical in _attempts().of_flows.values()
            # The journal last: it is opened for a run that has an attempt only.
            if flow_run_id in (None, logical.attempt.flow_run_id) and logical.journal is journal()
        ]


def known_here(flow_run_id: str) -> OpenedAttempt | None:
    """Return the attempt that is open here for a flow run or background task run. For "", return that of a thread
    without a context.
    """
    with attempt_lock():
        here = open_here(flow_run_id or None)
        if len(here) == 1:
            return here[0]
        process = _attempts().of_process.get(journal().id)
        return process.opened if process is not None and not flow_run_id else None


def attempt_of_process() -> OpenedAttempt:
    """Return the attempt of the process itself, for calls that no flow and no background task owns. It ends with the
    process.
    """
    with attempt_lock():
        known = _attempts().of_process.get(journal().id)
        if known is not None:
            return known.opened
        from ivcap_flows.journal import RunIdentity

        script = _script()
        project, own = Project.around(script), str(uuid.uuid4())
        parameters = {"arguments": [utf8_safe(argument) for argument in scrub_arguments(sys.argv[1:])]}
        identity = RunIdentity(
            flow_name=utf8_safe(os.path.basename(script)) if script else "python",
            entry_point=path_text(f"{script or os.getcwd()}:"),
            code=project.code(script or os.getcwd(), ""),
            parameters=parameters,
            parameters_sha256=parameters_sha256(parameters, project),
            root_flow_run_id=own,
            flow_run_id=own,
        )
        opened = open_attempt(identity, script, identity.flow_name)
        # A thread of the user's can belong to an open flow, but not to this attempt.
        _attempts().of_process[journal().id] = _attempts().of_flows.pop(opened.attempt.id)
        watch_exit()
        atexit.register(close_process, journal().id, recorder())
        return opened


def _script() -> str | None:
    """Return the absolute path of the running program, or None in an interactive session."""
    script = sys.argv[0] if sys.argv else ""
    if script in ("", "-c", "-m"):
        return None
    # A relative path refers to the folder in which the process started, and it may have left that.
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    begun = main is not None and os.path.isabs(main) and os.path.basename(main) == os.path.basename(script)
    return str(main) if begun else os.path.abspath(script)


def close_process(journal_id: str, writer: Recorder) -> None:
    logical = _attempts().of_process.pop(journal_id, None)
    if logical is None:
        # A forked child, which has its parent's exit handlers, but not its attempts.
        return
    _attempts().of_flows[logical.attempt.id] = logical
    failure = None
    # A session at a prompt goes on after an error, and however it is left, the next one has a run of its own.
    if not hasattr(sys, "ps1"):
        error = getattr(sys, "last_value", None)
        failure = described(error) if error is not None else failure_of_exit()
    with log_and_count(
        lambda: writer.miss(logical.run.id), "The end of %s could not be recorded.", logical.run.flow_name
    ):
        close_attempt(logical.opened, "completed" if failure is None else "failed", failure, writer=writer)


def open_attempt(
    identity: RunIdentity, path: str | None, name: str, *, parent: str | None = None, **attributes: Any
) -> OpenedAttempt:
    """Open an attempt of the function `name` in the file `path`, and record who runs what.

    `parent` is the activity that started it.
    """
    from ivcap_flows.durable import LogicalRun
    from ivcap_flows.settings import Settings

    writer = recorder()
    of_deployment = identity.deployment_id is not None
    logical = LogicalRun.open(journal(deployed=of_deployment), identity, fresh=Settings.current().fresh)
    opened = logical.opened
    if opened.attempt.leads:
        _warn_of_settings(writer.journal)
    with attempt_lock():
        _attempts().of_flows[opened.attempt.id] = logical
    run_id, attempt_id = opened.run.id, opened.attempt.id
    writer.put(Statement(run_id, attempt_id, lambda: _begun(opened, identity.parameters, parent, attributes)))
    with log_and_count(lambda: writer.miss(run_id), "The code of %s could not be described.", name):
        # In a thread, since git takes a while.
        thread = threading.Thread(
            target=_describe_code, args=(writer, opened, path, name), name="ivcap-flows-code", daemon=True
        )
        thread.start()
        _attempts().describing[attempt_id] = thread
    return opened


def _warn_of_settings(of: Journal) -> None:
    """Name what the environment says in vain: a limit that is spelt wrong limits nothing."""
    from ivcap_flows.settings import Settings

    for sentence in Settings.unknown():
        log.warning(sentence)
    if of.is_relative:
        log.warning(
            "The journal %s has a relative path: started in another folder, this run begins anew and requests "
            "everything again. Name an absolute path in IVCAP_FLOWS_JOURNAL.",
            of.url,
        )


def _begun(
    opened: OpenedAttempt, given: dict[str, Any], parent: str | None, attributes: dict[str, Any]
) -> Iterator[Record]:
    run, attempt = opened.run, opened.attempt
    run_urn, urn = flows_urn("run", run.id), flows_urn("attempt", attempt.id)
    of_task = run.is_background and attempt.leads
    yield activity(
        run_urn,
        "flow-run",
        run.created_at,
        name=run.flow_name,
        deployed=None if run.is_background else run.deployed,
        background=run.is_background or None,
    )
    yield activity(
        urn,
        "attempt",
        attempt.started_at,
        name=attempt.flow_name,
        number=attempt.number,
        subflow=None if attempt.leads else True,
        # The parameters of the run itself are an entity, which equal runs share.
        parameters=None if attempt.leads else given or None,
        flow_run_id=None if of_task else attempt.flow_run_id,
        task_run_id=attempt.flow_run_id if of_task else None,
        deployment_id=run.deployment_id,
        outcome="running",
        folder=_folder(),
        **{**host(), **attributes},
    )
    yield relation("wasStartedBy", urn, run_urn if attempt.leads or parent is None else parent, attempt.started_at)
    yield agent(SOFTWARE, "software", name="ivcap-flows", version=__version__)
    yield relation("wasAssociatedWith", urn, SOFTWARE)
    user = flows_urn("user", _user_name())
    yield agent(user, "user", name=_user_name(), local=True)
    yield relation("wasAssociatedWith", urn, user)
    yield relation("actedOnBehalfOf", SOFTWARE, user)
    if attempt.leads and run.parameters:
        parameters = flows_urn("parameters", digest(canonical(run.parameters)))
        yield entity(parameters, "parameters", values=run.parameters)
        yield relation("used", urn, parameters, attempt.started_at)


def _folder() -> str | None:
    """Return the folder that the process works in, or None if it was removed."""
    try:
        return str(utf8_safe(os.getcwd()))
    except OSError:
        return None


@lru_cache(maxsize=1)
def _user_name() -> str:
    # Imported here, since a flow imports this module when it starts.
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def _describe_code(writer: Recorder, opened: OpenedAttempt, path: str | None, name: str) -> None:
    from ivcap_flows.capture.code import code_record

    def made() -> Iterator[Record]:
        yield record
        yield relation("hadPlan", flows_urn("attempt", opened.attempt.id), record.id)

    with log_and_count(lambda: writer.miss(opened.run.id), "The code of %s could not be described.", name):
        record = code_record(path, name)
        writer.put(Statement(opened.run.id, opened.attempt.id, made))
        if opened.joined and opened.attempt.leads and not opened.run.deployed:
            _tell_of_change(writer.journal, opened, record)


def _tell_of_change(journal: Journal, opened: OpenedAttempt, code: Record) -> None:
    """Tell the person who has edited a flow that failed what the next attempt makes of it."""
    before = [
        each for each in journal.runs.attempts(opened.run.id) if each.leads and each.number < opened.attempt.number
    ]
    earlier = journal.lineages.code_of(before[-1].id) if before else None
    if earlier is not None and earlier.attributes.get("source_sha256") != code.attributes.get("source_sha256"):
        log.warning(
            "Your code has changed since attempt %d: what it asks for as before is kept, the rest is requested anew. "
            "`ivcap-flows run --fresh` or IVCAP_FLOWS_FRESH=1 begins a new run instead.",
            before[-1].number,
        )


def close_attempt(
    opened: OpenedAttempt, outcome: Outcome, cause: str | None = None, *, writer: Recorder | None = None
) -> None:
    """End an attempt: write its last facts, then its outcome. If the journal is away, it gets the outcome later."""
    writer = writer or recorder()
    run, attempt = opened.run, opened.attempt
    cause = utf8_safe(scrub_text(cause)) if cause is not None else None
    # The start times come from the journal's clock, which may be that of another machine.
    ended = max(now(), run.created_at, attempt.started_at)
    with attempt_lock():
        logical = _attempts().of_flows.pop(attempt.id, None)

    def end() -> Iterator[Record]:
        yield activity(
            flows_urn("attempt", attempt.id), "attempt", attempt.started_at, ended, outcome=outcome, cause=cause
        )
        if decides:
            yield activity(flows_urn("run", run.id), "flow-run", run.created_at, ended, outcome=outcome, cause=cause)

    try:
        decides = _decides(writer.journal, attempt, outcome)
        describing = _attempts().describing.pop(attempt.id, None)
        if describing is not None:
            describing.join(30.0)
        writer.put(Statement(run.id, attempt.id, end))
        writer.flush()
    finally:
        # Close the attempt even if the wait for the facts is interrupted.
        if logical is not None:
            logical.close(outcome, cause)
        else:
            writer.journal.runs.close_attempt(attempt.id, outcome, cause)
    if attempt.leads:
        # Imported at the end only: flows start faster.
        from ivcap_flows.sinks.synchronise import begin_sync

        agree(writer.journal, run, ended)
        tell_of_live_orders(writer.journal, run.id, outcome)
        tell_of_what_was_left(writer.journal, opened, outcome)
        begin_sync()
        show_in_prefect(writer.journal, opened, outcome)
        if not is_backing_off():
            tell_what_is_on_record(writer.journal, opened, outcome)


def _decides(of: Journal, attempt: AttemptRow, outcome: Outcome) -> bool:
    """Whether the run ended as this attempt did. If the journal cannot be read: whether the attempt leads the run."""
    try:
        return of.runs.decides(attempt, outcome)
    except JournalError:
        return attempt.leads
