"""Wait for what another thread, process or server does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def until(
    read: Callable[[], T],
    done: Callable[[T], object] = bool,
    seconds: float = 60,
    *,
    pause: float = 0.03,
    said: Callable[[], object] | None = None,
) -> T:
    """Read until `done` holds of what was read, and return that. Fails with the last value, or with `said()`."""
    end = time.monotonic() + seconds
    while not done(found := read()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {str(said() if said else found)[-6000:]}"
        time.sleep(pause)
    return found


async def auntil(true: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until a condition holds, by the clock of the running event loop."""
    now = asyncio.get_running_loop().time
    end = now() + seconds
    while not true():
        assert now() < end, f"not within {seconds:g} s"
        await asyncio.sleep(0.01)
