"""Limit the effects that are requested at once from one API, to as many as it answers in time.

The limit adapts to the replies by additive increase and multiplicative decrease, as TCP's congestion control (RFC
5681).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from math import inf
from typing import Final

from anyio import CapacityLimiter

from ivcap_flows.errors import IvcapFlowsError
from ivcap_flows.http.retry import is_transient
from ivcap_flows.secrets import logger_of

__all__ = ["MOST", "ConcurrencyLimit", "answering"]

_log = logger_of("ivcap_flows.http")

_FIRST: Final = 4
MOST: Final = 16
"""Maximum number of effects requested at once, however fast the replies are."""
_QUEUED: Final = 2.0
"""A reply that takes this many times as long as the fastest one was queued, so it does not raise the limit."""
LATE: Final = 15.0
"""Seconds after which a reply counts as a failure: half of the time for which gateways hold a request (29 s)."""

_current: Final[ContextVar[ConcurrencyLimit | None]] = ContextVar("ivcap_flows_pace", default=None)


class ConcurrencyLimit:
    """A limit that all requests for one kind of effect share. `what` names that kind in the log.

    It starts at four. After as many timely replies as the limit, it grows by one, up to MOST. A late reply, a lost
    reply, 429 or 5xx halves it, once for all requests that were in progress together.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._at_once = _FIRST
        self._turns: CapacityLimiter | None = None
        """Created in the first turn: some versions of anyio cannot create it outside of a running loop."""
        self._quickest = inf
        self._in_time = 0
        self._halved_at = -inf

    @property
    def at_once(self) -> int:
        """The current limit."""
        return self._at_once

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until one more effect may be requested. The replies to requests in the block adapt the limit."""
        turns = self._turns = self._turns or CapacityLimiter(self._at_once)
        holder = object()
        await turns.acquire_on_behalf_of(holder)
        before = _current.set(self)
        try:
            yield
        finally:
            _current.reset(before)
            turns.release_on_behalf_of(holder)

    def answered(self, began: float) -> None:
        """Record a reply to a request that was sent at `began` (`time.monotonic`)."""
        seconds = time.monotonic() - began
        if seconds > LATE:
            self.failed(began, f"an answer took {seconds:.0f} s")
            return
        self._quickest = min(self._quickest, seconds)
        if seconds > _QUEUED * self._quickest:
            return
        self._in_time += 1
        if self._in_time >= self._at_once < MOST:
            self._in_time = 0
            self._change(self._at_once + 1)
            _log.debug("%s: answered in time, so %d at once.", self._what, self._at_once)

    def failed(self, began: float, why: object) -> None:
        """Record a late reply, or a failure, of a request that was sent at `began`."""
        if began < self._halved_at:
            return
        self._halved_at, self._in_time = time.monotonic(), 0
        if (before := self._at_once) > 1:
            self._change(before // 2)
            _log.warning("%s: %d at once instead of %d: %s", self._what, self._at_once, before, why)

    def _change(self, at_once: int) -> None:
        self._at_once = at_once
        if self._turns is not None:
            self._turns.total_tokens = at_once


@contextmanager
def answering() -> Iterator[None]:
    """Report how the request in the block is answered to the limit of the surrounding turn, if there is one."""
    limit, began = _current.get(), time.monotonic()
    try:
        yield
    except IvcapFlowsError as error:
        if limit is not None and is_transient(error):
            limit.failed(began, error)
        raise
    if limit is not None:
        limit.answered(began)
