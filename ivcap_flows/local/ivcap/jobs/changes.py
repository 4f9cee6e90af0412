"""Notify waiting requests that a job has news."""

from __future__ import annotations

import asyncio
import contextlib

__all__ = ["Changes"]


class Changes:
    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._any = asyncio.Event()

    def bind(self) -> None:
        """Use the running loop."""
        self._loop = asyncio.get_running_loop()

    def publish(self, job: str) -> None:
        """Notify of news of a job. Call it from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, job)

    def _wake(self, job: str) -> None:
        self._any.set()
        for event in self._waiting.get(job, ()):
            event.set()

    async def anything(self, seconds: float) -> None:
        """Wait for news of any job since the last call, at most this many seconds."""
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._any.wait(), seconds)
        self._any.clear()

    def watch(self, job: str) -> asyncio.Event:
        """Return an event that is set at the next news; return it with `forget`."""
        event = asyncio.Event()
        self._waiting.setdefault(job, set()).add(event)
        return event

    def forget(self, job: str, event: asyncio.Event) -> None:
        waiting = self._waiting.get(job, set())
        waiting.discard(event)
        if not waiting:
            self._waiting.pop(job, None)
