"""A world for the state machine: processes that die at any step, a platform that forgets to answer, one clock for all.

Time passes only while everybody sleeps, so a settling time costs nothing and nothing depends on the machine's speed.
"""

from __future__ import annotations

import asyncio
import selectors
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ivcap_flows.durable import Effect, Found, Performed, Progress, latecomers, perform
from ivcap_flows.errors import BadRequestError, UnreachableError
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.journal import processes as processes_module

SETTLE = 8.0
WITHIN = SETTLE / 2
BEYOND = 3 * SETTLE
_BASE = datetime(2030, 1, 1, tzinfo=timezone.utc)

TRIGGERS = """
CREATE TABLE arrows (before TEXT, after TEXT);
CREATE TRIGGER made AFTER INSERT ON intents BEGIN INSERT INTO arrows VALUES (NULL, new.state); END;
CREATE TRIGGER moved AFTER UPDATE ON intents BEGIN INSERT INTO arrows VALUES (old.state, new.state); END;
"""


class Killed(BaseException):
    """SIGKILL, as the code that runs sees it: it ends here, and what it wants to tidy up it cannot."""


class _Selector(selectors.SelectSelector):
    """Never waits: where the loop would, the clock jumps."""

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
    """One call of `perform`: what befalls its requests in turn, and the step at which its process dies or it is
    cancelled; `pause` is how long each of its requests takes."""

    key: int
    faults: Sequence[str] = ()
    kill_at: int | None = None
    cancel_at: int | None = None
    pause: float = 0.0


@dataclass
class Process:
    """A process with its own handle on a journal, whatever process the test itself is."""

    journal: Journal
    call: Call = field(default_factory=lambda: Call(0))
    steps: int = 0
    dead: bool = False

    def step(self) -> None:
        """What was done is done; the process may die now."""
        self.check()
        self.steps += 1
        if self.call.kill_at == self.steps:
            self.dead = True
            raise Killed
        if self.call.cancel_at == self.steps and (task := asyncio.current_task()) is not None:
            task.cancel()

    def check(self) -> None:
        if self.dead:
            raise Killed


class World:
    """One account on one platform, and the journals and processes of its machines."""

    def __init__(self, folder: Path, template: Path, settle: float = SETTLE) -> None:
        self.folder, self.template, self.settle = folder, template, settle
        self.seconds = 0.0
        self.effects: list[dict[str, Any]] = []
        self.aspects: dict[str, list[dict[str, Any]]] = {}
        self.alive: dict[str, Process] = {}
        self.paths: list[Path] = []
        self.asked: set[int] = set()
        self.excused: set[int] = set()
        """Keys of which the platform showed an effect too late, so that there may be two."""
        self.unseen: set[int] = set()
        """Keys of which nobody may be left to tell of the second."""
        self.lose_journal()

    @property
    def path(self) -> Path:
        """The journal that the machines share."""
        return self.paths[-1]

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds

    def lose_journal(self) -> None:
        """The next processes find an empty one."""
        self.paths.append(self.folder / f"{uuid.uuid4()}.sqlite")
        shutil.copy(self.template, self.path)
        with sqlite3.connect(self.path) as connection:
            # A copy is not the same journal.
            connection.execute("UPDATE journal_info SET id = ?", (str(uuid.uuid4()),))
        connection.close()
        self.unseen |= self.excused

    def start(self) -> Process:
        """A new process on the journal."""
        journal = Journal.open(f"sqlite:///{self.path}")
        process = Process(journal)
        store, processes = journal._store, journal.intents._processes
        store.now = lambda connection: _BASE + timedelta(seconds=self.seconds)  # type: ignore[method-assign]
        processes.holds = self._holds  # type: ignore[method-assign, assignment]
        with store.write() as connection:
            self.alive[processes.mine(connection, store.now(connection))] = process
        original = store.write

        @contextmanager
        def write() -> Iterator[Any]:
            process.check()
            with original() as connection:
                yield connection
            process.step()

        def writes() -> AbstractContextManager[Any]:
            return write()

        store.write = writes  # type: ignore[method-assign]
        return process

    def _holds(self, process: Any, token: str | None, now: datetime) -> bool:
        owner = self.alive.get(process.id)
        return owner is not None and not owner.dead and token in processes_module._tokens

    def run(self, calls: Sequence[Call]) -> list[Any]:
        """All at once, each in a process of its own; their results or errors."""
        self.asked |= {call.key for call in calls}
        for call in calls:
            if "very late" in call.faults:
                self.excused.add(call.key)
            if call.kill_at is not None or call.cancel_at is not None or "refuse" in call.faults:
                self.unseen.add(call.key)

        async def all_of_them() -> list[Any]:
            done = await asyncio.gather(*(self._call(call) for call in calls), return_exceptions=True)
            while latecomers._watching:
                await asyncio.gather(*latecomers._watching, return_exceptions=True)
            return done

        loop = Loop(self)
        try:
            return loop.run_until_complete(all_of_them())
        finally:
            loop.close()

    async def _call(self, call: Call) -> Performed[Any]:
        process = self.start()
        process.call = call
        try:
            platform = _Platform(self, process)
            return await perform(
                platform.effect(),
                journal=process.journal,
                attempt=None,
                platform="https://x",
                account="urn:acc",
                key_aspects=platform,
            )
        finally:
            process.journal.intents._store.engine.dispose()
            if process.dead:
                process.call = Call(call.key)

    def rows(self, path: Path) -> dict[str, dict[str, Any]]:
        """The intents of a journal, by their keys."""
        with sqlite3.connect(path) as connection:
            connection.row_factory = sqlite3.Row
            found = {row["key"]: dict(row) for row in connection.execute("SELECT * FROM intents")}
        connection.close()
        return found

    def arrows(self) -> set[tuple[str | None, str]]:
        """All that any journal saw happen to a state."""
        found: set[tuple[str | None, str]] = set()
        for path in self.paths:
            with sqlite3.connect(path) as connection:
                found |= set(connection.execute("SELECT DISTINCT before, after FROM arrows"))
            connection.close()
        return found


