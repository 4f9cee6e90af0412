"""Waiting for no longer than is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["within"]


async def within(waiting: asyncio.Future[None], timeout: float | None, late: Callable[[], Exception]) -> None:
    """Await a future for at most so many seconds; `wait_for` would make a task of it."""

    def expire() -> None:
        if not waiting.done():
            waiting.set_exception(late())

    alarm = None if timeout is None else waiting.get_loop().call_later(timeout, expire)
    try:
        await waiting
    finally:
        if alarm is not None:
            alarm.cancel()
