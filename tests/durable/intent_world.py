"""A world for the state machine: two machines, processes that die or are suspended at any step, a platform that forgets
to answer.

The package runs as it is. The world only answers what it asks of a machine: which processes hold a lock, the clock.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from durable_platform import BASE, Account, Platform
from simulated import Clock, Loop

from ivcap_flows.durable import Performed
from ivcap_flows.journal import Journal
from ivcap_flows.journal import processes as processes_module
from ivcap_flows.journal.processes import HEARTBEAT_SECONDS, SILENT_SECONDS

SUSPENDED = 3 * SILENT_SECONDS
STALL_TIMEOUT = 10 * SILENT_SECONDS
"""Seconds after which a call that has no answer yet never gets one."""
TRIGGERS = """
CREATE TABLE arrows (before TEXT, after TEXT);
CREATE TRIGGER made AFTER INSERT ON intents BEGIN INSERT INTO arrows VALUES (NULL, new.state); END;
CREATE TRIGGER moved AFTER UPDATE ON intents BEGIN INSERT INTO arrows VALUES (old.state, new.state); END;
"""


class Killed(BaseException):
    """SIGKILL as the running code sees it: it ends here and cannot clean up."""


@dataclass
class Call:
    """One call of `perform`, in a process of its own or in a `service`, which outlives it: what befalls its requests in
    turn, and those for idempotency records; the step at which the journal is copied, its process dies or is suspended,
    or the call is cancelled; the step at which a clock is set, and by how much (`clock`); how long each of its requests
    takes (`pause`); when it begins."""

    key: int
    faults: Sequence[str] = ()
    kill_at: int | None = None
    cancel_at: int | None = None
    pause: float = 0.0
    machine: int = 0
    suspend_at: int | None = None
    after: float = 0.0
    service: int | None = None
    clock: tuple[int, float] | None = None
    record_faults: Sequence[str] = ()
    copy_at: int | None = None


@dataclass
class Machine:
    """The processes that have locked a file on it, by their ids in a journal; its clock is `ahead` by seconds."""

    name: str
    locks: dict[str, Process] = field(default_factory=dict)
    ahead: float = 0.0


@dataclass(eq=False)
class Process:
    """A process of a machine, with its own handle on a journal, and what the package keeps in a process."""

    machine: Machine
    journal: Journal
    clock: Clock
    """Nobody sets it."""
    copy: Callable[[], None]
    """Copies its journal, as a backup does."""
    ids: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    heard: dict[str, Any] = field(default_factory=dict)
    beating: int = 0
    """How many of its calls want a heartbeat of it."""
    suspended: bool = False
    dead: bool = False
    ended: bool = False
    """Whether its locks are gone."""

    def check(self) -> None:
        if self.dead:
            raise Killed


@dataclass(eq=False)
class Running:
    """A call in its process."""

    process: Process
    call: Call
    task: asyncio.Task[Any] | None = None
    steps: int = 0
    rested: bool = False

    def step(self) -> None:
        """Note that a step is done. The process may die now."""
        self.process.check()
        self.steps += 1
        if self.call.copy_at == self.steps:
            self.process.copy()
        if self.call.kill_at == self.steps:
            self.process.dead = self.process.ended = True
            raise Killed
        if self.call.cancel_at == self.steps and self.task is not None:
            self.task.cancel()
        if self.call.clock is not None and self.call.clock[0] == self.steps:
            self.process.machine.ahead += self.call.clock[1]

    async def rest(self) -> None:
        """Suspend the process if that is due. A service is not: its other calls would go on."""
        due = self.call.suspend_at is not None and self.steps >= self.call.suspend_at
        if due and not self.rested and self.call.service is None:
            self.rested = self.process.suspended = True
            await asyncio.sleep(SUSPENDED)
            self.process.suspended = False


_running: contextvars.ContextVar[Running] = contextvars.ContextVar("running")


def _here() -> Process:
    """The process whose code runs now."""
    return _running.get().process


class _Own:
    """A set or a dict of the package of which each simulated process has its own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        return getattr(getattr(_here(), self._name), method)

    def __contains__(self, item: object) -> bool:
        return item in getattr(_here(), self._name)

    def __setitem__(self, name: str, value: object) -> None:
        getattr(_here(), self._name)[name] = value


