"""The other witnesses of a run: the heartbeat of an attempt whose process is gone, Prefect's API, and the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.errors import JournalError
from ivcap_flows.handles import Artifact, Handle, Job, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.in_prefect.end_of_run import tell_of_live_orders
from ivcap_flows.in_prefect.flow_run_states import PrefectState, outcome_of, prefect_states, state_of
from ivcap_flows.journal.rows import COMES_BACK
from ivcap_flows.provenance.describe import describe
from ivcap_flows.provenance.records import Record, activity, relation
from ivcap_flows.secrets import logger_of, scrub_text

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, Journal, Outcome, RunIdentity, RunRow

__all__ = [
    "abandon",
    "agree",
    "end_parked",
    "gone_on",
    "recheck",
    "reconcile",
    "unended",
]

log = logger_of("ivcap_flows.in_prefect")

TERMINATED: Final = "TerminationSignal"
"""The first word in the cause of an attempt that Prefect ended by a signal."""
_WITHIN: Final = frozenset({"task-run", "call"})
_CAUSED: Final[dict[str, type[Handle]]] = {"order": Order, "job": Job, "upload": Artifact}
_CAUSES: Final = frozenset({"wasStartedBy", "wasGeneratedBy"})
_ENDS_ALL: Final = frozenset({"crashed", "cancelled", "lost"})
"""Outcomes of an attempt that its unfinished tasks share."""
_WITH_PROCESS: Final = "Its process ended before it did."
_UNHEARD: Final = "Its process ended before it reported its end to Prefect."
_GIVEN_UP: Final = "Given up by the user."
_LATEST: Final = 50
_WITHOUT_END: Final = frozenset({"running", "lost"})


def reconcile(
    journal: Journal, ask: Callable[[str], PrefectState | None] | None = None
) -> list[tuple[AttemptRow, Outcome]]:
    """Record the outcome of every attempt whose process is gone. Return these attempts, each once.

    Prefect is asked first, with `ask` (by default its API), but only about the newest attempt of a flow run: a retry
    has the same flow run, whose state says nothing about the tries before. If Prefect says nothing, the attempt is
    `lost`. Either way, it ended when it was last seen.

    Prefect is also asked about attempts of the latest runs that were ended by a signal, parked or paused: a process
    that is told to end cannot know whether its run was cancelled, and one that left a run cannot know what became of
    it. The outcomes are recorded as facts.
    """
    ask = ask or prefect_states()
    closed: list[tuple[AttemptRow, Outcome]] = []
    # `untold` also has attempts that were found dead before: by the next attempt of their run, or by a process that
    # ended.
    journal.runs.reap()
    for attempt in (*journal.runs.untold(), *_terminated(journal)):
        state = ask(attempt.flow_run_id) if _is_newest(journal, attempt) else None
        if attempt.outcome == "lost" or (state is not None and state.outcome not in COMES_BACK):
            closed.append((attempt, _close(journal, attempt, state)))
    for attempt in _left(journal):
        state = ask(attempt.flow_run_id)
        if state is not None and state.outcome not in COMES_BACK and end_parked(journal, attempt, state):
            closed.append((attempt, state.outcome))
    return closed


def recheck(journal: Journal, identity: RunIdentity) -> None:
    """Ask Prefect, before a flow run begins, whether the newest run of the same identity really completed.

    If a process is killed after the flow's last line, and before Prefect has heard of the end, its run did not
    complete, although the journal says so. Then Prefect's state becomes the outcome, so that the run is continued and
    nothing is paid for twice. If Prefect knows nothing else, the journal's outcome stands.
    """
    attempt = journal.runs.completed_before(identity)
    state = state_of(attempt.flow_run_id) if attempt is not None else None
    if attempt is None or state is None or state.is_completed():
        return
    _close(journal, attempt, PrefectState(outcome_of(state) or "lost", state.message or _UNHEARD, None))


def abandon(journal: Journal, run: RunRow, *, running: bool = False) -> None:
    """Give up a run, and record that. It ended when it was last seen.

    Raises DurabilityError if it completed, or is running and not meant to be.
    """
    from ivcap_flows.journal import Fact

    ended = max((_last_seen(journal, attempt) for attempt in journal.runs.attempts(run.id)), default=run.created_at)
    end = activity(flows_urn("run", run.id), "flow-run", run.created_at, ended, outcome="abandoned", cause=_GIVEN_UP)
    journal.runs.abandon(run.id, running=running, told=[Fact(end, run.id)])


def agree(journal: Journal, run: RunRow, ended: datetime) -> None:
    """Record that a run completed if its facts end with another outcome, since two processes may end it at once."""
    from ivcap_flows.journal import Fact

    urn = flows_urn("run", run.id)
    try:
        if journal.runs.get(run.id).outcome == "completed" and _recorded_outcome(journal, urn) != "completed":
            end = activity(urn, "flow-run", run.created_at, ended, outcome="completed")
            journal.facts.append([Fact(end, run.id)])
    except JournalError as error:
        log.warning("It could not be checked whether the records say how run %s ended: %s", run.id, error)


def _recorded_outcome(journal: Journal, urn: str) -> Any:
    outcome = None
    for record in _records_about(journal, urn):
        outcome = record.attributes.get("outcome", outcome)
    return outcome


def _records_about(journal: Journal, urn: str) -> Iterator[Record]:
    after = 0
    while page := journal.facts.about(urn, after=after):
        yield from (fact.record for fact in page)
        after = page[-1].seq


def _is_newest(journal: Journal, attempt: AttemptRow) -> bool:
    """Whether no later attempt belongs to the same flow run."""
    same = [row.id for row in journal.runs.attempts(attempt.run_id) if row.flow_run_id == attempt.flow_run_id]
    return same[-1] == attempt.id


def _close(journal: Journal, attempt: AttemptRow, state: PrefectState | None) -> Outcome:
    """Record the outcome of an attempt: what Prefect says, else `lost`. The journal knows when the attempt ended."""
    from ivcap_flows.journal import Fact

    outcome: Outcome = "lost" if state is None else state.outcome
    cause = scrub_text(state.cause) if state is not None and state.cause is not None else attempt.cause
    ended = _last_seen(journal, attempt)
    run_ended = ended if state is None or state.since is None else max(state.since, ended)
    decides = _decides(journal, attempt, outcome)
    records = _records_of_end(journal, attempt, outcome, cause, ended, run_ended if decides else None)
    # The facts first: after a kill in between, the attempt is still one to close.
    journal.facts.append([Fact(record, attempt.run_id, attempt.id) for record in records])
    if state is not None or ended != attempt.ended_at:
        journal.runs.close_attempt(attempt.id, outcome, cause, ended=ended)
    if decides:
        tell_of_live_orders(journal, attempt.run_id, outcome)
    return outcome


def _decides(journal: Journal, attempt: AttemptRow, outcome: Outcome) -> bool:
    """Whether the run ends with this attempt and this outcome, and not with a later attempt."""
    later = any(row.leads and row.number > attempt.number for row in journal.runs.attempts(attempt.run_id))
    return not later and journal.runs.decides(attempt, outcome)


def _last_seen(journal: Journal, attempt: AttemptRow) -> datetime:
    """Return when an attempt was last seen: its last heartbeat, or the last begin or end of a task or call in it."""
    times = [attempt.started_at, attempt.ended_at]
    for record in _within(journal, attempt):
        times += [record.time, record.ended]
    return max(time for time in times if time is not None)


def end_parked(journal: Journal, attempt: AttemptRow, state: PrefectState) -> bool:
    """Record how a parked or paused run ended. Its last attempt ended before, when the run left its process."""
    from ivcap_flows.journal import Fact

    run = journal.runs.get(attempt.run_id)
    ended = max(time for time in (state.since, attempt.ended_at, run.created_at) if time is not None)
    cause = scrub_text(state.cause) if state.cause is not None else None
    end = activity(flows_urn("run", run.id), "flow-run", run.created_at, ended, outcome=state.outcome, cause=cause)
    if not journal.runs.end(run.id, state.outcome, [Fact(end, run.id)]):
        return False
    tell_of_live_orders(journal, run.id, state.outcome)
    return True


def _terminated(journal: Journal) -> list[AttemptRow]:
    return [
        attempt
        for run in journal.runs.recent(_LATEST)
        if run.outcome == "crashed"
        for attempt in journal.runs.attempts(run.id)
        if attempt.outcome == "crashed" and (attempt.cause or "").startswith(TERMINATED)
    ]


def _left(journal: Journal) -> list[AttemptRow]:
    """Return the last attempts of parked and paused runs. Only Prefect knows which of them will never continue."""
    latest = [
        max((attempt for attempt in journal.runs.attempts(run.id) if attempt.leads), key=lambda one: one.number)
        for outcome in COMES_BACK
        for run in journal.runs.recent(_LATEST, outcome=outcome)
    ]
    return [attempt for attempt in latest if attempt.outcome in COMES_BACK]


def _records_of_end(
    journal: Journal,
    attempt: AttemptRow,
    outcome: Outcome,
    cause: str | None,
    ended: datetime,
    run_ended: datetime | None,
) -> Iterator[Record]:
    urn = flows_urn("attempt", attempt.id)
    begun_at = attempt.started_at
    name = attempt.flow_name
    yield activity(urn, "attempt", begun_at, ended, name=name, number=attempt.number, outcome=outcome, cause=cause)
    if attempt.leads:
        run = journal.runs.get(attempt.run_id)
        ending = {"outcome": outcome, "cause": cause} if run_ended is not None else {}
        yield activity(flows_urn("run", run.id), "flow-run", run.created_at, run_ended, name=name, **ending)
        yield relation("wasStartedBy", urn, flows_urn("run", run.id), begun_at)
    yield from _caused(journal, attempt)
    within = outcome if outcome in _ENDS_ALL else "lost"
    for begun in unended(journal, attempt):
        yield activity(begun.id, begun.type, begun.time, ended, outcome=within, cause=_WITH_PROCESS)


def _caused(journal: Journal, attempt: AttemptRow) -> Iterator[Record]:
    """Yield records of effects that the attempt could not record before it was killed, with the attempt as cause."""

    for intent in journal.intents.where(run_id=attempt.run_id, limit=None):
        handle = _CAUSED.get(intent.noun)
        if handle is None or intent.attempt_id != attempt.id or intent.state != "done" or intent.how == "reused":
            continue
        if intent.urn is not None and not _has_cause(journal, intent.urn):
            stated = describe(handle.model_validate(intent.outcome))
            yield from stated
            how = "wasStartedBy" if stated[0].kind == "activity" else "wasGeneratedBy"
            yield relation(how, stated[0].id, flows_urn("attempt", attempt.id))


def _has_cause(journal: Journal, urn: str) -> bool:
    return any(record.source == urn and record.type in _CAUSES for record in _records_about(journal, urn))


def unended(journal: Journal, attempt: AttemptRow) -> list[Record]:
    """Return the tasks and calls of an attempt that have a recorded begin and no end."""
    begun: dict[str, Record] = {}
    for record in _within(journal, attempt):
        if record.ended is not None:
            begun.pop(record.id, None)
        elif record.time is not None:
            begun[record.id] = record
    return list(begun.values())


def gone_on(record: Record, run: RunRow) -> Record:
    """Return a run's record without its end, if that is of an attempt after which the run (as it stands) went on."""
    if record.ended is None or record.attributes.get("outcome") == run.outcome or run.outcome not in _WITHOUT_END:
        return record
    return record.model_copy(update={"ended": None, "attributes": {**record.attributes, "outcome": run.outcome}})


def _within(journal: Journal, attempt: AttemptRow) -> Iterator[Record]:
    """Yield the records of the tasks and calls of an attempt."""
    for fact in journal.facts.all_of_run(attempt.run_id):
        if fact.attempt_id == attempt.id and fact.record.type in _WITHIN:
            yield fact.record
