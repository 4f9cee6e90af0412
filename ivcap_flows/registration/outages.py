"""A platform that is away for a while is waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ivcap_flows.errors import PlatformError
from ivcap_flows.secrets import logger_of

__all__ = ["through_outages"]

T = TypeVar("T")

logger = logger_of(__name__)

_FIRST: Final = 0.25
_LONGEST: Final = 10.0


async def through_outages(ask: Callable[[], Awaitable[T]], stall_timeout: float) -> T:
    """What `ask` gives, called again for `stall_timeout` seconds while Provena cannot answer.

    It only reads, or has its effect once however often it is called.
    """
    deadline = time.monotonic() + stall_timeout
    pause = _FIRST
    while True:
        try:
            return await ask()
        except PlatformError as error:
            if not error.retryable or time.monotonic() + pause > deadline:
                raise
            if pause == _FIRST:
                logger.warning("Provena cannot answer and is waited for: %s", error)
            await asyncio.sleep(pause)
            pause = min(_LONGEST, 2 * pause)
