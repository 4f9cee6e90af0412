"""A wait hears of the end of its work in spite of wrong clocks, processes that join or leave, and a failing journal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from waiting_world import BOUND, Process, World, in_worlds, template

from ivcap_flows.journal import poll_status

HOUR = 3600.0


@pytest.fixture
def new_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], World]]:
    """Return a function that makes a new world, always at the same moment."""
    path, worlds = template(tmp_path), []
    in_worlds(monkeypatch, lambda: worlds[-1])

    def begin() -> World:
        if worlds:
            worlds.pop().close()
        worlds.append(World(tmp_path, path, tells=False))
        return worlds[-1]

    yield begin
    worlds[-1].close()


@pytest.fixture
def world(new_world: Callable[[], World]) -> World:
    return new_world()


def lead_and_follow(world: World, follows: int = 1) -> tuple[Process, list[Process]]:
    """Return a poll leader with work of its own, and other processes that do not wait for anything yet."""
    leader = world.start("A")
    leader.wait([world.begin_work()])
    world.let_pass(3)
    return leader, [world.start("AB"[number % 2]) for number in range(follows)]


def followed(world: World, process: Process, *urns: str) -> None:
    """Let a process wait for some work, and give the leader time to learn of it."""
    process.wait(list(urns))
    world.let_pass(6)


def heard(world: World) -> None:
    """Check that every wait hears of its end, and that at most one process asks the platform."""
    world.hear()
    assert len(world.askers()) <= 1


def test_a_clock_that_went_back(world: World):
    """An end that is seen after the clock was set back is reported, although its time is before the last one."""
    _, [follower] = lead_and_follow(world)
    first, second = world.begin_work(), world.begin_work()
    followed(world, follower, first, second)
    world.work.end(first)
    world.let_pass(6)
    world.ahead -= HOUR
    world.work.end(second)
    heard(world)


def test_one_leaves_and_another_joins_at_once(world: World):
    """The leader notices that one process left and another joined. Their number is the same, and no time is newer."""
    _, [leaves, stays, joins] = lead_and_follow(world, 3)
    followed(world, leaves, world.begin_work())
    followed(world, stays, world.begin_work())
    world.ahead -= HOUR
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
        _, [comes_back, other] = lead_and_follow(world, 2)
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
    """The end is heard even if the journal of the leader or the follower fails then.

    Whether that write was kept makes no difference.
    """
    for which, done, moment in itertools.product((0, 1), (False, True), moments):
        world = new_world()
        leader, [follower] = lead_and_follow(world)
        work = world.begin_work()
        followed(world, follower, work)
        world.work.end(work)
        world.let_pass(moment / 4)
        fails = (leader, follower)[which]
        fails.fails_until, fails.fails_after_commit = world.seconds + 0.5, done
        world.let_pass(1)
        heard(world)


@pytest.mark.parametrize("hours", [-3, 3])
def test_the_one_that_asks_is_stopped_and_the_clock_jumps(world: World, hours: float):
    """A stopped leader is replaced in the usual time although the clock jumps.

    When it continues, its reports are refused.
    """
    leader, [one, two] = lead_and_follow(world, 2)
    works = [world.begin_work(), world.begin_work()]
    followed(world, one, works[0])
    followed(world, two, works[1])
    leader.stop(after_a_step=True)
    world.ahead += hours * HOUR
    world.let_pass(2 * poll_status.POLL_LEASE_SECONDS)
    world.work.end(works[0])
    world.let_pass(6)
    assert not one.waits and two.waits
    leader.go_on()
    world.work.end(works[1])
    heard(world)


@pytest.mark.parametrize("moments", [(2, 12, 20), pytest.param(range(24), marks=pytest.mark.long)], ids=["some", "all"])
def test_the_one_that_asks_is_killed_at_any_moment(new_world: Callable[[], World], moments: Iterable[int]):
    """A leader may be killed at any moment between an end and the last process that hears of it."""
    for moment in moments:
        world = new_world()
        leader, [one, two] = lead_and_follow(world, 2)
        works = [world.begin_work(), world.begin_work()]
        followed(world, one, *works)
        followed(world, two, works[0])
        world.work.end(*works)
        world.let_pass(moment / 4)
        leader.kill()
        heard(world)


def test_a_process_that_seemed_gone(world: World):
    """A process that seemed gone and lost its entries in the journal gets them back, and hears of its end."""
    _, [_, far] = lead_and_follow(world, 2)
    work = world.begin_work()
    followed(world, far, work)
    world.ahead += HOUR
    world.let_pass(2)
    world.work.end(work)
    heard(world)


def test_the_one_that_asks_is_cut_off_from_the_platform(world: World):
    """A leader that gets no answer for a while lets another process ask, and hears of its own end afterwards."""
    leader, [follower] = lead_and_follow(world)
    mine, theirs = world.begin_work(), world.begin_work()
    followed(world, follower, theirs)
    leader.wait([mine])
    leader.cut_off = True
    world.work.end(theirs)
    world.let_pass(BOUND)
    assert not follower.waits
    world.work.end(mine)
    heard(world)


def test_the_platform_is_away_for_all(world: World):
    """After an outage of the platform, one process asks for all again."""
    leader, [follower] = lead_and_follow(world)
    work = world.begin_work()
    followed(world, follower, work)
    leader.cut_off = follower.cut_off = True
    world.let_pass(3 * BOUND)
    world.work.end(work)
    heard(world)
