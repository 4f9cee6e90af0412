"""Batches that were sent are looked at in their order, and none that stands still keeps another from being seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ivcap_flows.provena.models import JobRow
from ivcap_flows.registration import batch_watcher
from ivcap_flows.registration.batch_watcher import BatchWatcher, End, Pulse, Sending, Unit
from ivcap_flows.registration.keys import marked


class Provena:
    """Batches of three jobs each; with each look one more job of a batch that works is done."""

    def __init__(self, *stuck: str) -> None:
        self.jobs = self
        self.looks: list[str] = []
        self._stuck = stuck

    async def list_batch(self, batch: str, page_size: int) -> AsyncIterator[JobRow]:
        self.looks.append(batch)
        done = 0 if batch in self._stuck else self.looks.count(batch)
        for number in range(3):
            yield JobRow.model_validate(
                {
                    "session_id": f"{batch}-{number}",
                    "status": "SUCCEEDED" if number < done else "IN_PROGRESS",
                    "payload": {"record": marked({}, f"{batch}-{number}", "a subject")},
                }
            )


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_watcher, "SHORTEST", 0.01)
    monkeypatch.setattr(batch_watcher, "LONGEST", 0.02)


async def follow(provena: Provena, *batches: str) -> list[End]:
    follower = BatchWatcher(provena, Pulse(), Sending(), stall_timeout=1.0)  # type: ignore[arg-type]

    async def told(_: Any) -> None:
        pass

    keys = {batch: [f"{batch}-{number}" for number in range(3)] for batch in batches}
    return await asyncio.gather(
        *(follower.follow(Unit(batch, batch), keys[batch], told, stall_timeout=0.3, alone=False) for batch in batches)
    )


async def test_a_batch_that_moves_is_looked_at_to_its_end() -> None:
    """The replies are long, so what was sent later waits for its turn."""
    provena = Provena()
    assert [end.left for end in await follow(provena, "a", "b", "c")] == [frozenset()] * 3
    assert provena.looks == [*"aaabbbccc"]


async def test_a_batch_that_stands_still_leaves_the_turn_to_others() -> None:
    """What comes after a batch that no worker is at is seen to its end; of that one the patience ends."""
    provena = Provena("a")
    stuck, *fine = await follow(provena, "a", "b", "c")
    assert len(stuck.left) == 3
    assert [end.left for end in fine] == [frozenset()] * 2
    assert "".join(provena.looks).startswith("aab")
