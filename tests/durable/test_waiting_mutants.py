"""A process hears of an end through another process, and not only because it asks the platform."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mutants import mutate
from waiting_world import World, in_worlds, template


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, template(tmp_path))
    in_worlds(monkeypatch, lambda: made)
    yield made
    made.close()


def follow(world: World) -> None:
    """Let two processes wait for the same work, and one of them give up twice."""
    first, second = world.start(), world.start()
    shared = world.begin_work()
    second.wait([world.begin_work(lasting=True)])
    for _ in range(2):
        first.wait([shared])
        world.let_pass(3)
        if not any(shared in urns for urns in second.waits.values()):
            second.wait([shared])
        world.let_pass(3)
        first.give_up()
        world.let_pass(6)
    world.work.end(shared)
    world.hear()
    second.wait([world.begin_work()])
    first.wait([world.begin_work()])
    world.share()


@pytest.mark.mutant(None)
def test_a_process_hears_of_an_end(world: World):
    """A process hears of an end, also after another that waited for the same has given up."""
    follow(world)


@pytest.mark.mutant("work is added once")
def test_a_build_that_adds_work_once_is_found(world: World, monkeypatch: pytest.MonkeyPatch):
    """The test fails on a build that does not add work again after another process has taken it from the watchlist."""
    mutate("work is added once", monkeypatch.setattr)
    with pytest.raises(AssertionError, match="never heard"):
        follow(world)


@pytest.mark.mutant("each asks for itself")
def test_a_build_in_which_each_asks_for_itself_is_found(world: World, monkeypatch: pytest.MonkeyPatch):
    """The test fails on a build in which processes do not share what they see."""
    mutate("each asks for itself", monkeypatch.setattr)
    with pytest.raises(AssertionError, match="each asks for itself"):
        follow(world)
