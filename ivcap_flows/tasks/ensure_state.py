"""Writes that set a state: where a reply is lost, the state tells what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from ivcap_flows.errors import BadRequestError, PlatformError

__all__ = ["ensure_state"]

_PAUSES: Final = (1.0, 5.0)
"""Seconds before the second sending and before the third, in which a request that is late may still take effect."""


async def ensure_state(send: Callable[[], Awaitable[object]], holds: Callable[[], Awaitable[bool]]) -> None:
    """Send until the state is as wanted: at once where the reply comes, else after looking, three times at most.

    A refusal is none where the state holds: an earlier sending may have brought it about. Raises what the last sending
    raised.
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
