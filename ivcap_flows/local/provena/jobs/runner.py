"""The worker of the queue: it sleeps until the next job is due, or until one is added."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from starlette.concurrency import run_in_threadpool

from ivcap_flows.local import clock
from ivcap_flows.local.provena.jobs.state import Jobs
from ivcap_flows.local.provena.store import Store

__all__ = ["Runner"]

_log = logging.getLogger(__name__)
_AFTER_A_FAULT = 1.0


class Runner:
    """Works through the stored queue between `start` and `stop`; the rest continues at the next start."""

    def __init__(self, jobs: Jobs, store: Store) -> None:
        self._jobs, self._store = jobs, store
        self._task: asyncio.Task[None] | None = None
        self._added = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Look at the queue again. Call it on the event loop after adding a job."""
        self._added.set()

    async def start(self) -> None:
        """Start to work; do nothing if it already works."""
        if self._task is None:
            self._stopping = False
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish the current step and stop."""
        task, self._task = self._task, None
        if task is not None:
            self._stopping = True
            self._added.set()
            await task

    async def _run(self) -> None:
        while not self._stopping:
            self._added.clear()
            try:
                due = await run_in_threadpool(self._step)
                pause = None if due is None else max(0.0, due - clock.machine())
            except Exception:  # noqa: BLE001 - the queue must continue whatever happens in one step
                _log.exception("A step of the embedded Provena's job queue failed; it is tried again.")
                pause = _AFTER_A_FAULT
            if not self._stopping:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._added.wait(), pause)

    def _step(self) -> float | None:
        with self._store.transaction():
            self._jobs.advance()
            return self._jobs.next_due()