class _Locks:
    """The lock files of the machine on which the running process is."""

    def __init__(self, folder: object, boot: str = "") -> None:
        """They are in no folder."""

    def hold(self, process: str) -> str:
        _here().machine.locks[process] = _here()
        return _here().machine.name

    def release(self, process: str) -> None:
        """Whoever closes the journal has ended, or goes on until it does."""

    def life(self, process: str, lock: str | None) -> str:
        holder = _here().machine.locks.get(process)
        return "unknown" if holder is None else "dead" if holder.ended else "alive"


def inhabit(patch: pytest.MonkeyPatch) -> None:
    """Let the package ask the world wherever it would ask the machine.

    What it does with the answers is production code.
    """

    def count_beating(more: int) -> Callable[[Journal], None]:
        def count(journal: Journal) -> None:
            _here().beating += more

        return count

    patch.setattr(processes_module, "socket", SimpleNamespace(gethostname=lambda: _here().machine.name))
    patch.setattr(processes_module, "ProcessLocks", _Locks)
    for name in ("ids", "tokens", "heard"):
        patch.setattr(processes_module, "_mine" if name == "ids" else f"_{name}", _Own(name))
    patch.setattr(processes_module, "time", SimpleNamespace(monotonic=lambda: _here().clock.seconds))
    performing = importlib.import_module("ivcap_flows.durable.perform")
    patch.setattr(performing, "start_heartbeat", count_beating(1))
    patch.setattr(performing, "stop_heartbeat", count_beating(-1))


