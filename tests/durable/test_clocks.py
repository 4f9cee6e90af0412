"""The platform's own time, which bounds the look for an effect, however other clocks are set."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from ivcap_flows.durable import look_since
from ivcap_flows.durable.platform_time import SPREAD
from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.journal import NewIntent

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
WANTED = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {"n": 1})


def test_the_platform_is_asked_once_for_its_time(sqlite_journal, platform):
    """The platform's time is requested once, before the first send, if no reply has shown it. The intent stores it."""

    class Unknown:
        time: ServerTime | None = None
        asked = 0

        async def now(self) -> ServerTime | None:
            self.asked += self.time is None
            self.time = self.time or platform.time
            return self.time

    clock = Unknown()
    for request in "xyz":
        platform.run(sqlite_journal, request, clock=clock)
    assert clock.asked == 1
    assert all(row.platform_time is not None for row in sqlite_journal.intents.where())


def test_the_first_time_of_an_intent_is_kept(durable_journal):
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
