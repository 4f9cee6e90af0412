"""Named steps of a flow at which it, or what it depends on, is killed: hooks in the flow's process, put there by the
test's own copy of the flow. The package knows nothing of them.

At a step the process kills itself, or stops until the harness has killed what is to be killed. Each kill is done once.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from mutants import mutate

from harness.incidents import HELD
from harness.scenario import Kill, Scenario
from ivcap_flows.durable import parking as times
from ivcap_flows.http import tus
from ivcap_flows.ivcap import client
from ivcap_flows.ivcap.artifacts import Artifacts
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.ivcap.orders import Orders
from ivcap_flows.journal import processes, store
from ivcap_flows.journal.intents import Intents
from ivcap_flows.journal.observer import RunWoken
from ivcap_flows.journal.parks import Parks
from ivcap_flows.journal.runs import Runs
from ivcap_flows.tasks import park_watcher, parking
from ivcap_flows.tasks.flow_run import OwnRun
from ivcap_flows.tasks.poll_sources import OrderSource

__all__ = ["CHUNK", "FAN_IN", "LEASE", "arm", "be_hasty", "ending"]

CHUNK: Final = 512 * 1024
FAN_IN: Final = "all.txt"
"""How the name of the fan-in upload ends."""
LEASE: Final = 4.0
"""Seconds after which a silent process of another machine is gone, where a flow is suspended; it is else a minute."""
_PATIENCE: Final = 120.0

Arrive = Callable[[], None]
Arrange = Callable[[Arrive], None]

ending: list[Arrive] = []
"""What happens before the flow tells its result."""


def always(*_: Any, **__: Any) -> bool:
    return True


def before(owner: Any, name: str, when: Callable[..., bool] = always) -> Arrange:
    """When this is called with such arguments."""

    def arrange(arrive: Arrive) -> None:
        real = getattr(owner, name)

        @wraps(real)
        def stopping(*args: Any, **options: Any) -> Any:
            if when(*args, **options):
                arrive()
            return real(*args, **options)

        @wraps(real)
        async def stopping_async(*args: Any, **options: Any) -> Any:
            return await stopping(*args, **options)

        setattr(owner, name, stopping_async if inspect.iscoroutinefunction(real) else stopping)

    return arrange


def after(owner: Any, name: str, when: Callable[..., bool] = always, of: Callable[[Any], bool] = always) -> Arrange:
    """When this, called with such arguments, has returned such a result."""

    def arrange(arrive: Arrive) -> None:
        real = getattr(owner, name)

        def returned(result: Any, args: Any, options: Any) -> Any:
            if when(*args, **options) and of(result):
                arrive()
            return result

        @wraps(real)
        def stopping(*args: Any, **options: Any) -> Any:
            return returned(real(*args, **options), args, options)

        @wraps(real)
        async def stopping_async(*args: Any, **options: Any) -> Any:
            return returned(await real(*args, **options), args, options)

        setattr(owner, name, stopping_async if inspect.iscoroutinefunction(real) else stopping)

    return arrange


def on_its_way(arrive: Arrive) -> None:
    """Some time after the request has left; the platform takes it later still."""
    real = Orders.place

    @wraps(real)
    async def stopping(*args: Any, **options: Any) -> Any:
        reply = asyncio.ensure_future(real(*args, **options))
        await asyncio.wait([reply], timeout=0.4)
        if not reply.done():
            arrive()
        return await reply

    Orders.place = stopping  # type: ignore[method-assign]


def without_reply(arrive: Arrive) -> None:
    """The platform has taken the request; that its reply is lost is not known yet."""
    real = Orders.place

    @wraps(real)
    async def stopping(*args: Any, **options: Any) -> Any:
        try:
            return await real(*args, **options)
        except Exception:
            arrive()
            raise

    Orders.place = stopping  # type: ignore[method-assign]


def an_order(_: Any, intent: Any, *__: Any, **___: Any) -> bool:
    return bool(intent.noun == "order")


def the_next_order(_: Any, intent: Any, *__: Any, **___: Any) -> bool:
    return bool(intent.noun == "order" and intent.generation > 0)


def claims(which: Callable[..., bool]) -> Arrange:
    return before(Intents, "claim", lambda self, wanted, **_: which(self, wanted))


def tells(noun: str, *, outcome: bool) -> Callable[..., bool]:
    return lambda _, key, content, **__: content["noun"] == noun and (content["urn"] is not None) is outcome


def is_fan_in(_: Any, record: Any = None, *__: Any, name: str | None = None, **___: Any) -> bool:
    return (name or getattr(record, "name", None) or "").endswith(FAN_IN)


def the_fan_in(_: Any, intent: Any, *__: Any, **___: Any) -> bool:
    return bool(intent.noun == "upload" and intent.subject.endswith(FAN_IN))


def settles(noun: str) -> Arrange:
    return before(Intents, "settle", lambda _, intent, *__, **___: intent.noun == noun)


def completes(_: Any, __: str, outcome: str, *___: Any) -> bool:
    return outcome == "completed"


class Sending:
    """Whether it is the fan-in upload whose bytes are sent, and how many blocks of it were read."""

    on = False
    blocks = 0

    @classmethod
    def watch(cls) -> None:
        real = Artifacts.send

        @wraps(real)
        async def watched(*args: Any, **options: Any) -> Any:
            cls.on = is_fan_in(*args)
            return await real(*args, **options)

        Artifacts.send = watched  # type: ignore[method-assign]

    @classmethod
    def now(cls, *_: Any, **__: Any) -> bool:
        return cls.on

    @classmethod
    def midway(cls, *_: Any, **__: Any) -> bool:
        cls.blocks += cls.on
        return cls.blocks == 2


ARRANGE: Final[dict[str, Arrange]] = {
    "before the intent": claims(an_order),
    "after the intent": before(IdempotencyRecords, "write", tells("order", outcome=False)),
    "after the idempotency record": before(Intents, "mark_sent", an_order),
    "before the request": before(Orders, "place"),
    "after the mark": after(Intents, "mark_sent", an_order),
    "with the request on its way": on_its_way,
    "after the request, before its reply": without_reply,
    "after the reply": before(Intents, "settle", an_order),
    "before the outcome is told": before(IdempotencyRecords, "write", tells("order", outcome=True)),
    "in the wait": after(OrderSource, "read"),
    "before the end is noted": before(Intents, "finish"),
    "before it is placed again": claims(the_next_order),
    "after the reply to that": before(Intents, "settle", the_next_order),
    "before the upload is told": before(IdempotencyRecords, "write", tells("upload", outcome=True)),
    "before the fan-in upload": before(Artifacts, "create", is_fan_in),
    "before its name is noted": after(Artifacts, "create", is_fan_in),
    "in the middle of a chunk": before(os, "pread", Sending.midway),
    "after a chunk": after(tus, "patch", Sending.now),
    "after the last byte": after(Artifacts, "send", is_fan_in),
    "before the upload is noted": before(Intents, "settle", the_fan_in),
    "before the flow ends": ending.append,
    "after its end is noted": after(Runs, "close_attempt", completes),
    "after the job's reply": settles("job"),
    "after the aspect's reply": settles("aspect"),
    "after the item's reply": settles("registry item"),
    "after the mint's reply": settles("dataset"),
    "before the park is noted": before(Parks, "note"),
    "between note and schedule": before(OwnRun, "park"),
    "after the schedule": after(OwnRun, "park"),
    "on waking": after(store.Store, "tell", lambda _, transition: isinstance(transition, RunWoken)),
}


def be_hasty() -> None:
    """Park and wake within seconds, where users have minutes."""
    times.SHORTEST = parking.SHORTEST = 6.0  # type: ignore[misc]
    times.WATCHED = 40.0  # type: ignore[misc]
    parking.WOKEN = parking.AGAIN = 1.0  # type: ignore[misc]
    park_watcher.EVERY = 0.5  # type: ignore[misc]


def assume_a_visibility_delay(seconds: float) -> None:
    """Of the IVCAP platform."""
    ask = client.ask_embedded

    async def ask_patiently(*given: Any, **options: Any) -> Any:
        embedded = await ask(*given, **options)
        return None if embedded is None else replace(embedded, visibility_delay=seconds)

    client.ask_embedded = ask_patiently  # type: ignore[assignment]


def set_the_clock() -> None:
    """Let the journal's time be another than the platforms'."""
    ahead = timedelta(seconds=float(os.environ.get("CRASH_AHEAD", "0")))
    now = store.Store.now
    store.Store.now = lambda self, connection: now(self, connection) + ahead  # type: ignore[method-assign]


def be_elsewhere() -> None:
    """Be a process of another machine, where one is named, of which only the heartbeat is known."""
    processes.SILENT_SECONDS, processes.HEARTBEAT_SECONDS = LEASE, LEASE / 8  # type: ignore[misc]
    if os.environ.get("CRASH_ELSEWHERE"):
        processes.lock_folder = lambda store: None


def arm(folder: Path) -> Scenario:
    """Put the hooks of the scenario in this folder into this process."""
    be_hasty()
    set_the_clock()
    scenario = Scenario.read(folder)
    if scenario.asleep:
        be_elsewhere()
    if scenario.incident is not None and scenario.incident.within is not None:
        scenario.incident.within(folder)
    if scenario.visibility_delay is not None:
        assume_a_visibility_delay(scenario.visibility_delay)
    if scenario.build is not None:
        mutate(scenario.build)
    _watch_the_disk(folder)
    Sending.watch()
    assert tus.send.__kwdefaults__ is not None
    tus.send.__kwdefaults__["chunk"] = CHUNK
    after(OwnRun, "park")((folder / "parked").touch)
    after(Intents, "claim", of=lambda claim: claim.kind == "held")((folder / HELD).touch)
    for number, kill in enumerate(scenario.kills):
        if kill.step in ARRANGE:
            ARRANGE[kill.step](_Arrival(folder, number, kill))
    return scenario


class _Arrival:
    """Called whenever its step is come to; the kill is due at the `nth` time."""

    def __init__(self, folder: Path, number: int, kill: Kill) -> None:
        self._folder, self._number, self._kill = folder, number, kill
        self._times = 0

    def __call__(self) -> None:
        self._times += 1
        if self._times == self._kill.nth:
            _arrive(self._folder, self._number, self._kill)


def _arrive(folder: Path, number: int, kill: Kill) -> None:
    asked = folder / f"kill-{number}"
    try:
        asked.open("x").close()
    except FileExistsError:
        return
    if kill.victim == "flow":
        os.kill(os.getpid(), signal.SIGKILL)
    if kill.victim == "call":
        task = asyncio.current_task()
        assert task is not None, f"{kill.step} is not within a call"
        task.cancel()
        return
    if kill.victim == "flow asleep":
        asked.write_text(str(os.getpid()), encoding="ascii")
        # To this thread: a signal to the process is taken by any of its threads, and this one would run on meanwhile.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return
    done = folder / f"kill-{number}.done"
    end = time.monotonic() + _PATIENCE
    while not done.exists() and time.monotonic() < end:
        time.sleep(0.02)
    if kill.victim == "flow and worker":
        os.kill(os.getpid(), signal.SIGKILL)


def _watch_the_disk(folder: Path) -> None:
    """Write down what each commit of the journal waits for."""
    seen: set[str] = set()

    def look(question: str) -> Callable[[Any], None]:
        def at_commit(connection: Any) -> None:
            try:
                [found] = connection.connection.dbapi_connection.execute(question).fetchone()
            except psycopg.OperationalError:
                # Ended by PostgreSQL while the process slept: the commit itself is to find it.
                return
            if str(found) not in seen:
                seen.add(str(found))
                with (folder / "commits").open("a", encoding="ascii") as told:
                    told.write(f"{question} {found}\n")

        return at_commit

    def watched(make: Callable[[Any], sa.Engine], question: str) -> Callable[[Any], sa.Engine]:
        def made(url: Any) -> sa.Engine:
            engine = make(url)
            sa.event.listen(engine, "commit", look(question))
            return engine

        return made

    store._sqlite = watched(store._sqlite, "PRAGMA synchronous")
    store._postgresql = watched(store._postgresql, "SHOW synchronous_commit")
