"""Watch sent rows until their jobs end: a batch's job, the jobs of its runs, or the single job of one run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final

from ivcap_flows.durable.outages import through_outages
from ivcap_flows.provena.models import JobRow
from ivcap_flows.registration.keys import key_in

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["BatchWatcher", "End", "Pulse", "Sending", "Unit"]

_PAGE: Final = 500
SHORTEST: Final = 0.25
LONGEST: Final = 10.0
_SHARE: Final = 0.25
"""The pause between two looks, as a share of the time that the rest will take at the speed so far."""


@dataclass(frozen=True)
class Unit:
    """What is watched. With `parent`: the job that makes a batch; else the `batch`; without a batch, the job itself."""

    job: str
    batch: str | None = None
    parent: bool = False


@dataclass(frozen=True)
class End:
    """The result of watching. `left` are the keys whose end was not seen.

    `parent_failed` is the reason if the batch's job failed; runs that it had not dispatched by then never will be.
    """

    left: frozenset[str]
    job: str
    status: str | None
    parent_failed: str | None
    jobs: Mapping[str, str]
    """The job of each key, as far as it was seen."""


class Pulse:
    """The last time at which any job of this process was seen to make progress.

    Jobs wait in one queue for few workers. So the stall timeout of each job counts from the progress of any of them.
    """

    def __init__(self) -> None:
        self.at = time.monotonic()

    def heartbeat(self) -> None:
        self.at = time.monotonic()


class Sending:
    """Whether this process is about to send something. Use it as a context manager around the sending.

    Meanwhile sent batches are not watched, since each look is a request and nothing waits for it yet.
    """

    def __init__(self) -> None:
        self._senders = 0
        self._over = asyncio.Event()
        self._over.set()

    def __enter__(self) -> None:
        self._senders += 1
        self._over.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._senders -= 1
        if not self._senders:
            self._over.set()

    async def over(self) -> None:
        """Return when nothing is about to be sent, or after `LONGEST` seconds."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._over.wait(), LONGEST)


Told = Callable[[Sequence[tuple[str, JobRow]]], Awaitable[None]]
"""A function that is called with keys whose jobs have ended."""


class BatchWatcher:
    """Watches units until their jobs have ended, or there was no progress for `stall_timeout` seconds."""

    def __init__(self, client: ProvenaClient, pulse: Pulse, sending: Sending, stall_timeout: float) -> None:
        self._client = client
        self._pulse = pulse
        self._sending = sending
        # Provena's workers take the oldest jobs first. So watch one unit as long as it makes progress, then the next:
        # a look at a batch has a long reply, which would delay the others and Provena's own work.
        self._turn = asyncio.Lock()
        self._stall_timeout = stall_timeout

    async def follow(self, unit: Unit, keys: Iterable[str], told: Told, *, stall_timeout: float, alone: bool) -> End:
        """Watch a unit for these keys. `alone`: only the progress of this unit counts, not that of others."""
        left, seen = set(keys), dict[str, str]()
        count = len(left)
        jobs: dict[str, str] = {}
        began = moved = time.monotonic()
        status: str | None = None
        if not alone:
            await self._sending.over()
            await asyncio.sleep(SHORTEST)
        while True:
            async with self._turn:
                moving = True
                while moving:
                    rows, unit, status, failed = await through_outages(
                        partial(self._look, unit, status), self._stall_timeout
                    )
                    moves = {row.session_id: row.status for row in rows} | {"": status or ""}
                    moving = moves != seen
                    if moving:
                        seen, moved = moves, time.monotonic()
                        self._pulse.heartbeat()
                    mine = [(key, row) for row in rows if (key := key_in(row.payload.get("record"))) in left]
                    jobs |= {str(key): row.session_id for key, row in mine}
                    ended = [(str(key), row) for key, row in mine if row.done]
                    if ended:
                        await told(ended)
                        left -= {key for key, _ in ended}
                    now = time.monotonic()
                    late = now - (moved if alone else max(moved, self._pulse.at)) > stall_timeout
                    if not left or failed is not None or late:
                        return End(frozenset(left), unit.job, status, failed, jobs)
                    pause = _pause(now - began, count - len(left), len(left))
                    moving = moving and not alone
                    if moving:
                        await asyncio.sleep(pause)
            await asyncio.sleep(pause)

    async def _look(self, unit: Unit, status: str | None) -> tuple[list[JobRow], Unit, str | None, str | None]:
        """Return the jobs that lodge runs, the unit to watch from now on, its job's status, and why that job failed."""
        if unit.parent or unit.batch is None:
            row = await self._client.jobs.fetch(unit.job)
            if row is None:
                return [], unit, None, None
            if not unit.parent:
                return [row], unit, row.status, None
            if row.status == "FAILED":
                return [], unit, row.status, (row.info or "").strip() or "Provena gives no reason"
            status = row.status
            if row.result_batch_id is None:
                return [], unit, status, None
            unit = Unit(unit.job, row.result_batch_id)
        children = self._client.jobs.list_batch(unit.batch or "", page_size=_PAGE)
        return [child async for child in children], unit, status, None


def _pause(elapsed: float, done: int, left: int) -> float:
    """Return the seconds until the next look: `done` jobs ended in `elapsed` seconds, and `left` have not ended."""
    rest = elapsed * left / done if done else elapsed
    return min(LONGEST, max(SHORTEST, _SHARE * min(rest, 2 * elapsed)))
