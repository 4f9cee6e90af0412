"""The outcome of a call, by what it returned or raised."""

from __future__ import annotations

import sys
from typing import Any, Literal

from ivcap_flows.capture.prefect_context import passed_timeout
from ivcap_flows.in_prefect.flow_run_states import PARKED

__all__ = ["outcome_of", "outcome_of_error"]


def outcome_of(
    result: Any, *, of_flow: bool = False
) -> tuple[Literal["completed", "failed", "crashed", "cancelled"], str | None]:
    """Return the outcome and its cause. Prefect states decide if nothing else is returned, as they do in Prefect.

    If a flow returns futures, their final states decide. So wait for them, as Prefect does next.
    """
    states = _states(result, sys.modules.get("prefect.futures") if of_flow else None)
    for state in states:
        if state.is_cancelled():
            return "cancelled", state.message
    for state in states:
        if state.is_failed() or state.is_crashed():
            return "failed", state.message
    return "completed", None


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


def outcome_of_error(error: BaseException) -> tuple[str, str | None]:
    """Return the outcome and its cause. Prefect pauses and cancels by raising, and cancels what exceeds its timeout."""
    kind = type(error)
    names = {base.__name__ for base in kind.__mro__ if base.__module__.startswith(("prefect", "asyncio"))}
    if "Pause" in names:
        state = getattr(error, "state", None)
        return "parked" if getattr(state, "name", None) == PARKED else "paused", getattr(state, "message", None)
    cause = f"{kind.__name__}: {_text_of(error)}"
    if names & {"CancelledError", "CancelledRun"}:
        timeout = passed_timeout()
        return ("cancelled", cause) if timeout is None else ("failed", f"Exceeded its timeout of {timeout:g} s")
    return ("failed" if isinstance(error, Exception) else "crashed"), cause


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as other:  # noqa: BLE001 - whatever a user's type does, its call has ended
        return f"its text cannot be shown, which raises {type(other).__name__}"
