"""One followed call from its begin to its end: the code that runs in it, the values it gives away, and how it ended."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import Token
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.capture import context, makers
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.given import Given
from ivcap_flows.capture.guard import log_and_count
from ivcap_flows.capture.prefect_context import passed_timeout
from ivcap_flows.in_prefect.flow_run_states import PARKED
from ivcap_flows.in_prefect.flow_run_states import outcome_of as outcome_of_state
from ivcap_flows.plain_text import described

if TYPE_CHECKING:
    from ivcap_flows.journal import Outcome

__all__ = ["CallScope"]

_DECIDES: Final[tuple[Outcome, ...]] = ("cancelled", "parked", "paused")
"""The outcomes of which one among several is enough, the first of them first."""


class CallScope:
    """A call that was entered. `record_end` says what is recorded of its end.

    `is_flow` marks the call of a flow. What a flow returns was made by one of its tasks, which stays its maker.
    """

    is_flow = False
    closes = False
    """Whether `close` has anything to do, which may take long."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._token: Token[Any] | None = None
        self.enter()

    def enter(self) -> None:
        """Enter the call: what runs from here on is the call's."""
        self._token = context.enter_call(self.call)

    def leave(self) -> None:
        """Leave the call: what runs from here on is the caller's. A second call does nothing."""
        if self._token is not None:
            context.leave_call(self._token)
            self._token = None

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Enter the call for the block."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def yielded(self, value: Any) -> Any:
        """Return what the caller gets for a value that a generator yields."""
        with self.log_and_count("A value that %s yielded could not be recorded."):
            value = self._claimed(value)
            self.note_result(value)
        return value

    def finish(self, value: Any) -> Any:
        """End the call and leave it. Return what the caller gets for the result."""
        try:
            outcome, cause = _outcome_of(value, of_flow=self.is_flow)
        except BaseException as error:
            self.fail(error)
            if isinstance(error, Exception):
                # Prefect waits for the same futures, and meets the error itself.
                return value
            raise
        try:
            with self.log_and_count("The result of %s could not be recorded."):
                self.note_result(value)
            self.record_end(outcome, cause)
            with self.log_and_count("The result of %s could not be recorded."):
                value = self._claimed(value)
        finally:
            self.end()
        return value

    def _claimed(self, value: Any) -> Any:
        call = self.call
        return makers.claimed(value, call.id, call.given, call.wrote, of_flow=self.is_flow)

    def fail(self, error: BaseException) -> None:
        """End the call with an error, and leave it."""
        try:
            with self.log_and_count("The failure of %s could not be recorded."):
                if not self.is_flow:
                    makers.raised(error, self.call.id)
            self.record_end(*_outcome_of_error(error, of_call=self.call.kind == "call"))
        finally:
            self.end()

    def end(self) -> None:
        """Leave the call for good. Its record, which may wait, keeps nothing alive that it was given."""
        self.leave()
        self.call.given = Given({})

    def close(self) -> None:
        """After the end of the call, do what is left to do. A second call does nothing."""

    def note_result(self, value: Any) -> None:
        """Look at a value that the call gives away, before it is handed on."""

    def record_end(self, outcome: Outcome, cause: str | None) -> None:
        """Record how the call ended, and what it used and made."""

    def log_and_count(self, message: str) -> AbstractContextManager[None]:
        """Keep an error in recording away from the flow, and count what is missing from its run."""
        return log_and_count(context.miss, message, self.call.name)


def _outcome_of(result: Any, *, of_flow: bool = False) -> tuple[Outcome, str | None]:
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


def _outcome_of_error(error: BaseException, *, of_call: bool = False) -> tuple[Outcome, str | None]:
    """Return the outcome and its cause. Prefect pauses by raising, and cancels what exceeds its timeout.

    To Prefect, whose runs end as it says, a flow or task that is cancelled by its event loop has crashed, and one that
    passes on the cancellation of another has failed. A call of a plain function was cancelled.
    """
    names = {base.__name__ for base in type(error).__mro__ if base.__module__.startswith(("prefect", "asyncio"))}
    if "Pause" in names:
        state = getattr(error, "state", None)
        return "parked" if getattr(state, "name", None) == PARKED else "paused", getattr(state, "message", None)
    cause = described(error)
    if "CancelledError" in names and (timeout := passed_timeout()) is not None:
        return "failed", f"Exceeded its timeout of {timeout:g} s"
    if of_call and names & {"CancelledError", "CancelledRun"}:
        return "cancelled", cause
    return ("failed" if isinstance(error, Exception) else "crashed"), cause
