"""A world for the state machine of waiting: processes on one journal, in virtual time.

They run the production code down to the journal's rows. A process may be killed, or stopped and continued, at each of
its steps, and its journal may fail.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from intent_world import Killed
from simulated import Clock, Loop
from waiting_work import Seen, Work, wait_by

from ivcap_flows.durable import poll_round, poll_sharing, poller
from ivcap_flows.durable.poll_sharing import PollSharing
from ivcap_flows.durable.poller import Poller
from ivcap_flows.durable.rate_limiter import RateLimiter
from ivcap_flows.errors import JournalError, UnreachableError
from ivcap_flows.journal import Journal

_LATENCY = 0.05
BOUND = 60.0
"""Within so many seconds without a further fault every wait hears of what has ended."""
LOST = 6.0
"""Seconds after which the round of a process that is gone is begun again."""
_here: ContextVar[Process] = ContextVar("here")


class _Loop(Loop):
    """Threads run at once, but for those of a stopped process."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future, process = self.create_future(), _here.get()

        def do() -> Callable[[], None]:
            try:
                tell = partial(future.set_result, func(*args))
            except BaseException as error:
                tell = partial(future.set_exception, error)
            return lambda: future.done() or tell()

        process.step(do)
        return future


class Process:
    """A process with its own handle on the journal, its poller, and the waits that it has begun."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = False
        self.stopped: list[Callable[[], None]] | None = None
        """What is to happen when the process goes on; None while it runs."""
        self.stops_after_a_step = False
        self.fails_until, self.fails_after_commit = 0.0, False
        self.cut_off = False
        """Whether it reaches the journal, but not the platform."""
        self.waits: dict[asyncio.Task[Any], frozenset[str]] = {}
        self.poller: Poller[Any] | None = None
        self.context = copy_context()
        self.context.run(_here.set, self)
        self.journal = self.context.run(self._open)

    def _open(self) -> Journal:
        journal = Journal.open(f"sqlite:///{self.world.path}")
        store = journal._store
        # Nothing here is cut off from its power.
        sa.event.listen(store.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        store.engine.dispose()
        read, write = store.read, store.write

        @contextmanager
        def reads() -> Iterator[Any]:
            self.check()
            with read() as connection:
                yield connection

        @contextmanager
        def writes() -> Iterator[Any]:
            self.check(done=self.fails_after_commit)
            with write() as connection:
                yield connection
            self.check()

        store.read, store.write = reads, writes  # type: ignore[assignment, method-assign]
        return journal

    def check(self, *, done: bool = False) -> None:
        if self.dead:
            raise Killed
        if self.world.seconds < self.fails_until and not done:
            raise JournalError("the database is locked")

    def step(self, do: Callable[[], Callable[[], None]]) -> None:
        """Do something and hear of it; a stopped process does so, or hears of it, when it goes on."""
        if self.dead:
            return
        if self.stopped is None:
            do()()
        elif self.stops_after_a_step:
            self.stops_after_a_step = False
            self.stopped.append(do())
        else:
            self.stopped.append(lambda: do()())

    async def request(self) -> None:
        """Let a request arrive at the platform and be answered."""
        await asyncio.sleep(_LATENCY)
        answered = asyncio.get_running_loop().create_future()
        self.step(lambda: lambda: answered.cancelled() or answered.set_result(None))
        await answered
        if self.cut_off:
            raise UnreachableError("no reply", platform="p")

    def wait(self, *urns: str) -> None:
        if self.poller is None:
            sharing = PollSharing(self.journal, "orders a p")
            limiter = RateLimiter(60_000)
            self.poller = Poller(
                _Platform(self), visibility_delay=5.0, rate_limiter=limiter, sharing=sharing, on_idle=self._idle
            )
        task = self.context.run(self.world.loop.create_task, self.poller.wait(urns))
        self.waits[task] = frozenset(urns)

    def _idle(self) -> None:
        self.poller = None

    def give_up(self) -> frozenset[str]:
        """End the oldest wait without a result, and return the work it was for."""
        if not self.waits:
            return frozenset()
        task = next(iter(self.waits))
        task.cancel()
        return self.waits.pop(task)

    def fail(self, seconds: float, *, after_commit: bool) -> None:
        """Let its journal fail, before it writes or after."""
        self.fails_until, self.fails_after_commit = self.world.seconds + seconds, after_commit

    def stop(self, *, after_a_step: bool) -> None:
        """Stop before its next step, or after it."""
        self.stopped, self.stops_after_a_step = [], after_a_step

    def go_on(self) -> None:
        held, self.stopped = self.stopped or [], None
        for each in held:
            self.context.run(each)

    def kill(self) -> None:
        self.dead, self.stopped = True, None
        for task in (*self.waits, self.poller and self.poller._ticker):
            if task is not None:
                task.cancel()
        self.waits.clear()


class _Platform(Seen):
    """The work as one process sees it."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.world.work)
        self._process = process

    async def read(self, urn: str, service: str) -> Any:
        await self._process.request()
        return await self._work.read(urn, service)

    async def pages(self, name: str) -> Any:
        self._process.world.pages.append(self._process.world.seconds)
        await self._process.request()
        async for page in self._work.pages(name):
            yield page


