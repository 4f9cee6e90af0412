"""Send writes that set a state. After a lost reply, reading the state shows whether the write took effect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from ivcap_flows.errors import BadRequestError, PlatformError

__all__ = ["ensure_state"]

_PAUSES: Final = (1.0, 5.0)
"""Seconds to wait before the second and the third try, during which a late request may still take effect."""


async def ensure_state(send: Callable[[], Awaitable[object]], holds: Callable[[], Awaitable[bool]]) -> None:
    """Send a write until it succeeds or `holds` says that the state is as wanted; at most three times.

    A refusal counts as success if the state holds, since an earlier try may have set it. Raises the error of the last
    try.
    """
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

    async def once() -> None:
        try:
            await send()
        except PlatformError as error:
            if not ((error.retryable or isinstance(error, BadRequestError)) and await holds()):
                raise

    again = AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, PlatformError) and error.retryable),
        wait=wait_chain(*map(wait_fixed, _PAUSES)),
        stop=stop_after_attempt(len(_PAUSES) + 1),
        reraise=True,
    )
    await again(once)
