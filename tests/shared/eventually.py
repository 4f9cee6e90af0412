"""Wait for what another thread, process or server does."""

from __future__ import annotations

import asyncio
import subprocess
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
    said: Callable[[], object] = str,
    alive: subprocess.Popen[Any] | None = None,
) -> T:
    """Read until `done` holds of what was read, and return that. Fails with the last value and with `said()`, at once
    when the process has ended that is to be `alive`."""
    end = time.monotonic() + seconds
    while not done(found := read()):
        status = alive and alive.poll()
        why = f"not within {seconds:g} s" if status is None else f"the process has ended with {status}"
        assert status is None and time.monotonic() < end, f"{why}: {str(found)[-6000:]}\n{str(said())[-30_000:]}"
        time.sleep(pause)
    return found


async def auntil(true: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until a condition holds, by the clock of the running event loop."""
    now = asyncio.get_running_loop().time
    end = now() + seconds
    while not true():
        assert now() < end, f"not within {seconds:g} s"
        await asyncio.sleep(0.01)
