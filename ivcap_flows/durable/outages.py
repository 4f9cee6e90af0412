"""Repeat requests while a platform cannot answer."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ivcap_flows.errors import IvcapFlowsError
from ivcap_flows.http.pauses import Retries
from ivcap_flows.http.retry import Backoff, is_transient
from ivcap_flows.secrets import logger_of

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

    The last call begins within `stall_timeout` seconds after it first could not.

    `ask` must be safe to repeat: it only reads, or has its effect once however often it is called.
    """
    return await Retries(Backoff(_FIRST, _LONGEST, stall_timeout), _say).run(ask, is_transient)


def _say(error: IvcapFlowsError, *_: float) -> None:
    global _said_at
    if time.monotonic() - _said_at > _SAID_EVERY:
        _said_at = time.monotonic()
        logger.warning("The platform cannot answer; trying again: %s", error)
