"""A follower hears of an end through the poll leader, and not only because it asks the platform."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mutants import mutate
from waiting_world import World, in_worlds, template


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, template(tmp_path), tells=False)
    in_worlds(monkeypatch, lambda: made)
    yield made
    made.close()


def follow(world: World) -> None:
    """Let one process poll for all, and another hear of an end from it."""
    world.start("A").wait([world.begin_work()])
    world.let_pass(3)
    work = world.begin_work()
    world.start("B").wait([work])
    world.let_pass(6)
    world.work.end(work)
    world.hear()
    assert len(world.askers()) <= 1


@pytest.mark.mutant(None)
def test_a_follower_hears_of_an_end(world: World):
    """A follower hears of an end and does not ask the platform."""
    follow(world)


@pytest.mark.mutant("report deleted")
def test_a_build_that_deletes_reports_is_found(world: World, monkeypatch: pytest.MonkeyPatch):
    """The test fails on a build that deletes a reported end before the follower has read it."""
    mutate("report deleted", monkeypatch.setattr)
    with pytest.raises(AssertionError, match="never heard"):
        follow(world)
