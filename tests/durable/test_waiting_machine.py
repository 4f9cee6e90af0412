"""Every wait hears of every end, whoever joins, leaves, dies or stops, and whatever the journal does."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from mutants import mutate
from waiting_world import Process, World, in_worlds, template

from ivcap_flows.durable import poller

MOST = 4
"""Processes at once."""

number = st.integers(min_value=0, max_value=11)
moments = st.sampled_from([0.0, 0.4, 1.5, 4.0, 9.0])


class Waits(RuleBasedStateMachine):
    folder: ClassVar[Path]
    template: ClassVar[Path]
    world: ClassVar[World]

    @initialize(count=st.integers(min_value=2, max_value=3))
    def begin(self, count: int) -> None:
        type(self).world = World(self.folder, self.template)
        for stays in (True, False, False)[:count]:
            self.start(0.4, stays=stays)

    def chosen(self, number: int) -> Process:
        return self.world.live[number % len(self.world.live)]

    @precondition(lambda self: len(self.world.live) < MOST)
    @rule(moment=moments, stays=st.booleans())
    def start(self, moment: float, stays: bool) -> None:
        """Start a process.

        `stays`: it also waits for other work until the end, so it may poll for the others all the time.
        """
        process = self.world.start()
        if stays:
            process.wait([self.world.begin_work(lasting=True)])
        process.wait([self.world.begin_work(), self.world.begin_work()])
        self.world.let_pass(moment)

    @rule(number=number, count=st.sampled_from([1, 4]), shared=st.booleans(), moment=moments)
    def join(self, number: int, count: int, shared: bool, moment: float) -> None:
        wanted = self.world.live_work[-2:] if shared else []
        self.chosen(number).wait([*wanted, *(self.world.begin_work() for _ in range(count))])
        self.world.let_pass(moment)

    @rule(number=number, comes_back=st.booleans(), moment=moments)
    def leave(self, number: int, comes_back: bool, moment: float) -> None:
        process = self.chosen(number)
        left = process.give_up()
        if comes_back and left:
            process.wait(sorted(left))
        self.world.let_pass(moment)

    @rule(number=number, moment=moments)
    def end(self, number: int, moment: float) -> None:
        if live := self.world.live_work:
            self.world.work.end(live[number % len(live)])
        self.world.let_pass(moment)

    @rule(number=number, seconds=st.sampled_from([0.5, 4.0, 12.0]), done=st.booleans(), moment=moments)
    def fail(self, number: int, seconds: float, done: bool, moment: float) -> None:
        process = self.chosen(number)
        process.fails_until, process.fails_after_commit = self.world.seconds + seconds, done
        self.world.let_pass(moment)

    @rule(number=number, moment=moments)
    def cut_off_or_reach(self, number: int, moment: float) -> None:
        process = self.chosen(number)
        process.cut_off = not process.cut_off
        self.world.let_pass(moment)

    @precondition(lambda self: len(self.world.live) > 1)
    @rule(number=number, moment=moments)
    def kill(self, number: int, moment: float) -> None:
        self.chosen(number).kill()
        self.world.let_pass(moment)

    @rule(number=number, after=st.booleans(), moment=moments)
    def stop_or_go_on(self, number: int, after: bool, moment: float) -> None:
        process = self.chosen(number)
        if process.stopped is None:
            process.stop(after_a_step=after)
        else:
            process.go_on()
        self.world.let_pass(moment)

    @rule()
    def hear(self) -> None:
        self.world.hear()

    def teardown(self) -> None:
        if not hasattr(type(self), "world"):
            return
        try:
            self.world.hear()
            self.world.share()
            self.world.work.end(*self.world.live_work)
            self.world.hear()
            self.world.work.end(*self.world.lasting)
            self.world.hear()
        finally:
            self.world.close()
            del type(self).world


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Waits]:
    made = type("Tried", (Waits,), {"folder": tmp_path, "template": template(tmp_path)})
    in_worlds(monkeypatch, lambda: made.world)
    return made


def tried(machine: type[Waits], examples: int) -> None:
    profile = settings(
        max_examples=examples,
        stateful_step_count=20,
        deadline=None,
        database=None,
        derandomize=examples <= 100,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(machine, settings=profile)  # type: ignore[no-untyped-call]


@pytest.mark.timeout(0)
@pytest.mark.parametrize("examples", [5, pytest.param(50, marks=pytest.mark.long)])
def test_every_wait_hears_of_every_end(machine: type[Waits], pytestconfig: pytest.Config, examples: int) -> None:
    """Every wait ends in bounded time, and one process polls for all. `--crash-rounds N` tries N times as many ways."""
    tried(machine, examples * pytestconfig.getoption("--crash-rounds"))


def test_a_build_whose_lost_round_lasts_is_found(machine: type[Waits], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test fails on a build in which nobody asks after a process was killed or stopped in its round."""
    monkeypatch.setattr(poller, "LOST", 1e9)
    with pytest.raises(AssertionError, match="never heard"):
        tried(machine, 100)


@pytest.mark.long
def test_a_build_that_adds_work_once_is_found(machine: type[Waits], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test fails on a build that does not add work again after another process has taken it from the watchlist."""
    mutate("work is added once", monkeypatch.setattr)
    with pytest.raises(AssertionError, match="never heard"):
        tried(machine, 100)
