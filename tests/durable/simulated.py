"""Virtual time: a minute of waiting costs nothing, and everything happens in one order only."""

from __future__ import annotations

import asyncio
import selectors
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from ivcap_flows.journal import Journal


class Clock:
    """Its seconds pass only while everybody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        """Each reading takes a moment, since a rest too short to be counted would otherwise never end."""
        self.seconds += 1e-6
        return self.seconds


class _Selector(selectors.DefaultSelector):
    """Where the event loop would wait, the clock jumps."""

    clock: Clock

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout is not None and timeout > 0:
            self.clock.seconds += timeout
        return events


class Loop(asyncio.SelectorEventLoop):
    """A loop on such a clock, whose threads run at once."""

    def __init__(self, clock: Clock) -> None:
        selector = _Selector()
        selector.clock = clock
        super().__init__(selector)
        self.clock = clock

    def time(self) -> float:
        return self.clock.seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:
            future.set_exception(error)
        return future


def run_on(clock: Clock, doing: Coroutine[Any, Any, Any]) -> Any:
    loop = Loop(clock)
    try:
        return loop.run_until_complete(doing)
    finally:
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()


def journal_to_copy(folder: Path, script: str = "") -> Path:
    """Return the file of an empty journal, on which some SQL was run."""
    path = folder / "template.sqlite"
    Journal.open(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.executescript(script)
    connection.close()
    return path


def try_out(machine: type[RuleBasedStateMachine], examples: int, *, steps: int) -> None:
    """Play a state machine, up to a hundred times in the same way each time."""
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=examples <= 100,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(machine, settings=profile)  # type: ignore[no-untyped-call]
