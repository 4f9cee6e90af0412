"""The other witnesses of a run: the lease of an attempt whose process is gone, Prefect's API, and the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.capture.live_orders import tell_of_live_orders
from ivcap_flows.errors import JournalError
from ivcap_flows.handles import Artifact, Handle, Job, Order
from ivcap_flows.identity import flows_urn
from ivcap_flows.provenance.describe import describe
from ivcap_flows.provenance.records import Record, activity, relation
from ivcap_flows.secrets import logger_of, scrub_text

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, Journal, Outcome, RunIdentity, RunRow

__all__ = ["PrefectWord", "abandon", "agree", "not_to_come_back", "prefect_says", "recheck", "reconcile", "unended"]

log = logger_of("ivcap_flows.capture")

TERMINATED: Final = "TerminationSignal"
"""How the cause of an attempt begins that Prefect ended by a signal."""
_WITHIN: Final = frozenset({"task-run", "call"})
_CAUSED: Final[dict[str, type[Handle]]] = {"order": Order, "job": Job, "upload": Artifact}
_CAUSES: Final = frozenset({"wasStartedBy", "wasGeneratedBy"})
_ENDS_ALL: Final = frozenset({"crashed", "cancelled", "lost"})
"""Outcomes of an attempt that its open tasks share."""
_WITH_PROCESS: Final = "Its process ended before it did."
_UNHEARD: Final = "Its process ended before Prefect had heard of its end."
_GIVEN_UP: Final = "Given up by the user."
_LATEST: Final = 50
_PARKED: Final = "Parked"
"""The name of the state, scheduled for later, of a run that left its process by itself."""

_OUTCOMES: Final[dict[str, Outcome]] = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CRASHED": "crashed",
    "CANCELLED": "cancelled",
    "CANCELLING": "cancelled",
    "PAUSED": "parked",
}


@dataclass(frozen=True)
class PrefectWord:
    """What Prefect's API says of a flow run: the outcome, its message, and since when."""

    outcome: Outcome
    cause: str | None
    since: datetime | None


def reconcile(
    journal: Journal, ask: Callable[[str], PrefectWord | None] | None = None
) -> list[tuple[AttemptRow, Outcome]]:
    """Give every attempt whose process is gone its outcome; returns those, each once.

    Prefect's word goes first (`ask` by flow run id, by default its API), for the newest attempt of that flow run only:
    a retry has the same flow run, whose state says nothing of the tries before. Without a word the attempt is `lost`.
    Either way it ended when it was last seen. A process that was told to end cannot know whether its run was cancelled,
    and one that left a parked run cannot know what became of the run, so Prefect is asked for those of the latest runs,
    too. What happened is stated as a fact.
    """
    ask = ask or prefect_says
    told: list[tuple[AttemptRow, Outcome]] = []
    # Those too that the next attempt of their run has found gone, when it began, or a process that ended over them.
    journal.runs.reap()
    for attempt in (*journal.runs.untold(), *_terminated(journal)):
        word = ask(attempt.flow_run_id) if _is_newest(journal, attempt) else None
        if attempt.outcome == "lost" or (word is not None and word.outcome != "parked"):
            told.append((attempt, _visibility_delay(journal, attempt, word)))
    for attempt in _parked(journal):
        word = ask(attempt.flow_run_id)
        if word is not None and word.outcome != "parked" and _end_parked(journal, attempt, word):
            told.append((attempt, word.outcome))
    return told


def recheck(journal: Journal, identity: RunIdentity) -> None:
    """Before a flow run begins: did the newest run of the same identity complete, of which the journal says so?

    A process that is killed after the flow's last line, and before Prefect has heard of it, did not complete its run:
    what Prefect says of it becomes its outcome, so that it is continued, and pays for nothing again. Where Prefect
    knows no better, the journal's word stands.
    """
    attempt = journal.runs.completed_before(identity)
    state = _state_of(attempt.flow_run_id) if attempt is not None else None
    if attempt is None or state is None or state.is_completed():
        return
    _visibility_delay(journal, attempt, PrefectWord(_outcome_of(state) or "lost", state.message or _UNHEARD, None))


