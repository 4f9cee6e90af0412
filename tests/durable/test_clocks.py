"""The visibility delay is kept when clocks are wrong, or are set between two calls."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from durable_platform import VISIBILITY_DELAY, Platform, cut_off, order, perform

from ivcap_flows.durable import look_since
from ivcap_flows.durable.platform_time import SPREAD
from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.journal import Journal, NewIntent
from ivcap_flows.journal.store import Store

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
HERE = {"attempt": None, "platform": "https://x", "account": "urn:acc"}
WANTED = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {"n": 1})


class PlatformTime:
    """The time of a platform whose clock is wrong by `off`."""

    def __init__(self, off: timedelta = timedelta()) -> None:
        self.off = off
        self.asked = 0
        self.known = True

    @property
    def time(self) -> ServerTime | None:
        now = datetime.now(timezone.utc) + self.off
        return ServerTime(now, now) if self.known else None

    async def now(self) -> ServerTime | None:
        self.asked += not self.known
        self.known = True
        return self.time


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path / "platform")


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the journal's clock ahead of the real time, or behind it, by some hours."""
    now, off = Store.now, [0.0]
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + timedelta(hours=off[0]))
    return lambda hours: off.__setitem__(0, hours)


def leave_open(platform: Platform, journal: Journal, clock: PlatformTime | None = None) -> str:
    """Run a call that is cut off while its request is under way. Return its key."""
    platform.faults = ["hang"]
    call = perform(order(platform), journal=journal, clock=clock, **HERE)
    cut_off(platform, call)
    [intent] = journal.intents.where()
    return intent.key


def again(platform: Platform, journal: Journal, clock: PlatformTime | None = None) -> tuple[str, float]:
    """Return how the next call got the effect, and how many seconds that took."""
    began = time.monotonic()
    done = asyncio.run(perform(order(platform), journal=journal, clock=clock, **HERE))
    return done.how, time.monotonic() - began


@pytest.mark.parametrize("hours", [-3.0, -1 / 6, 1 / 6, 3.0])
@pytest.mark.parametrize("told", [True, False], ids=["with the platform's time", "without"])
def test_a_clock_that_is_set_cuts_no_settling_short(
    sqlite_journal: Journal, platform: Platform, set_clock: Callable[[float], None], hours: float, told: bool
) -> None:
    """A journal's clock that is set after a call was cut off does not shorten the visibility delay.

    The next call finds the late effect and adopts it.
    """
    clock = PlatformTime() if told else None
    key = leave_open(platform, sqlite_journal, clock)
    platform.take(key, "x", hidden=VISIBILITY_DELAY / 2)
    set_clock(hours)
    how, took = again(platform, sqlite_journal, clock)
    assert (how, len(platform.urns)) == ("adopted", 1)
    assert took < VISIBILITY_DELAY + 2


@pytest.mark.parametrize("hours", [-3.0, 3.0])
def test_a_platforms_clock_that_is_off_is_no_matter(sqlite_journal: Journal, platform: Platform, hours: float) -> None:
    """A platform's clock that is wrong by hours has no influence: only the time that has passed on it counts."""
    clock = PlatformTime(timedelta(hours=hours))
    key = leave_open(platform, sqlite_journal, clock)
    platform.take(key, "x", hidden=VISIBILITY_DELAY / 2)
    assert again(platform, sqlite_journal, clock)[0] == "adopted"
    assert len(platform.urns) == 1


def test_steps_within_one_call_are_no_matter(
    sqlite_journal: Journal, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumps forward at each reading, even within one call, does not make the call send twice."""
    now, steps = Store.now, itertools.count()
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + timedelta(hours=next(steps)))
    platform.faults = ["late"]
    done = asyncio.run(perform(order(platform), journal=sqlite_journal, clock=PlatformTime(), **HERE))
    assert (done.how, len(platform.urns)) == ("adopted", 1)


def test_the_platform_is_asked_once_for_its_time(sqlite_journal: Journal, platform: Platform) -> None:
    """The platform's time is requested once, before the first send, if no reply has shown it. The intent stores it."""
    clock = PlatformTime()
    clock.known = False
    for request in "xyz":
        asyncio.run(perform(order(platform, request), journal=sqlite_journal, clock=clock, **HERE))
    assert clock.asked == 1
    assert all(row.platform_time is not None for row in sqlite_journal.intents.where())


def test_the_first_time_of_an_intent_is_kept(durable_journal: Journal) -> None:
    """An intent keeps its first platform time over refusals, later claims and a clock that is set back.

    An unknown time stays unknown.
    """
    intents = durable_journal.intents
    at = [ServerTime(NOW + timedelta(seconds=n), NOW + timedelta(seconds=n + 1)) for n in (0, 60, -60)]
    first = intents.mark_sent(intents.claim(replace(WANTED, platform_time=NOW)).intent, time=at[1])
    assert first.platform_time == NOW
    intents.drop(first, "refused")
    later = intents.claim(replace(WANTED, platform_time=at[1].earliest)).intent
    assert later.platform_time == NOW
    assert intents.mark_sent(later, time=at[2]).platform_time == at[2].earliest
    other = replace(WANTED, key="k1:b", base_key="k1:b")
    unknown = intents.mark_in_doubt(intents.mark_sent(intents.claim(other).intent), "lost")
    unknown = intents.mark_sent(unknown, time=at[1])
    assert unknown.platform_time is None
    assert look_since(None, later) == look_since(at[0], later) == NOW - SPREAD
    assert look_since(None, later, unknown) is None
    assert look_since(at[2], later) is None, "the platform's clock was set back since"
