"""Wait for the jobs of registrations: few are read one by one, many from the list of the caller's newest jobs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ivcap_flows.errors import PlatformError, WaitTimeoutError
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import JobRow
from ivcap_flows.registration.registry import moment
from ivcap_flows.secrets import logger_of

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["JobWatch"]

logger = logger_of(__name__)

_SINGLY: Final = 3
"""Up to so many jobs are read one by one."""
_READS: Final = 16
"""Maximum number of jobs that one look reads one by one, since the list does not show them."""
_PAGE: Final = 500
_OTHERS: Final = 100
"""The list is read as far as the jobs waited for would fill it twice, with so many others among them."""
_PAUSE_FACTOR: Final = 4
"""A pause is at least this many times as long as the look before it, so that long lists are not read all the time. A
look that failed has read none: it took as long as its requests were repeated."""


@dataclass(eq=False)
class _Wait:
    job: str
    stall_timeout: float
    moved: float = field(default_factory=time.monotonic)
    """When its status was last seen to change."""
    read_at: float = 0.0
    status: str | None = None
    is_old: bool = False
    """Whether it was older than the stall timeout when it was first seen."""
    future: asyncio.Future[JobRow] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class JobWatch:
    """Waits for jobs of the caller until they end.

    Jobs wait in one queue for few workers, so the stall timeout of each counts from the progress of any of them. Only a
    job that was older than its stall timeout when it was first seen has to make progress itself, within the visibility
    delay: its worker is probably dead.

    `pauses` are the seconds between two looks: at first and after progress, and at most. They double in between.
    """

    def __init__(self, client: ProvenaClient, *, pauses: tuple[float, float] = (0.25, 10.0)) -> None:
        self._client = client
        self._first, self._longest = pauses
        self._waits: set[_Wait] = set()
        self._watching: asyncio.Task[None] | None = None
        self._joined = asyncio.Event()
        self._moved = time.monotonic()
        self._trouble: PlatformError | None = None

    @property
    def moved(self) -> float:
        """The monotonic time of the last progress of any job."""
        return self._moved

    async def wait(self, job: str, stall_timeout: float) -> JobRow:
        """Wait for a job to end, successfully or not, and return its row.

        While the platform is unreachable, the wait continues. Raises WaitTimeoutError with `pending` and the last
        `status` (None if no row ever appeared) when nothing has moved for `stall_timeout` seconds.
        """
        wait = _Wait(job, stall_timeout)
        self._waits.add(wait)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        self._joined.set()
        try:
            return await asyncio.shield(wait.future)
        finally:
            self._waits.remove(wait)
            if not self._waits and self._watching is not None:
                # The next wait has a task of its own: this one may not have heard of its end by then.
                self._watching.cancel()
                self._watching = None

    async def _watch(self) -> None:
        pause = self._first
        while self._waits:
            began, before, took = time.monotonic(), self._moved, 0.0
            self._joined.clear()
            try:
                await self._look()
                self._trouble, took = None, time.monotonic() - began
            except Exception as error:  # noqa: BLE001 - a wait must not hang because of a fault here
                if not (isinstance(error, PlatformError) and error.retryable):
                    self._fail(self._waits, error)
                    self._watching = None
                    return
                self._note_trouble(error)
            self._fail_stalled(time.monotonic())
            moved = self._moved > before or self._joined.is_set()
            pause = self._first if moved else min(self._longest, 2 * pause)
            await asyncio.sleep(_PAUSE_FACTOR * took)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._joined.wait(), pause)

    async def _look(self) -> None:
        missing = {wait.job: wait for wait in self._waits if not wait.future.done()}
        if len(missing) > _SINGLY:
            async for row in self._client.jobs.list(page_size=_PAGE, limit=2 * len(missing) + _OTHERS):
                if (wait := missing.pop(row.session_id, None)) is not None:
                    self._see(wait, row)
                if not missing:
                    break
        await all_of(self._read, sorted(missing.values(), key=lambda wait: wait.read_at)[:_READS])

    async def _read(self, wait: _Wait) -> None:
        wait.read_at = time.monotonic()
        try:
            row = await self._client.jobs.fetch(wait.job)
        except PlatformError as error:
            if error.retryable:
                raise
            self._fail([wait], error)
        else:
            if row is not None:
                self._see(wait, row)

    def _see(self, wait: _Wait, row: JobRow) -> None:
        now = time.monotonic()
        if wait.status is None:
            created, platform = moment(row.created_timestamp), self._client.time
            age = (platform.earliest - created).total_seconds() if created and platform else 0.0
            wait.is_old = age >= wait.stall_timeout
        if row.status != wait.status:
            wait.status, wait.moved = row.status, now
            self._moved = self._moved if wait.is_old else now
        if row.done and not wait.future.done():
            wait.future.set_result(row)

    def _fail_stalled(self, now: float) -> None:
        for wait in self._waits:
            if wait.is_old:
                stalled = now - wait.moved > self._client.visibility_delay
            else:
                stalled = now - max(wait.moved, self._moved) > wait.stall_timeout
            if stalled:
                seen = f"it was last seen {wait.status}" if wait.status else self._trouble or "it never appeared"
                words = f"The Provena job {wait.job} has not ended, and there was no progress: {seen}"
                error = WaitTimeoutError(f"{words.rstrip('.')}. Wait again.", pending=[wait.job], status=wait.status)
                self._fail([wait], error)

    def _fail(self, waits: Iterable[_Wait], error: Exception) -> None:
        for wait in waits:
            if not wait.future.done():
                wait.future.set_exception(error)

    def _note_trouble(self, error: PlatformError) -> None:
        if self._trouble is None:
            logger.warning("Provena cannot be asked about jobs and is waited for: %s", error)
        self._trouble = error