def abandon(journal: Journal, run: RunRow) -> None:
    """Give up a run, and have it on record. DurabilityError where it runs or has completed."""
    from ivcap_flows.journal import Fact

    journal.runs.abandon(run.id)
    told = activity(flows_urn("run", run.id), "flow-run", run.created_at, outcome="abandoned", cause=_GIVEN_UP)
    journal.facts.append([Fact(told, run.id)])


def agree(journal: Journal, run: RunRow, ended: datetime) -> None:
    """Of two processes that end at once, each has told what it took for the run's end: where one completed, it has."""
    from ivcap_flows.journal import Fact

    urn = flows_urn("run", run.id)
    try:
        if journal.runs.get(run.id).outcome == "completed" and _last_told(journal, urn) != "completed":
            told = activity(urn, "flow-run", run.created_at, ended, outcome="completed")
            journal.facts.append([Fact(told, run.id)])
    except JournalError as error:
        log.warning("It could not be checked that the records say how run %s ended: %s", run.id, error)


def _last_told(journal: Journal, urn: str) -> Any:
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
    """Whether no later attempt is of the same flow run."""
    same = [row.id for row in journal.runs.attempts(attempt.run_id) if row.flow_run_id == attempt.flow_run_id]
    return same[-1] == attempt.id


def _visibility_delay(journal: Journal, attempt: AttemptRow, word: PrefectWord | None) -> Outcome:
    """Record how an attempt ended by Prefect's word, or that it is lost; when it ended, the journal has seen itself."""
    from ivcap_flows.journal import Fact

    outcome: Outcome = "lost" if word is None else word.outcome
    cause = scrub_text(word.cause) if word is not None and word.cause is not None else attempt.cause
    ended = _last_seen(journal, attempt)
    if word is not None or ended != attempt.ended_at:
        journal.runs.close_attempt(attempt.id, outcome, cause, ended=ended)
    run_ended = ended if word is None or word.since is None else max(word.since, ended)
    decides = _decides(journal, attempt, outcome)
    told = _told(journal, attempt, outcome, cause, ended, run_ended if decides else None)
    journal.facts.append([Fact(record, attempt.run_id, attempt.id) for record in told])
    if decides:
        tell_of_live_orders(journal, attempt.run_id, outcome)
    return outcome


def _decides(journal: Journal, attempt: AttemptRow, outcome: Outcome) -> bool:
    """Whether a run ended so with this attempt, and not with a later one."""
    later = (row for row in journal.runs.attempts(attempt.run_id) if row.leads and row.number > attempt.number)
    return attempt.leads and journal.runs.get(attempt.run_id).outcome == outcome and not any(later)


def _last_seen(journal: Journal, attempt: AttemptRow) -> datetime:
    """When an attempt was last heard of: at its last heartbeat, or at the last begin or end of what was within it."""
    times = [attempt.started_at, attempt.ended_at]
    for record in _within(journal, attempt):
        times += [record.time, record.ended]
    return max(time for time in times if time is not None)


def _end_parked(journal: Journal, attempt: AttemptRow, word: PrefectWord) -> bool:
    """Record how a parked run ended; its last attempt has ended before, when it parked."""
    from ivcap_flows.journal import Fact

    if not journal.runs.end(attempt.run_id, word.outcome):
        return False
    run = journal.runs.get(attempt.run_id)
    ended = max(time for time in (word.since, attempt.ended_at, run.created_at) if time is not None)
    cause = scrub_text(word.cause) if word.cause is not None else None
    told = activity(flows_urn("run", run.id), "flow-run", run.created_at, ended, outcome=word.outcome, cause=cause)
    journal.facts.append([Fact(told, run.id)])
    tell_of_live_orders(journal, run.id, word.outcome)
    return True


def _terminated(journal: Journal) -> list[AttemptRow]:
    return [
        attempt
        for run in journal.runs.recent(_LATEST)
        if run.outcome == "crashed"
        for attempt in journal.runs.attempts(run.id)
        if attempt.outcome == "crashed" and (attempt.cause or "").startswith(TERMINATED)
    ]


def _parked(journal: Journal) -> list[AttemptRow]:
    """The attempts with which runs were left that wait to be woken; Prefect alone knows that they never will be."""
    latest = [
        max((attempt for attempt in journal.runs.attempts(run.id) if attempt.leads), key=lambda one: one.number)
        for run in journal.runs.recent(_LATEST, outcome="parked")
    ]
    return [attempt for attempt in latest if attempt.outcome == "parked"]


