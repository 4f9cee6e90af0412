"""The states of flow runs and background task runs in Prefect's API.

Only a server that is configured is asked; none is started for this.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.journal import Outcome

__all__ = [
    "PARKED",
    "PrefectState",
    "ended_flow_runs",
    "outcome_of",
    "prefect_state",
    "prefect_states",
    "refusal_of",
    "state_of",
]

log = logger_of("ivcap_flows.in_prefect")

PARKED: Final = "Parked"
"""The name of Prefect's scheduled state for a run that left its process in order to wait."""

_OUTCOMES: Final[dict[str, Outcome]] = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CRASHED": "crashed",
    "CANCELLED": "cancelled",
    "CANCELLING": "cancelled",
    "PAUSED": "paused",
}


@dataclass(frozen=True)
class PrefectState:
    """The state of a flow run or background task run in Prefect's API: the outcome, its message, and since when it
    holds.
    """

    outcome: Outcome
    cause: str | None
    since: datetime | None


def prefect_state(flow_run_id: str) -> PrefectState | None:
    """Return the state of a flow run or background task run that ended, parked or was paused.

    Return None if the Prefect API in use gives none.
    """
    return prefect_states()(flow_run_id)


def prefect_states() -> Callable[[str], PrefectState | None]:
    """Return `prefect_state` for many runs: once the API could not be asked, it is not asked again."""
    silent = False

    def ask(flow_run_id: str) -> PrefectState | None:
        nonlocal silent
        if silent:
            return None
        try:
            state = _asked(flow_run_id)
        except Exception as error:  # noqa: BLE001 - the heartbeat is a witness, too
            silent = True
            _tell(error)
            return None
        outcome = outcome_of(state) if state is not None else None
        return PrefectState(outcome, state.message, state.timestamp) if outcome is not None else None

    return ask


def outcome_of(state: Any) -> Outcome | None:
    """Return the outcome of a run in a state of Prefect's; None if it goes on."""
    return "parked" if state.name == PARKED else _OUTCOMES.get(state.type.value)


def state_of(flow_run_id: str) -> Any:
    """Return the state of a flow run or background task run; None if the API does not know it or cannot be reached.

    Asks only a server that is configured, or that a flow of this process uses. Never starts one for this.
    """
    try:
        return _asked(flow_run_id)
    except Exception as error:  # noqa: BLE001 - the heartbeat is a witness, too
        _tell(error)
        return None


def _asked(run_id: str) -> Any:
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import get_current_settings

    if not get_current_settings().api.url and FlowRunContext.get() is None:
        return None
    with get_client(sync_client=True) as client:
        for read in (client.read_flow_run, client.read_task_run):
            with suppress(ObjectNotFound):
                return read(run_id).state  # type: ignore[arg-type]
    return None


def _tell(error: Exception) -> None:
    """Log why Prefect's API says nothing of the states. One that is away is no news: it is asked at the next time."""
    refused = refusal_of(error)
    if refused is None:
        log.debug("Prefect's API could not be asked for flow runs: %s", error)
    else:
        log.warning("Prefect's API refuses to say how flow runs ended (%s), so the journal's word counts.", refused)


def refusal_of(error: Exception) -> str | None:
    """Return the status by which Prefect's API refused a request for good, as without a valid key; else None.

    A request that it refused is not repeated. While it is busy (408, 425, 429), it refuses nothing.
    """
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    return f"{status} {response.reason_phrase}" if 400 <= status < 500 and status not in (408, 425, 429) else None


def ended_flow_runs(flow_run_ids: list[str]) -> set[str]:
    """Return which flow runs have ended or were deleted, by the configured Prefect API; none if it cannot be reached.

    Asks only a server that is configured. Never starts one for this.
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
    except Exception as error:  # noqa: BLE001 - the journal is a witness, too
        _tell(error)
    return gone
