"""One followed call from its begin to its end: the code that runs in it, the values it gives away, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import Token
from typing import TYPE_CHECKING, Any

from ivcap_flows.capture import context, makers
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.given import Given
from ivcap_flows.capture.guard import log_and_count
from ivcap_flows.capture.outcomes import outcome_of, outcome_of_error

if TYPE_CHECKING:
    from ivcap_flows.journal import Outcome

__all__ = ["CallScope"]


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
            outcome, cause = outcome_of(value, of_flow=self.is_flow)
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
            self.record_end(*outcome_of_error(error, of_call=self.call.kind == "call"))
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