def _told(
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
        told = {"outcome": outcome, "cause": cause} if run_ended is not None else {}
        yield activity(flows_urn("run", run.id), "flow-run", run.created_at, run_ended, name=name, **told)
        yield relation("wasStartedBy", urn, flows_urn("run", run.id), begun_at)
    yield from _caused(journal, attempt)
    within = outcome if outcome in _ENDS_ALL else "lost"
    for begun in unended(journal, attempt):
        yield activity(begun.id, begun.type, begun.time, ended, outcome=within, cause=_WITH_PROCESS)


def _caused(journal: Journal, attempt: AttemptRow) -> Iterator[Record]:
    """What the attempt brought about and was killed before it could state: caused by it, whichever task it was in."""
    from ivcap_flows.journal.states import DONE

    for intent in journal.intents.where(run_id=attempt.run_id, limit=None):
        handle = _CAUSED.get(intent.noun)
        if handle is None or intent.attempt_id != attempt.id or intent.state not in DONE or intent.how == "reused":
            continue
        if intent.urn is not None and not _has_cause(journal, intent.urn):
            stated = describe(handle.model_validate(intent.outcome))
            yield from stated
            how = "wasStartedBy" if stated[0].kind == "activity" else "wasGeneratedBy"
            yield relation(how, stated[0].id, flows_urn("attempt", attempt.id))


def _has_cause(journal: Journal, urn: str) -> bool:
    return any(record.source == urn and record.type in _CAUSES for record in _records_about(journal, urn))


def unended(journal: Journal, attempt: AttemptRow) -> list[Record]:
    """The tasks and calls of an attempt of which the record has the begin and not the end."""
    begun: dict[str, Record] = {}
    for record in _within(journal, attempt):
        if record.ended is not None:
            begun.pop(record.id, None)
        elif record.time is not None:
            begun[record.id] = record
    return list(begun.values())


def _within(journal: Journal, attempt: AttemptRow) -> Iterator[Record]:
    """What an attempt has stated of its tasks and calls."""
    after = 0
    while page := journal.facts.of_run(attempt.run_id, after=after):
        after = page[-1].seq
        for fact in page:
            if fact.attempt_id == attempt.id and fact.record.type in _WITHIN:
                yield fact.record


def prefect_says(flow_run_id: str) -> PrefectWord | None:
    """The final or paused state of a flow run at the Prefect API in use; None if it knows none or is not reached."""
    state = _state_of(flow_run_id)
    outcome = _outcome_of(state) if state is not None else None
    return PrefectWord(outcome, state.message, state.timestamp) if outcome is not None else None


def _outcome_of(state: Any) -> Outcome | None:
    return _OUTCOMES.get("PAUSED" if state.name == _PARKED else state.type.value)


def _state_of(flow_run_id: str) -> Any:
    """The state of a flow run; None if the API knows none or is not reached.

    Asks a server that is configured, or that a flow of this process runs by: none is started for this.
    """
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext
    from prefect.settings import get_current_settings

    if not get_current_settings().api.url and FlowRunContext.get() is None:
        return None
    try:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run_id).state  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - the lease is a witness of its own
        log.debug("Prefect's API says nothing of flow run %s: %s", flow_run_id, error)
        return None


def not_to_come_back(flow_run_ids: list[str]) -> set[str]:
    """Which of these flow runs have ended or were deleted, by the configured Prefect API; none where it is not reached.

    Asks only a server that is configured: none is started for this.
    """
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import get_current_settings

    gone: set[str] = set()
    if not get_current_settings().api.url:
        return gone
    try:
        with get_client(sync_client=True) as client:
            for flow_run_id in flow_run_ids:
                try:
                    state = client.read_flow_run(UUID(flow_run_id)).state
                except ObjectNotFound:
                    gone.add(flow_run_id)
                else:
                    gone |= {flow_run_id} if state is not None and state.is_final() else set()
    except Exception as error:  # noqa: BLE001 - the journal is a witness of its own
        log.debug("Prefect's API says nothing of %d flow runs: %s", len(flow_run_ids), error)
    return gone
