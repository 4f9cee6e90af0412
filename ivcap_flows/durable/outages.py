"""Repeat requests while a platform cannot answer."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from ivcap_flows.errors import PlatformError
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["through_outages"]

T = TypeVar("T")

logger = logger_of(__name__)

_FIRST: Final = 0.25
_LONGEST: Final = 10.0
_SAID_EVERY: Final = 60.0
"""Seconds between two log lines about outages, which many calls meet at the same moment."""
_said_at = -math.inf


async def through_outages(ask: Callable[[], Awaitable[T]], stall_timeout: float) -> T:
    """Return the result of `ask`, repeating the call while the platform cannot answer.

    This ends `stall_timeout` seconds after it first could not.

    `ask` must be safe to repeat: it only reads, or has its effect once however often it is called.
    """
    from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

    failing_since = math.inf

    async def once() -> T:
        # Tenacity only awaits functions declared with `async def`, not other callables that return an awaitable.
        return await ask()

    def say(state: RetryCallState) -> None:
        global _said_at
        if state.outcome is not None and time.monotonic() - _said_at > _SAID_EVERY:
            _said_at = time.monotonic()
            logger.warning("The platform cannot answer; trying again: %s", state.outcome.exception())

    def is_over(state: RetryCallState) -> bool:
        nonlocal failing_since
        failed_at = state.outcome_timestamp or state.start_time
        failing_since = min(failing_since, failed_at)
        return failed_at - failing_since >= stall_timeout

    again = AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, PlatformError) and error.retryable),
        wait=wait_random_exponential(multiplier=_FIRST, max=_LONGEST),
        stop=is_over,
        before_sleep=say,
        reraise=True,
    )
    return await again(once)