class World:
    """One account with work on one platform, and the processes that wait for it."""

    def __init__(self, template: Path) -> None:
        self.path = template.with_name(f"{uuid.uuid4()}.sqlite")
        shutil.copy(template, self.path)
        self.clock = Clock()
        self.work = Work()
        self.lasting: list[str] = []
        """Work that ends last of all."""
        self.processes: list[Process] = []
        self.pages: list[float] = []
        """When a page was asked for."""
        self.loop = _Loop(self.clock)
        self.loop.set_exception_handler(lambda *_: None)

    @property
    def seconds(self) -> float:
        return self.clock.seconds

    @property
    def live(self) -> list[Process]:
        return [each for each in self.processes if not each.dead]

    @property
    def live_work(self) -> list[str]:
        found = [urn for urn, status in self.work.status.items() if status == "executing"]
        return [urn for urn in found if urn not in self.lasting]

    def begin_work(self, *, lasting: bool = False) -> str:
        urn = f"o{len(self.work.status)}"
        if lasting:
            self.lasting.append(urn)
        self.work.status[urn] = "executing"
        return urn

    def start(self) -> Process:
        self.processes.append(Process(self))
        return self.processes[-1]

    def let_pass(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        for process in self.live:
            for task in [task for task in process.waits if task.done()]:
                assert {status for _, status in task.result()} == {"succeeded"}
                del process.waits[task]

    def hear(self) -> None:
        """Check that without further faults every wait hears of its ended work in bounded time."""
        for process in self.live:
            process.fails_until, process.cut_off = 0.0, False
        began = self.seconds
        while unheard := self._unheard():
            assert self.seconds - began < BOUND, f"{len(unheard)} processes never heard of an end"
            self.let_pass(2.0)

    def _unheard(self) -> list[Process]:
        ended = {urn for urn, status in self.work.status.items() if status == "succeeded"}
        runs = [process for process in self.live if process.stopped is None]
        return [process for process in runs if any(urns <= ended for urns in process.waits.values())]

    def share(self) -> None:
        """Check that once all is quiet, all processes together ask for no more pages than one would."""
        self.let_pass(BOUND / 2)
        quiet = BOUND / 4
        pages = [at for at in self.pages if at > self.seconds - quiet]
        assert len(pages) <= quiet / (1 - poller._JITTER) + 1, "each asks for itself"

    def close(self) -> None:
        for process in self.live:
            process.kill()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(1))
        for process in self.processes:
            process.journal._store.engine.dispose()
        self.loop.close()
        self.path.unlink()


def in_worlds(patch: pytest.MonkeyPatch, current: Callable[[], World]) -> None:
    """Run the production code in the current world, with its time and processes and slightly shorter rests."""
    wait_by(patch, lambda: current().clock)
    # Thousands of journals that fail are told of; nobody reads it.
    patch.setattr(logging.getLogger("ivcap_flows.waiting"), "disabled", True)
    patch.setattr(poller, "LONGEST", 4.0)
    patch.setattr(poll_sharing, "_AWAY", 5.0)
    patch.setattr(poll_round, "SINGLE_READS", 0)
    patch.setattr(poller, "LOST", LOST)
