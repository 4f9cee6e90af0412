"""The permission to send lasts for a moment, and covers no more than what was written to the journal."""

from __future__ import annotations

import asyncio

import pytest

from ivcap_flows.durable import permit as permit_module
from ivcap_flows.durable.permit import Permit
from ivcap_flows.errors import FencedError, JournalError
from ivcap_flows.journal.rows import LEAVES_WITHIN


class Clock:
    """A clock that moves when the test moves it, and while a claim is confirmed."""

    def __init__(self) -> None:
        self.now = 100.0
        self.confirmed: list[float] = []
        self.takes = [0.0]
        self.error: Exception | None = None

    async def confirm(self, leaves_within: float) -> None:
        self.confirmed.append(leaves_within)
        self.now += self.takes.pop(0) if len(self.takes) > 1 else self.takes[0]
        if self.error is not None:
            raise self.error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(permit_module, "_seconds", lambda: clock.now)
    return clock


def test_what_was_confirmed_just_now_is_not_asked_again(clock: Clock) -> None:
    """A claim that was confirmed less than 5 s ago is not confirmed again, so one request costs one write."""

    async def story() -> None:
        permit = Permit(clock.confirm)
        await permit.renew()
        await permit(70.0)
        clock.now += 4.9
        await permit(70.0)

    asyncio.run(story())
    assert clock.confirmed == [LEAVES_WITHIN]


@pytest.mark.parametrize("seconds", [5.0, 3600.0])
def test_who_slept_asks_again(clock: Clock, seconds: float) -> None:
    """A process that slept confirms its claim again, and gets FencedError if another has taken over."""

    async def story() -> None:
        permit = Permit(clock.confirm)
        await permit.renew()
        clock.now += seconds
        await permit(70.0)
        clock.now += seconds
        clock.error = FencedError("taken over", key="k")
        await permit(70.0)

    with pytest.raises(FencedError):
        asyncio.run(story())
    assert clock.confirmed == [LEAVES_WITHIN] * 3


def test_a_long_request_is_written_down_as_such(clock: Clock) -> None:
    """The journal stores until when a long request may leave, for the process that may take over."""

    async def story() -> None:
        permit = Permit(clock.confirm)
        await permit.renew()
        await asyncio.gather(*(permit(610.0) for _ in range(3)))

    asyncio.run(story())
    assert clock.confirmed == [LEAVES_WITHIN, 615.0]


def test_a_sleep_while_it_is_confirmed_counts(clock: Clock) -> None:
    """A confirmation that took too long is repeated, since it is old when it arrives.

    A journal that is always so slow is an error.
    """
    clock.takes = [60.0, 0.0]
    permit = Permit(clock.confirm)
    asyncio.run(permit(70.0))
    assert len(clock.confirmed) == 2
    clock.takes, clock.now = [6.0], clock.now + 60
    with pytest.raises(JournalError, match="longer than 5 s"):
        asyncio.run(permit(70.0))
