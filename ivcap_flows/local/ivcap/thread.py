"""The only thread that reads and writes the state, in order of arrival."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

__all__ = ["StateThread"]

T = TypeVar("T")


class StateThread:
    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="state")

    async def run(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Run a function in the thread. If the caller is cancelled, the function still runs to its end."""
        work = partial(contextvars.copy_context().run, partial(function, *arguments, **named))
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        self._pool.shutdown(wait=True)
