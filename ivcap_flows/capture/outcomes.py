"""The outcome of a call, by what it returned or raised."""

from __future__ import annotations

from typing import Any, Literal

from ivcap_flows.capture.context import passed_timeout

__all__ = ["outcome_of", "outcome_of_error"]


def outcome_of(result: Any) -> tuple[Literal["completed", "failed", "crashed", "cancelled"], str | None]:
    """Return the outcome and its cause. If a flow returns Prefect states, they decide (final state determination)."""
    states = result if isinstance(result, list | tuple) else (result,)
    for state in states:
        if type(state).__name__ == "State" and type(state).__module__.startswith("prefect"):
            if state.is_cancelled():
                return "cancelled", state.message
            if state.is_failed() or state.is_crashed():
                return "failed", state.message
    return "completed", None


def outcome_of_error(error: BaseException) -> tuple[str, str | None]:
    """Return the outcome and its cause. Prefect pauses and cancels by raising, and cancels what exceeds its timeout."""
    kind = type(error)
    names = {base.__name__ for base in kind.__mro__ if base.__module__.startswith(("prefect", "asyncio"))}
    if "Pause" in names:
        return "parked", getattr(getattr(error, "state", None), "message", None)
    cause = f"{kind.__name__}: {error}"
    if names & {"CancelledError", "CancelledRun"}:
        timeout = passed_timeout()
        return ("cancelled", cause) if timeout is None else ("failed", f"Exceeded its timeout of {timeout:g} s")
    return ("failed" if isinstance(error, Exception) else "crashed"), cause
