"""A wait hears of the end of its work, whichever process joins, leaves, stops or dies, and if the journal fails."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from waiting_world import BOUND, Process, World, in_worlds, template

from ivcap_flows.durable import poller


@pytest.fixture
def new_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], World]]:
    """Return a function that makes a new world, always at the same moment."""
    path, worlds = template(tmp_path), []
    in_worlds(monkeypatch, lambda: worlds[-1])

    def begin() -> World:
        if worlds:
            worlds.pop().close()
        worlds.append(World(tmp_path, path))
        return worlds[-1]

    yield begin
    worlds[-1].close()


@pytest.fixture
def world(new_world: Callable[[], World]) -> World:
    return new_world()


def one_and_others(world: World, others: int = 1) -> tuple[Process, list[Process]]:
    """Return a process with work of its own, and others that do not wait for anything yet."""
    one = world.start()
    one.wait([world.begin_work()])
    world.let_pass(3)
    return one, [world.start() for _ in range(others)]


def followed(world: World, process: Process, *urns: str) -> None:
    """Let a process wait for some work, and give the others time to learn of it."""
    process.wait(list(urns))
    world.let_pass(6)


def heard(world: World) -> None:
    """Check that every wait hears of its end, and that the processes ask together."""
    world.hear()
    world.share()


def test_one_leaves_and_another_joins_at_once(world: World):
    """A process joins at the moment at which another leaves."""
    _, [leaves, stays, joins] = one_and_others(world, 3)
    followed(world, leaves, world.begin_work())
    followed(world, stays, world.begin_work())
    leaves.give_up()
    new = world.begin_work()
    joins.wait([new])
    world.let_pass(6)
    world.work.end(new)
    heard(world)


@pytest.mark.long
def test_a_wait_that_comes_back_at_any_moment(new_world: Callable[[], World]):
    """A process that waits again for ended work hears of its end again, whatever is reported to others meanwhile."""
    for phase, between in itertools.product(range(6), (0.02, 0.3, 0.7)):
        world = new_world()
        _, [comes_back, other] = one_and_others(world, 2)
        mine, theirs = world.begin_work(), world.begin_work()
        world.let_pass(phase / 6)
        followed(world, comes_back, mine)
        followed(world, other, theirs)
        world.work.end(mine)
        until = world.seconds + 20
        while comes_back.waits:
            assert world.seconds < until, "it has not even heard once"
            world.let_pass(0.05)
            world.work.status[theirs] = f"scheduled at {world.seconds}"
        world.let_pass(between)
        comes_back.wait([mine])
        world.hear()


@pytest.mark.parametrize("moments", [(3, 7), pytest.param(range(12), marks=pytest.mark.long)], ids=["some", "all"])
def test_a_journal_that_fails_while_an_end_is_reported(new_world: Callable[[], World], moments: Iterable[int]):
    """The end is heard even if the journal of the one or the other process fails then.

    Whether that write was kept makes no difference.
    """
    for which, done, moment in itertools.product((0, 1), (False, True), moments):
        world = new_world()
        one, [other] = one_and_others(world)
        work = world.begin_work()
        followed(world, other, work)
        world.work.end(work)
        world.let_pass(moment / 4)
        fails = (one, other)[which]
        fails.fails_until, fails.fails_after_commit = world.seconds + 0.5, done
        world.let_pass(1)
        heard(world)


@pytest.mark.parametrize("moments", [(2, 9), pytest.param(range(24), marks=pytest.mark.long)], ids=["some", "all"])
@pytest.mark.parametrize("after", [False, True])
def test_one_is_stopped_at_any_moment(new_world: Callable[[], World], moments: Iterable[int], after: bool):
    """A process that is stopped in its round is not waited for. What it stores later does no harm."""
    for moment in moments:
        world = new_world()
        stops, [one, two] = one_and_others(world, 2)
        works = [world.begin_work(), world.begin_work()]
        followed(world, one, works[0])
        followed(world, two, works[1])
        world.let_pass(moment / 12)
        stops.stop(after_a_step=after)
        world.let_pass(2 * poller.LOST)
        world.work.end(works[0])
        world.let_pass(6)
        assert not one.waits and two.waits
        stops.go_on()
        world.work.end(works[1])
        heard(world)


@pytest.mark.parametrize("moments", [(2, 12, 20), pytest.param(range(24), marks=pytest.mark.long)], ids=["some", "all"])
def test_one_is_killed_at_any_moment(new_world: Callable[[], World], moments: Iterable[int]):
    """A process may be killed at any moment between an end and the last process that hears of it."""
    for moment in moments:
        world = new_world()
        dies, [one, two] = one_and_others(world, 2)
        works = [world.begin_work(), world.begin_work()]
        followed(world, one, *works)
        followed(world, two, works[0])
        world.work.end(*works)
        world.let_pass(moment / 4)
        dies.kill()
        heard(world)


def test_one_is_cut_off_from_the_platform(world: World):
    """A process that gets no answer lets others ask, and hears of its own end afterwards."""
    cut_off, [other] = one_and_others(world)
    mine, theirs = world.begin_work(), world.begin_work()
    followed(world, other, theirs)
    cut_off.wait([mine])
    cut_off.cut_off = True
    world.work.end(theirs)
    world.let_pass(BOUND)
    assert not other.waits
    world.work.end(mine)
    heard(world)


def test_the_platform_is_away_for_all(world: World):
    """After an outage of the platform, the processes ask together again."""
    one, [other] = one_and_others(world)
    work = world.begin_work()
    followed(world, other, work)
    one.cut_off = other.cut_off = True
    world.let_pass(3 * BOUND)
    world.work.end(work)
    heard(world)
