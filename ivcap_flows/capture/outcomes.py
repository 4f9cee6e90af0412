"""The outcome of a call, by what it returned or raised."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.capture.prefect_context import passed_timeout
from ivcap_flows.in_prefect.flow_run_states import PARKED
from ivcap_flows.in_prefect.flow_run_states import outcome_of as outcome_of_state

if TYPE_CHECKING:
    from ivcap_flows.journal import Outcome

__all__ = ["outcome_of", "outcome_of_error"]

_DECIDES: Final[tuple[Outcome, ...]] = ("cancelled", "parked", "paused")
"""The outcomes of which one among several is enough, the first of them first."""


def outcome_of(result: Any, *, of_flow: bool = False) -> tuple[Outcome, str | None]:
    """Return the outcome and its cause. Prefect states decide if nothing else is returned, as they do in Prefect.

    A state that the function itself made is the outcome. Of the states of others, each must have completed. If a flow
    returns futures, their final states decide. So wait for them, as Prefect does next.
    """
    states = _states(result, sys.modules.get("prefect.futures") if of_flow else None)
    if states and result is states[0] and not (result.state_details.flow_run_id or result.state_details.task_run_id):
        # Prefect ends no run in a state that is not an end.
        outcome = outcome_of_state(result) or "failed"
        return outcome, None if outcome == "completed" else result.message
    for outcome in _DECIDES:
        for state in states:
            if outcome_of_state(state) == outcome:
                return outcome, state.message
    return next((("failed", state.message) for state in states if not state.is_completed()), ("completed", None))


def _states(result: Any, futures: Any) -> list[Any]:
    """Return the states that are the whole of a result; none if there is anything else in it."""
    states: list[Any] = []
    for each in result if isinstance(result, list | tuple | set) else (result,):
        if futures is not None and isinstance(each, futures.PrefectFuture):
            each.wait()
            state = each.state
        else:
            state = each
        if type(state).__name__ != "State" or not type(state).__module__.startswith("prefect"):
            return []
        states.append(state)
    return states


def outcome_of_error(error: BaseException, *, of_call: bool = False) -> tuple[Outcome, str | None]:
    """Return the outcome and its cause. Prefect pauses by raising, and cancels what exceeds its timeout.

    To Prefect, whose runs end as it says, a flow or task that is cancelled by its event loop has crashed, and one that
    passes on the cancellation of another has failed. A call of a plain function was cancelled.
    """
    kind = type(error)
    names = {base.__name__ for base in kind.__mro__ if base.__module__.startswith(("prefect", "asyncio"))}
    if "Pause" in names:
        state = getattr(error, "state", None)
        return "parked" if getattr(state, "name", None) == PARKED else "paused", getattr(state, "message", None)
    cause = f"{kind.__name__}: {_text_of(error)}"
    if "CancelledError" in names and (timeout := passed_timeout()) is not None:
        return "failed", f"Exceeded its timeout of {timeout:g} s"
    if of_call and names & {"CancelledError", "CancelledRun"}:
        return "cancelled", cause
    return ("failed" if isinstance(error, Exception) else "crashed"), cause


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as other:  # noqa: BLE001 - whatever a user's type does, its call has ended
        return f"its text cannot be shown, which raises {type(other).__name__}"
