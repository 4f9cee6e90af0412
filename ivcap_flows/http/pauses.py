"""Waits: between the failures of a thing that is tried again, and between looks at a state."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from ivcap_flows.errors import IvcapFlowsError
from ivcap_flows.http.retry import Backoff
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["Pauses", "Retries", "broke_off", "retry_until"]

_log = logger_of("ivcap_flows.http")

T = TypeVar("T")

Say = Callable[[IvcapFlowsError, float, float], None]
"""Takes a failure, the seconds until the next attempt, and those since the first failure."""

retry_until: ContextVar[float] = ContextVar("ivcap_flows_retry_until", default=math.inf)
"""The monotonic time of the last attempt at anything that the running code tries again, whatever its budget."""


class Pauses:
    """The pauses between looks at a state: from `first` seconds, each twice as long as the one before, to `longest`;
    with a jitter of up to a quarter of the first."""

    def __init__(self, first: float, longest: float) -> None:
        self._steps = Backoff(first, longest)
        self._number = 0

    async def sleep(self, most: float = math.inf) -> None:
        """Sleep for the next pause, or for `most` seconds where that is less."""
        self._number += 1
        jitter = random.uniform(0, self._steps.first / 4)  # noqa: S311 - no secret
        await asyncio.sleep(min(self._steps.ceiling(self._number) + jitter, max(most, 0.0)))


class Retries:
    """The waits after the failures of one thing, by a back-off. `say` tells each to the log.

    The budget counts from the first failure. Before it, the process may have waited for its own requests, or been
    suspended: it has found nothing out about the platform. After `retry_until`, there is no wait.
    """

    def __init__(self, backoff: Backoff, say: Say) -> None:
        self._backoff, self._say = backoff, say
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget the failures so far: the thing has got further."""
        self._number, self._since = 0, math.inf

    async def wait(self, error: IvcapFlowsError) -> None:
        """Wait as the failure demands. Raise it if that would take longer than the budget, or the time is over."""
        now = time.monotonic()
        self._number += 1
        self._since = min(self._since, now)
        waited, left = now - self._since, retry_until.get() - now
        wait = self._backoff.delay(self._number, error.data.get("retry_after"))
        if left <= 0 or self._backoff.exhausted(waited, wait):
            raise error
        wait = min(wait, left)
        self._say(error, wait, waited)
        await asyncio.sleep(wait)

    async def run(self, attempt: Callable[[], Awaitable[T]], may_pass: Callable[[BaseException], bool]) -> T:
        """Return the result of `attempt`, which is repeated after failures that may pass."""
        from tenacity import AsyncRetrying, retry_if_exception

        async def once() -> T:
            # Tenacity only awaits functions declared with `async def`, not other callables that return an awaitable.
            return await attempt()

        async def wait(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            assert isinstance(error, IvcapFlowsError)
            await self.wait(error)

        return await AsyncRetrying(retry=retry_if_exception(may_pass), before_sleep=wait, reraise=True)(once)


def broke_off(transfer: str) -> Say:
    """Return what tells the log that a transfer broke off."""

    def say(error: IvcapFlowsError, wait: float, _: float) -> None:
        _log.info("The %s broke off: %s Going on in %.1f s.", transfer, error, wait)

    return say
