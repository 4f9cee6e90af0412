"""As many effects at once as a server answers in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from ivcap_flows.errors import BadRequestError, UnavailableError
from ivcap_flows.http import concurrency_limit as module
from ivcap_flows.http.concurrency_limit import MOST, ConcurrencyLimit, answering

pytestmark = pytest.mark.asyncio


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def ask(clock: Clock) -> Callable[..., None]:
    """Asks for one effect that takes so many seconds, and ends in an error if one is given."""

    async def asked(limit: ConcurrencyLimit, seconds: float, error: Exception | None = None) -> None:
        async with limit.turn():
            with answering():
                clock.now += seconds
                if error is not None:
                    raise error

    return asked


async def test_no_more_than_four_at_first():
    """The fifth waits until one of the four is answered."""
    limit, under_way, most, free = ConcurrencyLimit("Tests"), 0, 0, asyncio.Event()

    async def one() -> None:
        nonlocal under_way, most
        async with limit.turn():
            under_way += 1
            most = max(most, under_way)
            await free.wait()
            under_way -= 1

    asking = [asyncio.ensure_future(one()) for _ in range(9)]
    await asyncio.sleep(0)
    while under_way < 4:
        await asyncio.sleep(0)
    free.set()
    await asyncio.gather(*asking)
    assert most == 4


async def test_answers_in_time_make_it_one_more_up_to_a_bound(ask):
    """Four answers make five of four, five make six of five; however quick they are, there is a most."""
    limit = ConcurrencyLimit("Tests")
    for _ in range(4):
        await ask(limit, 1.0)
    assert limit.at_once == 5
    for _ in range(5):
        await ask(limit, 1.9)
    assert limit.at_once == 6
    for _ in range(500):
        await ask(limit, 1.0)
    assert limit.at_once == MOST


async def test_answers_that_have_waited_behind_others_leave_it(ask):
    """Where more at once only takes longer, there are no more."""
    limit = ConcurrencyLimit("Tests")
    await ask(limit, 1.0)
    for _ in range(50):
        await ask(limit, 2.5)
    assert limit.at_once == 4


@pytest.mark.parametrize("what", ["an error", "a late answer"])
async def test_failures_halve_it_once_for_all_that_were_under_way(ask, clock, caplog, what):
    """Four that fail together make two of four, and the log says so; then one is the least."""
    limit = ConcurrencyLimit("Tests of the pace")
    asked = clock.now
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            clock.now = asked + 20
            if what == "an error":
                limit.failed(asked, UnavailableError("503"))
            else:
                limit.answered(asked)
    assert limit.at_once == 2
    [said] = caplog.messages
    assert said.startswith("Tests of the pace: 2 at once instead of 4: ")
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await ask(limit, 1.0, UnavailableError("503"))
    assert limit.at_once == 1
    await ask(limit, 1.0)
    assert limit.at_once == 2


async def test_a_refusal_says_nothing_of_the_pace(ask):
    """What a server refuses for what it is leaves the pace as it is."""
    limit = ConcurrencyLimit("Tests")
    with pytest.raises(BadRequestError):
        await ask(limit, 1.0, BadRequestError("400"))
    assert limit.at_once == 4


async def test_what_fails_gives_its_turn_back(ask):
    """Also a caller that is cancelled while it waits or works."""
    limit = ConcurrencyLimit("Tests")

    async def forever() -> None:
        async with limit.turn():
            await asyncio.Event().wait()

    asking = [asyncio.ensure_future(forever()) for _ in range(6)]
    await asyncio.sleep(0.01)
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.wait_for(ask(limit, 1.0), 10)
