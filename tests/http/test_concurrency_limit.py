"""As many effects at once as a server answers in time."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest

from ivcap_flows.errors import BadRequestError, UnavailableError
from ivcap_flows.http import concurrency_limit as module
from ivcap_flows.http.concurrency_limit import MOST, ConcurrencyLimit, answering


class Timed(ConcurrencyLimit):
    """A limit on a clock that goes on by what is asked: `now` is in seconds."""

    now = 100.0

    async def ask(self, *seconds: float, error: Exception | None = None) -> None:
        """Ask for effects, one after another, that take so long, and end in an error if one is given."""
        for each in seconds:
            async with self.turn():
                with answering():
                    self.now += each
                    if error is not None:
                        raise error


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Timed:
    made = Timed("Tests")
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


async def test_no_more_than_four_at_first_and_who_is_cancelled_gives_the_turn_back(limit):
    under_way, most, free = 0, 0, asyncio.Event()

    async def one() -> None:
        nonlocal under_way, most
        async with limit.turn():
            under_way += 1
            most = max(most, under_way)
            await free.wait()
            under_way -= 1

    cancelled = [asyncio.ensure_future(one()) for _ in range(6)]
    await asyncio.sleep(0.01)
    for each in cancelled:
        each.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
    under_way = 0
    asking = [asyncio.ensure_future(one()) for _ in range(9)]
    while under_way < 4:
        await asyncio.sleep(0)
    free.set()
    await asyncio.wait_for(asyncio.gather(*asking), 10)
    assert most == 4


async def test_answers_in_time_make_it_one_more_up_to_a_bound(limit):
    """Four answers make five of four, five make six of five; however quick they are, there is a most."""
    await limit.ask(*[1.0] * 4)
    assert limit.at_once == 5
    await limit.ask(*[1.9] * 5)
    assert limit.at_once == 6
    await limit.ask(*[1.0] * 500)
    assert limit.at_once == MOST


async def test_queued_answers_and_refusals_leave_it(limit):
    """Where more at once only takes longer, there are no more. What a server refuses for what it is says nothing."""
    await limit.ask(1.0, *[2.5] * 50)
    with pytest.raises(BadRequestError):
        await limit.ask(1.0, error=BadRequestError("400"))
    assert limit.at_once == 4


@pytest.mark.parametrize("error", [UnavailableError("503"), None], ids=["an error", "a late answer"])
async def test_failures_halve_it_once_for_all_that_were_under_way(limit, caplog, error):
    """Four that fail together make two of four, and the log says so; then one is the least."""
    asked = limit.now
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            limit.now = asked + 20
            if error is not None:
                limit.failed(asked, error)
            else:
                limit.answered(asked)
    assert limit.at_once == 2
    [said] = caplog.messages
    assert said.startswith("Tests: 2 at once instead of 4: ")
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await limit.ask(1.0, error=UnavailableError("503"))
    assert limit.at_once == 1
    await limit.ask(1.0)
    assert limit.at_once == 2