class _Platform:
    """The platform as one process reaches it: the effects, and the key aspects."""

    def __init__(self, world: World, process: Process) -> None:
        self.world, self.process = world, process
        self.faults = list(process.call.faults)

    def effect(self) -> Effect[dict[str, Any]]:
        return Effect(
            noun="order",
            request=f"request {self.process.call.key}",
            send=self.send,
            find=self.find,
            encode=dict,
            decode=dict,
            urn=lambda value: value["urn"],
            placeholder=lambda key: {"urn": key},
            settle=self.world.settle,
            scope="account",
            subject="service",
            spends=True,
        )

    async def _arrive(self) -> None:
        self.process.check()
        await asyncio.sleep(self.process.call.pause)
        self.process.step()

    async def send(self, intent: IntentRow, progress: Progress) -> dict[str, Any]:
        fault = self.faults.pop(0) if self.faults else ""
        await self._arrive()
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
                "of": self.process.call.key,
                "journal": self.world.path,
                "at": self.world.seconds,
                "shown": self.world.seconds + hidden,
            }
        )
        self.process.step()
        if fault in ("lost", "late and lost", "very late"):
            raise UnreachableError("time-out", sent=True)
        await self._arrive()
        return {"urn": urn}

    async def find(self, intent: IntentRow) -> list[Found[dict[str, Any]]]:
        await self._arrive()
        return [
            Found({"urn": one["urn"]}, one["urn"], _BASE + timedelta(seconds=one["at"]))
            for one in self.world.effects
            if one["key"] == intent.key and one["shown"] <= self.world.seconds
        ]

    async def read(self, key: str) -> dict[str, Any] | None:
        await self._arrive()
        contents = self.world.aspects.get(key, [])
        return next((one for one in contents if one.get("urn") is not None), next(iter(contents), None))

    async def write(self, key: str, content: dict[str, Any], *, first: bool = False) -> list[dict[str, Any]]:
        await self._arrive()
        there = self.world.aspects.setdefault(key, [])
        for place, one in enumerate(there):
            if one["journal"] == content["journal"]:
                there[place] = content
                break
        else:
            there.append(content)
        self.process.step()
        return [one for one in there if one["journal"] != content["journal"]]