class World:
    """One account on one platform, and the journals and processes of its machines."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder, self.template = folder, template
        self.clock = Clock()
        self.account = Account(self.clock)
        self.journal_ahead = 0.0
        """Seconds by which the clock of a journal's server is."""
        self.has_server = False
        """Whether the journal's time is a server's, or that of the machine whose process asks."""
        self.machines = [Machine("one"), Machine("other")]
        self.alive: list[Process] = []
        self.services: dict[int, Process] = {}
        self.paths: list[Path] = []
        self.asked: set[int] = set()
        self.excused: set[int] = set()
        """Keys of which the platform showed an effect too late, so that there may be two."""
        self.forgotten: set[int] = set()
        """Those of them that a journal which was lost has sent: the next one need not know of it."""
        self.lose_journal()
        self.backup = self.folder / "backup.sqlite"
        self.copy_journal()

    @property
    def path(self) -> Path:
        """The journal that the machines share."""
        return self.paths[-1]

    def lose_journal(self) -> None:
        """Delete the journal, so that the next processes find an empty one."""
        self.stop_all()
        self.paths.append(self.folder / f"{uuid.uuid4()}.sqlite")
        shutil.copy(self.template, self.path)
        with sqlite3.connect(self.path) as connection:
            # A copy is not the same journal.
            connection.execute("UPDATE journal_info SET id = ?", (str(uuid.uuid4()),))
        connection.close()
        self.forgotten |= self.excused

    def copy_journal(self) -> None:
        """Keep a copy of the journal as it is now."""
        with sqlite3.connect(self.path) as journal, sqlite3.connect(self.backup) as copy:
            journal.backup(copy)
        journal.close()
        copy.close()

    def put_back(self) -> None:
        """Put the last copy of the journal in its place, so that the next processes know of nothing since then."""
        self.stop_all()
        for ending in ("-wal", "-shm"):
            Path(f"{self.path}{ending}").unlink(missing_ok=True)
        shutil.copy(self.backup, self.path)
        for effect in self.account.effects:
            effect["journal"] = None
        self.forgotten |= self.excused

    def reboot(self, machine: int) -> None:
        """Let a machine take its place that knows those processes by their heartbeats alone."""
        self.stop_all()
        self.machines[machine] = Machine(self.machines[machine].name)

    def start(self, machine: int) -> Process:
        """Start a process on the journal."""
        journal = Journal.open(f"sqlite:///{self.path}")
        process = Process(self.machines[machine], journal, self.clock, self.copy_journal)
        store = journal._store
        store.now = lambda connection: self.time_of(process)  # type: ignore[method-assign]
        original = store.write

        @contextmanager
        def write() -> Iterator[Any]:
            process.check()
            with original() as connection:
                yield connection
            _running.get().step()

        store.write = write  # type: ignore[assignment, method-assign]
        self.alive.append(process)
        return process

    def time_of(self, process: Process) -> datetime:
        """Return the journal's time as a process reads it."""
        ahead = self.journal_ahead if self.has_server else process.machine.ahead
        return BASE + timedelta(seconds=self.clock.seconds + ahead)

    def serving(self, call: Call) -> Process:
        """Return the process in which a call runs."""
        if call.service is None:
            return self.start(call.machine)
        process = self.services.get(call.service)
        if process is None or process.dead:
            process = self.services[call.service] = self.start(call.machine)
        return process

    def stop_all(self) -> None:
        for process in list(self.alive):
            self.stop(process)
        self.services.clear()

    def stop(self, process: Process) -> None:
        """End the process as one that has nothing left to do."""
        process.ended = True
        self.alive.remove(process)
        _running.set(Running(process, Call(-1)))
        process.journal.close()

    def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run all calls at the same time and return their results or errors."""
        self.asked |= {call.key for call in calls}
        self.excused |= {call.key for call in calls if "very late" in call.faults}

        async def all_of_them() -> list[Any]:
            heart = asyncio.create_task(self._send_heartbeats())
            done = await asyncio.gather(*(self._call(call) for call in calls), return_exceptions=True)
            heart.cancel()
            return done

        loop = Loop(self.clock)
        try:
            return loop.run_until_complete(all_of_them())
        finally:
            for process in list(self.alive):
                if process.dead or process not in self.services.values():
                    self.stop(process)
            loop.close()

    async def _send_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            for process in self.alive:
                if process.beating and not (process.dead or process.suspended):
                    _running.set(Running(process, Call(-1)))
                    process.journal.processes.heartbeat()

    async def _call(self, call: Call) -> Performed[Any]:
        await asyncio.sleep(call.after)
        process = self.serving(call)
        running = Running(process, call)
        _running.set(running)
        try:
            return await asyncio.wait_for(self._perform(running), STALL_TIMEOUT)
        except asyncio.TimeoutError as error:
            raise AssertionError(f"no answer in {STALL_TIMEOUT:g} s to {call}") from error
        finally:
            if call.service is None:
                process.ended = True

    async def _perform(self, running: Running) -> Performed[Any]:
        running.task = asyncio.current_task()
        reached = _Reached(self, running)
        return await reached.call(running.process.journal, f"request {running.call.key}", records=True, clock=reached)

    def rows(self, path: Path) -> dict[str, dict[str, Any]]:
        """Return the intents of a journal by their keys."""
        with sqlite3.connect(path) as connection:
            connection.row_factory = sqlite3.Row
            found = {row["key"]: dict(row) for row in connection.execute("SELECT * FROM intents")}
        connection.close()
        return found

    def arrows(self) -> set[tuple[str | None, str]]:
        """Return all state changes that any journal recorded."""
        found: set[tuple[str | None, str]] = set()
        for path in self.paths:
            with sqlite3.connect(path) as connection:
                found |= set(connection.execute("SELECT DISTINCT before, after FROM arrows"))
            connection.close()
        return found


class _Reached(Platform):
    """The platform as the process of a call reaches it."""

    def __init__(self, world: World, running: Running) -> None:
        call = running.call
        super().__init__(world.account, call.faults, call.record_faults, of=call.key, journal=world.path)
        self._running = running

    async def rest(self) -> None:
        await self._running.rest()

    async def travel(self) -> None:
        self._running.process.check()
        await asyncio.sleep(self._running.call.pause)
        self._running.step()

    def step(self) -> None:
        self._running.step()
