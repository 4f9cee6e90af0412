"""The platform's own time by its Date headers, and what goes by it when this machine's clock is wrong."""

import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import jwt
import pytest
from own_login import renewing
from pydantic import SecretStr

from ivcap_flows.errors import UnavailableError, UnreachableError
from ivcap_flows.http import server_clock
from ivcap_flows.http.server_clock import ServerClock

THEN = datetime(2001, 5, 6, 7, 8, 9, tzinfo=timezone.utc)


def date(seconds=0.0, since=THEN):
    return format_datetime(since + timedelta(seconds=seconds), usegmt=True)


def bounds(clock):
    return [(moment - THEN).total_seconds() for moment in (clock.time.earliest, clock.time.latest)]


def test_a_date_bounds_the_time_and_goes_on_by_what_has_passed(monkeypatch):
    """Whole seconds, written at some moment of the request; from then on both bounds move with the steady clock. Hosts
    that disagree widen them."""
    shown = [102.0]
    monkeypatch.setattr(server_clock, "elapsed", lambda: shown[-1])
    clock = ServerClock()
    for no_date in (None, "soon", "", "Sun, 99 May 2001 07:08:09 GMT"):
        clock.note("a", no_date, 0.0)
        assert clock.time is None
    clock.note("a", date(), 100.0)
    assert bounds(clock) == [0, 3]
    shown.append(3702.0)
    assert bounds(clock) == [3600, 3603]
    clock = ServerClock()
    for host, ahead in (("a", 0), ("b", 40), ("a", -5)):
        clock.note(host, date(ahead), 3702.0)
    assert bounds(clock) == [-5, 41]


async def test_every_reply_of_the_platform_tells_the_time(wire):
    """Refusals, too; a session that was never answered knows none. `Retry-After` as a date means so long after the
    reply's own Date, whatever this machine's clock says."""
    for status in ("200 OK", "404 Not Found", "503 Service Unavailable"):
        wire.answers = [wire.reply(status, Date=date())]
        async with wire.session(budget=0.0) as session:
            await session.request("GET", "/1/x", repeat="idempotent", expect=range(200, 600))
            assert THEN <= session.clock.time.earliest < THEN + timedelta(seconds=30)
    wire.answers = [None, wire.reply("503 Service Unavailable", Date=date(), Retry_After=date(3600))]
    async with wire.session(budget=0.0) as session:
        with pytest.raises(UnreachableError):
            await session.request("GET", "/1/x", repeat="idempotent")
        assert session.clock.time is None
        with pytest.raises(UnavailableError) as error:
            await session.request("GET", "/1/x", repeat="idempotent")
    assert error.value.retry_after == 3600


async def test_a_token_that_has_expired_by_the_platforms_clock_is_renewed(wire, web):
    """This machine's clock is an hour behind, and the platform says no more than 401."""
    ahead = date(3600, datetime.now(timezone.utc))
    web.on("POST /token", {"access_token": "a-2", "expires_in": 300})
    old = SecretStr(jwt.encode({"sub": "u", "exp": time.time() + 1800}, "k" * 32, algorithm="HS256"))
    auth = renewing(f"{web.url}/token", "c", SecretStr("r"), old)
    wire.answers = [wire.reply("401 Unauthorized", Date=ahead), wire.reply(Date=ahead)]
    async with wire.session(auth=auth) as session:
        await session.request("GET", "/1/x", repeat="idempotent")
    assert b"Bearer a-2" in wire.requests[1]
