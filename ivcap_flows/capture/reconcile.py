"""The other two witnesses of a run: the lease of an attempt whose process is gone, and Prefect's API."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.capture.live_orders import tell_of_live_orders
from ivcap_flows.identity import flows_urn
from ivcap_flows.provenance.records import Record, activity

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, Journal, Outcome

__all__ = ["PrefectWord", "not_to_come_back", "prefect_says", "reconcile"]

log = logging.getLogger("ivcap_flows.capture")

TERMINATED: Final = "TerminationSignal"
"""How the cause of an attempt begins that Prefect ended by a signal."""
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

    Prefect's word goes first (`ask` by flow run id, by default its API); without one the attempt is `lost`, last seen
    at its last beat. A process that was told to end cannot know whether its run was cancelled, so Prefect is asked for
    those of the latest runs, too. What happened is stated as a fact.
    """
    from ivcap_flows.journal import Fact

    ask = ask or prefect_says
    told: list[tuple[AttemptRow, Outcome]] = []
    lost = [journal.runs.attempt(row.id) for row in journal.runs.reap()]
    for attempt in (*lost, *_terminated(journal)):
        word = ask(attempt.flow_run_id)
        if word is None and attempt.outcome != "lost":
            continue
        outcome, cause, ended = "lost", attempt.cause, attempt.ended_at or attempt.started_at
        if word is not None:
            outcome, cause, ended = word.outcome, word.cause, word.since or ended
            journal.runs.close_attempt(attempt.id, word.outcome, word.cause)
        ended = max(ended, attempt.started_at)
        journal.facts.append(
            [
                Fact(record, attempt.run_id, attempt.id)
                for record in _told(journal, attempt, outcome, cause, ended)  # type: ignore[arg-type]
            ]
        )
        if attempt.leads:
            tell_of_live_orders(journal, attempt.run_id, outcome)
        told.append((attempt, outcome))  # type: ignore[arg-type]
    return told


def _terminated(journal: Journal) -> list[AttemptRow]:
    return [
        attempt
        for run in journal.runs.recent(_LATEST)
        if run.outcome == "crashed"
        for attempt in journal.runs.attempts(run.id)
        if attempt.outcome == "crashed" and (attempt.cause or "").startswith(TERMINATED)
    ]


def _told(
    journal: Journal, attempt: AttemptRow, outcome: Outcome, cause: str | None, ended: datetime
) -> Iterator[Record]:
    urn = flows_urn("attempt", attempt.id)
    yield activity(urn, "attempt", attempt.started_at, ended, name=attempt.flow_name, outcome=outcome, cause=cause)
    if attempt.leads:
        run = journal.runs.get(attempt.run_id)
        urn = flows_urn("run", run.id)
        if run.outcome == outcome:
            yield activity(urn, "flow-run", run.created_at, ended, name=run.flow_name, outcome=outcome, cause=cause)


def prefect_says(flow_run_id: str) -> PrefectWord | None:
    """The final or paused state of a flow run at the configured Prefect API; None if it knows none or is not reached.

    Asks only a server that is configured: none is started for this.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    if not get_current_settings().api.url:
        return None
    try:
        with get_client(sync_client=True) as client:
            state: Any = client.read_flow_run(flow_run_id).state  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - the lease is a witness of its own
        log.debug("Prefect's API says nothing of flow run %s: %s", flow_run_id, error)
        return None
    outcome = _OUTCOMES.get("PAUSED" if state.name == _PARKED else state.type.value) if state is not None else None
    return PrefectWord(outcome, state.message, state.timestamp) if outcome is not None else None


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
