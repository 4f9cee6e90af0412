"""A world for the state machine: two machines, processes that die or are suspended at any step, a platform that forgets
to answer.

The package runs as it is. The world only answers what it asks of a machine: which processes hold a lock, the clock.
Time passes only while everybody sleeps, so a visibility delay costs nothing and nothing depends on the machine's speed.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import selectors
import shutil
import sqlite3
import uuid
from collections import UserDict
from collections.abc import Callable, Iterator, MutableSet, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from durable_platform import Scripted, perform

from ivcap_flows.durable import Found, Performed, Resume
from ivcap_flows.durable.platform_time import look_since
from ivcap_flows.errors import BadRequestError, UnreachableError
from ivcap_flows.http.confirm_send import confirm_send
from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.journal import processes as processes_module
from ivcap_flows.journal.processes import HEARTBEAT_SECONDS, SILENT_SECONDS

VISIBILITY_DELAY = 8.0
WITHIN = VISIBILITY_DELAY / 2
BEYOND = 3 * VISIBILITY_DELAY
SLOW = 3 * SILENT_SECONDS
"""Seconds of a request that takes longer than a process may be silent, and than any that left unseen may still take."""
SUSPENDED = 3 * SILENT_SECONDS
STALL_TIMEOUT = 10 * SILENT_SECONDS
"""Seconds after which a call that has no answer yet never gets one."""
_BASE = datetime(2030, 1, 1, tzinfo=timezone.utc)

TRIGGERS = """
CREATE TABLE arrows (before TEXT, after TEXT);
CREATE TRIGGER made AFTER INSERT ON intents BEGIN INSERT INTO arrows VALUES (NULL, new.state); END;
CREATE TRIGGER moved AFTER UPDATE ON intents BEGIN INSERT INTO arrows VALUES (old.state, new.state); END;
"""


class Killed(BaseException):
    """SIGKILL as the running code sees it: it ends here and cannot clean up."""


class _Selector(selectors.DefaultSelector):
    """A selector that never waits: where the event loop would wait, the clock jumps."""

    clock: Callable[[float], None]

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout is not None and timeout > 0:
            self.clock(timeout)
        return events


class Loop(asyncio.SelectorEventLoop):
    """A loop in virtual time whose threads run at once, so that each example happens in one order only."""

    def __init__(self, world: World) -> None:
        selector = _Selector()
        super().__init__(selector)
        self._world = world
        selector.clock = world.pass_time

    def time(self) -> float:
        return self._world.seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:
            future.set_exception(error)
        return future


@dataclass
class Call:
    """One call of `perform`, in a process of its own or in a `service`, which outlives it: what befalls its requests in
    turn; the step at which its process dies, is suspended, or the call is cancelled; the step at which a clock is set,
    and by how much (`clock`); how long each of its requests takes (`pause`); when it begins."""

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


@dataclass
class Machine:
    """The processes that have locked a file on it, by their ids in a journal.

    `ahead` is by how many seconds the machine's clock is ahead.
    """

    name: str
    locks: dict[str, Process] = field(default_factory=dict)
    ahead: float = 0.0


@dataclass(eq=False)
class Process:
    """A process of a machine, with its own handle on a journal."""

    machine: Machine
    journal: Journal
    seconds: Callable[[], float]
    """A clock that nobody sets."""
    tokens: set[str] = field(default_factory=set)
    heard: dict[str, Any] = field(default_factory=dict)
    beating: int = 0
    """How many of its calls want a heartbeat of it."""
    suspended: bool = False
    dead: bool = False
    ended: bool = False
    """Whether its locks are gone."""

    def die(self) -> None:
        self.dead = self.ended = True

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
        if self.call.kill_at == self.steps:
            self.process.die()
            raise Killed
        if self.call.cancel_at == self.steps and self.task is not None:
            self.task.cancel()
        if self.call.clock is not None and self.call.clock[0] == self.steps:
            self.process.machine.ahead += self.call.clock[1]

    async def rest(self) -> None:
        """Suspend the process if that is due."""
        if self.call.suspend_at is None or self.rested or self.steps < self.call.suspend_at:
            return
        if self.call.service is not None:
            # Its other calls would go on, which those of a suspended process do not.
            return
        self.rested = self.process.suspended = True
        await asyncio.sleep(SUSPENDED)
        self.process.suspended = False


_running: contextvars.ContextVar[Running] = contextvars.ContextVar("running")


def _here() -> Process:
    """The process whose code runs now."""
    return _running.get().process


class _Tokens(MutableSet[str]):
    """The claims of the running process. Each simulated process has its own."""

    def __contains__(self, token: object) -> bool:
        return token in _here().tokens

    def __iter__(self) -> Iterator[str]:
        return iter(_here().tokens)

    def __len__(self) -> int:
        return len(_here().tokens)

    def add(self, token: str) -> None:
        _here().tokens.add(token)

    def discard(self, token: str) -> None:
        _here().tokens.discard(token)


class _Heard(UserDict[str, Any]):
    """What the running process has heard of others. Each simulated process has its own."""

    def __init__(self) -> None:
        """Holds nothing itself."""

    @property
    def data(self) -> dict[str, Any]:  # type: ignore[override]
        return _here().heard


class _Mine(MutableSet[str]):
    """The ids of the running process."""

    def __contains__(self, id_: object) -> bool:
        return _here().machine.locks.get(str(id_)) is _here()

    def __iter__(self) -> Iterator[str]:
        return (id_ for id_, process in _here().machine.locks.items() if process is _here())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, id_: str) -> None:
        """It is known by its lock."""

    def discard(self, id_: str) -> None:
        """It keeps its id."""


class _Locks:
    """The lock files of the machine on which the running process is."""

    def __init__(self, folder: object) -> None:
        """They are in no folder."""

    def hold(self, process: str) -> None:
        _here().machine.locks[process] = _here()

    def release(self, process: str) -> None:
        """Whoever closes the journal has ended, or goes on until it does."""

    def life(self, process: str) -> str:
        holder = _here().machine.locks.get(process)
        return "unknown" if holder is None else "dead" if holder.ended else "alive"


def inhabit(patch: pytest.MonkeyPatch) -> None:
    """Let the package ask the world wherever it would ask the machine.

    What it does with the answers is production code.
    """
    patch.setattr(processes_module, "socket", SimpleNamespace(gethostname=lambda: _here().machine.name))
    patch.setattr(processes_module, "ProcessLocks", _Locks)
    patch.setattr(processes_module, "_mine", _Mine())
    patch.setattr(processes_module, "_tokens", _Tokens())
    patch.setattr(processes_module, "_heard", _Heard())
    patch.setattr(processes_module, "time", SimpleNamespace(monotonic=lambda: _here().seconds()))
    performing = importlib.import_module("ivcap_flows.durable.perform")
    patch.setattr(performing, "start_heartbeat", lambda journal: _count_beating(1))
    patch.setattr(performing, "stop_heartbeat", lambda journal: _count_beating(-1))


def _count_beating(more: int) -> None:
    _here().beating += more


class World:
    """One account on one platform, and the journals and processes of its machines."""

    def __init__(self, folder: Path, template: Path, visibility_delay: float = VISIBILITY_DELAY) -> None:
        self.folder, self.template, self.visibility_delay = folder, template, visibility_delay
        self.seconds = 0.0
        self.ahead = {"journal": 0.0, "platform": 0.0}
        """Seconds by which these clocks are."""
        self.has_server = False
        """Whether the journal's time is a server's, or that of the machine whose process asks."""
        self.machines = [Machine("one"), Machine("other")]
        self.effects: list[dict[str, Any]] = []
        self.aspects: dict[str, list[dict[str, Any]]] = {}
        self.alive: list[Process] = []
        self.services: dict[int, Process] = {}
        self.paths: list[Path] = []
        self.asked: set[int] = set()
        self.excused: set[int] = set()
        """Keys of which the platform showed an effect too late, so that there may be two."""
        self.forgotten: set[int] = set()
        """Those of them that a journal which was lost has sent: the next one need not know of it."""
        self.lose_journal()

    @property
    def path(self) -> Path:
        """The journal that the machines share."""
        return self.paths[-1]

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds

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

    def reboot(self, machine: int) -> None:
        """Let a machine take its place that knows those processes by their heartbeats alone."""
        self.stop_all()
        self.machines[machine] = Machine(self.machines[machine].name)

    def start(self, machine: int) -> Process:
        """Start a process on the journal."""
        journal = Journal.open(f"sqlite:///{self.path}")
        process = Process(self.machines[machine], journal, lambda: self.seconds)
        store = journal._store
        store.now = lambda connection: self.time_of(process)  # type: ignore[method-assign]
        original = store.write

        @contextmanager
        def write() -> Iterator[Any]:
            process.check()
            with original() as connection:
                yield connection
            _running.get().step()

        def writes() -> AbstractContextManager[Any]:
            return write()

        store.write = writes  # type: ignore[method-assign]
        self.alive.append(process)
        return process

    def time_of(self, process: Process) -> datetime:
        """Return the journal's time as a process reads it."""
        ahead = self.ahead["journal"] if self.has_server else process.machine.ahead
        return _BASE + timedelta(seconds=self.seconds + ahead)

    @property
    def platform_time(self) -> datetime:
        return _BASE + timedelta(seconds=self.seconds + self.ahead["platform"])

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
        process.journal.close()

    def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run all calls at the same time and return their results or errors."""
        self.asked |= {call.key for call in calls}
        for call in calls:
            if "very late" in call.faults:
                self.excused.add(call.key)

        async def all_of_them() -> list[Any]:
            heart = asyncio.create_task(self._send_heartbeat())
            done = await asyncio.gather(*(self._call(call) for call in calls), return_exceptions=True)
            heart.cancel()
            return done

        loop = Loop(self)
        try:
            return loop.run_until_complete(all_of_them())
        finally:
            for process in list(self.alive):
                if process.dead or process not in self.services.values():
                    self.stop(process)
            loop.close()

    async def _send_heartbeat(self) -> None:
        """Send the heartbeats of each process that has any."""
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
        platform = _Platform(self, running)
        return await perform(
            platform.effect(),
            journal=running.process.journal,
            attempt=None,
            platform="https://x",
            account="urn:acc",
            idempotency_records=platform,
            clock=platform,
        )

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


class _Platform:
    """The platform as one process reaches it: the effects, and the idempotency records."""

    def __init__(self, world: World, running: Running) -> None:
        self.world, self.running = world, running
        self.call = running.call
        self.faults = list(running.call.faults)

    def effect(self) -> Scripted:
        return Scripted(
            noun="order",
            request=f"request {self.call.key}",
            on_send=self.send,
            on_find=self.find,
            visibility_delay=self.world.visibility_delay,
            once_per="account",
            subject="service",
            spends=True,
        )

    @property
    def time(self) -> ServerTime:
        """What its replies tell."""
        return ServerTime(self.world.platform_time, self.world.platform_time)

    async def now(self) -> ServerTime:
        return self.time

    async def _arrive(self) -> None:
        await self.running.rest()
        await self._travel()

    async def _hear(self) -> None:
        """Receive the reply. It may be old by the time the process reads it."""
        await self.running.rest()

    async def _travel(self) -> None:
        self.running.process.check()
        await asyncio.sleep(self.call.pause)
        self.running.step()

    async def send(self, intent: IntentRow, progress: Resume) -> dict[str, Any]:
        fault = self.faults.pop(0) if self.faults else ""
        await self.running.rest()
        await confirm_send()
        # Not suspended between the leave and this: what leaves then cannot be called back.
        await self._travel()
        if fault == "slow":
            await asyncio.sleep(SLOW)
            self.running.step()
        if fault == "refuse":
            raise BadRequestError("no such parameter", status=400)
        if fault == "lost before":
            raise UnreachableError("time-out", sent=True)
        hidden = {"late": WITHIN, "late and lost": WITHIN, "very late": BEYOND}.get(fault, 0.0)
        urn = f"urn:test:order:{len(self.world.effects)}"
        self.world.effects.append(
            {
                "urn": urn,
                "key": intent.key,
                "of": self.call.key,
                "journal": self.world.path,
                "at": self.world.platform_time,
                "shown": self.world.seconds + hidden,
            }
        )
        self.running.step()
        if fault in ("lost", "late and lost", "very late"):
            raise UnreachableError("time-out", sent=True)
        await self._arrive()
        return {"urn": urn}

    async def find(self, intent: IntentRow) -> list[Found[dict[str, Any]]]:
        await self._arrive()
        since = look_since(self.time, intent)
        found = [
            Found({"urn": one["urn"]}, one["urn"], one["at"])
            for one in self.world.effects
            if one["key"] == intent.key and one["shown"] <= self.world.seconds and (since is None or one["at"] >= since)
        ]
        await self._hear()
        return found

    async def read(self, key: str) -> dict[str, Any] | None:
        await self._arrive()
        contents = list(self.world.aspects.get(key, []))
        found = next((one for one in contents if one.get("urn") is not None), next(iter(contents), None))
        await self._hear()
        return found

    async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> list[dict[str, Any]]:
        await self._arrive()
        there = self.world.aspects.setdefault(key, [])
        for place, one in enumerate(there):
            if one["journal"] == content["journal"]:
                there[place] = content
                break
        else:
            there.append(content)
        self.running.step()
        others = [one for one in there if one["journal"] != content["journal"]]
        await self._hear()
        return others
