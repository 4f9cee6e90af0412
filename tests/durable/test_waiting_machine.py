"""Every wait hears of every end, whoever joins, leaves, dies or stops, and whatever the journal does."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from mutants import mutate
from simulated import journal_to_copy, try_out
from waiting_world import BOUND, LOST, Process, World, in_worlds

from ivcap_flows.durable import poller

MOST = 4
"""Processes at once."""

number = st.integers(min_value=0, max_value=11)
moments = st.sampled_from([0.0, 0.4, 1.5, 4.0, 9.0])


class Waits(RuleBasedStateMachine):
    template: ClassVar[Path]
    world: ClassVar[World]

    @initialize(count=st.integers(min_value=2, max_value=3))
    def begin(self, count: int) -> None:
        type(self).world = World(self.template)
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
            process.wait(self.world.begin_work(lasting=True))
        process.wait(self.world.begin_work(), self.world.begin_work())
        self.world.let_pass(moment)

    @rule(number=number, count=st.sampled_from([1, 4]), shared=st.booleans(), moment=moments)
    def join(self, number: int, count: int, shared: bool, moment: float) -> None:
        wanted = self.world.live_work[-2:] if shared else []
        self.chosen(number).wait(*wanted, *(self.world.begin_work() for _ in range(count)))
        self.world.let_pass(moment)

    @rule(number=number, comes_back=st.booleans(), moment=moments)
    def leave(self, number: int, comes_back: bool, moment: float) -> None:
        process = self.chosen(number)
        left = process.give_up()
        if comes_back and left:
            process.wait(*sorted(left))
        self.world.let_pass(moment)

    @rule(number=number, moment=moments)
    def end(self, number: int, moment: float) -> None:
        if live := self.world.live_work:
            self.world.work.end(live[number % len(live)])
        self.world.let_pass(moment)

    @rule(number=number, seconds=st.sampled_from([0.5, 4.0, 12.0]), done=st.booleans(), moment=moments)
    def fail(self, number: int, seconds: float, done: bool, moment: float) -> None:
        self.chosen(number).fail(seconds, after_commit=done)
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
    made = type("Tried", (Waits,), {"template": journal_to_copy(tmp_path)})
    in_worlds(monkeypatch, lambda: made.world)
    return made


@pytest.mark.timeout(0)
@pytest.mark.parametrize("examples", [5, pytest.param(50, marks=pytest.mark.long)])
def test_every_wait_hears_of_every_end(machine, pytestconfig, examples):
    """Every wait ends in bounded time, and one process polls for all. `--crash-rounds N` tries N times as many ways."""
    try_out(machine, examples * pytestconfig.getoption("--crash-rounds"), steps=20)


@pytest.fixture
def new_world(tmp_path, monkeypatch):
    template, worlds = journal_to_copy(tmp_path), []
    in_worlds(monkeypatch, lambda: worlds[-1])

    @contextmanager
    def begin():
        worlds.append(World(template))
        try:
            yield worlds[-1]
        finally:
            worlds[-1].close()

    return begin


def begun(world: World, processes: int) -> tuple[list[Process], list[str]]:
    """Return processes that wait: the first, which asks for all, for work that lasts, each other for one of its own."""
    some, works = [world.start() for _ in range(processes)], [world.begin_work() for _ in range(processes - 1)]
    some[0].wait(world.begin_work(lasting=True))
    world.let_pass(3)
    for process, work in zip(some[1:], works, strict=True):
        process.wait(work)
        world.let_pass(6)
    return some, works


def stop_who_asks_for_all(world, moment, after):
    """At a moment after it began to ask for all, or if that is None in its next round."""
    [stops, one, two], works = begun(world, 3)
    world.let_pass((moment or 0) / 12)
    while moment is None and (stops.poller._round is None or stops.poller._round.done()):
        world.let_pass(0.01)
    stops.stop(after_a_step=after)
    world.let_pass(2 * LOST)
    world.work.end(works[0])
    world.let_pass(6)
    assert not one.waits and two.waits
    stops.go_on()
    world.work.end(works[1])
    world.hear()
    world.share()


@pytest.mark.parametrize("after", [False, True], ids=["before a step", "after a step"])
@pytest.mark.parametrize("moments", [(None, 9), pytest.param(range(24), marks=pytest.mark.long)], ids=["some", "all"])
def test_who_asks_for_all_may_be_stopped(new_world, moments, after):
    """At any moment: the others do not wait for its round. What it stores later does no harm."""
    for moment in moments:
        with new_world() as world:
            stop_who_asks_for_all(world, moment, after)


def test_a_build_whose_lost_round_lasts_is_found(new_world, monkeypatch):
    """In which nobody asks after a process was killed or stopped in its round."""
    monkeypatch.setattr(poller, "LOST", 1e9)
    with new_world() as world, pytest.raises(AssertionError):
        stop_who_asks_for_all(world, None, after=False)


@pytest.mark.parametrize(
    "moments", [(3, 20), pytest.param(range(0, 24, 2), marks=pytest.mark.long)], ids=["some", "all"]
)
def test_an_end_is_heard_whatever_befalls_who_asks_or_who_waits(new_world, moments):
    """At any moment between an end and the last process that hears of it, a process is killed, or its journal fails,
    before or after a commit."""
    befalls = (Process.kill, partial(Process.fail, seconds=0.5, after_commit=False))
    befalls = (*befalls, partial(Process.fail, seconds=0.5, after_commit=True))
    for moment, which, strike in itertools.product(moments, (0, 1), befalls):
        with new_world() as world:
            processes, works = begun(world, 3)
            processes[2].wait(works[0])
            world.work.end(*works)
            world.let_pass(moment / 4)
            strike(processes[which])
            world.let_pass(1)
            world.hear()
            world.share()


@pytest.mark.parametrize("cut_off", [1, 2], ids=["one", "all"])
def test_who_does_not_reach_the_platform_lets_others_ask(new_world, cut_off):
    """And hears of its own end afterwards; after an outage for all, they ask together again."""
    with new_world() as world:
        processes, [theirs] = begun(world, 2)
        mine = world.begin_work()
        processes[0].wait(mine)
        for process in processes[:cut_off]:
            process.cut_off = True
        world.work.end(theirs)
        world.let_pass(3 * BOUND)
        assert bool(processes[1].waits) == (cut_off == 2)
        world.work.end(mine)
        world.hear()
        world.share()


def follow(world):
    """Let two processes wait for the same work, and one of them give up twice."""
    first, second = world.start(), world.start()
    shared = world.begin_work()
    second.wait(world.begin_work(lasting=True))
    for _ in range(2):
        first.wait(shared)
        world.let_pass(3)
        if not any(shared in urns for urns in second.waits.values()):
            second.wait(shared)
        world.let_pass(3)
        first.give_up()
        world.let_pass(6)
    world.work.end(shared)
    world.hear()
    second.wait(world.begin_work())
    first.wait(world.begin_work())
    world.share()


BROKEN = {None: "", "work is added once": "never heard", "each asks for itself": "asks for itself"}


@pytest.mark.parametrize(
    ("build", "fault"), [pytest.param(*each, marks=pytest.mark.mutant(each[0])) for each in BROKEN.items()]
)
def test_who_waits_for_the_same_as_one_who_gave_up_hears_of_its_end(new_world, monkeypatch, build, fault):
    """Through the other process, and not only because it asks the platform; a broken build is found."""
    with new_world() as world:
        if build is None:
            follow(world)
            return
        mutate(build, monkeypatch.setattr)
        with pytest.raises(AssertionError, match=fault):
            follow(world)
