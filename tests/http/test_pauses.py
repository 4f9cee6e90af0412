"""How long is paused between looks, and between the parts of a transfer."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ivcap_flows.errors import UnreachableError
from ivcap_flows.http.pauses import Breaks, Pauses
from ivcap_flows.http.retry import Backoff


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    """What is slept in this thread. The package's loop, in a thread of its own, may sleep meanwhile."""
    seen: list[float] = []
    here, asleep = threading.get_ident(), asyncio.sleep

    async def sleep(seconds: float) -> None:
        if threading.get_ident() == here:
            seen.append(seconds)
        else:
            await asleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return seen


async def test_pauses_double_up_to_the_longest(slept):
    """With a jitter that keeps processes from asking at the same moments."""
    pauses = Pauses(1.0, 5.0)
    for _ in range(5):
        await pauses.sleep()
    for seconds, least in zip(slept, (1, 2, 4, 5, 5), strict=True):
        assert least <= seconds <= least + 0.25


async def test_no_pause_goes_beyond_the_time_that_is_left(slept):
    """The last look is at the end of the time; one that is over leaves no pause."""
    pauses = Pauses(1.0, 5.0)
    for left in (0.5, 0.0, -1.0):
        await pauses.sleep(left)
    assert slept == [0.5, 0.0, 0.0]


async def test_a_transfer_that_breaks_off_too_often_fails(slept):
    """The server's word counts, and the budget counts from the last time that it got on."""
    breaks, error = Breaks(Backoff(budget=10.0)), UnreachableError("gone", retry_after=8.0)
    await breaks.wait(error, "upload of x")
    assert slept == [8.0]
    with pytest.raises(UnreachableError, match="gone"):
        await breaks.wait(UnreachableError("gone", retry_after=11.0), "upload of x")
    breaks.begin_anew()
    await breaks.wait(error, "upload of x")
    assert slept == [8.0, 8.0]
