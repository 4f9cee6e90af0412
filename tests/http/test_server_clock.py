"""The platform's own time by its Date headers, and what goes by it when this machine's clock is wrong."""

import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import jwt
import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse

from ivcap_flows.errors import UnavailableError, UnreachableError
from ivcap_flows.http import server_clock
from ivcap_flows.http.oauth import RefreshingToken
from ivcap_flows.http.server_clock import ServerClock

THEN = datetime(2001, 5, 6, 7, 8, 9, tzinfo=timezone.utc)


def answer(status="200 OK", date=THEN, **headers):
    """A reply with these headers and no body."""
    given = {"Content-Length": "0", "Connection": "close", **headers}
    if date is not None:
        given["Date"] = date if isinstance(date, str) else format_datetime(date, usegmt=True)
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in given.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.fixture
def steady(monkeypatch):
    """`steady.append(seconds)` is what the clock that nobody sets shows from then on."""
    shown = [100.0]
    monkeypatch.setattr(server_clock, "elapsed", lambda: shown[-1])
    return shown


def test_a_date_bounds_the_time_and_goes_on_by_what_has_passed(steady):
    """Whole seconds, written at some moment of the request; from then on both bounds move with the steady clock."""
    clock = ServerClock()
    assert clock.time is None
    steady.append(102.0)
    clock.note("a", format_datetime(THEN, usegmt=True), 100.0)
    assert (clock.time.earliest, clock.time.latest) == (THEN, THEN + timedelta(seconds=3))
    steady.append(3702.0)
    assert (clock.time.earliest, clock.time.latest) == (
        THEN + timedelta(hours=1),
        THEN + timedelta(hours=1, seconds=3),
    )


def test_hosts_that_disagree_widen_the_bounds(steady):
    """Each host of a platform has a clock; the newest word of each counts."""
    clock = ServerClock()
    for host, ahead in (("a", 0), ("b", 40), ("a", -5)):
        clock.note(host, format_datetime(THEN + timedelta(seconds=ahead), usegmt=True), 100.0)
    assert (clock.time.earliest, clock.time.latest) == (THEN - timedelta(seconds=5), THEN + timedelta(seconds=41))


@pytest.mark.parametrize("date", [None, "soon", "", "Sun, 99 May 2001 07:08:09 GMT"])
def test_what_is_no_date_tells_nothing(date):
    """And leaves what is known as it is."""
    clock = ServerClock()
    clock.note("a", date, 0.0)
    assert clock.time is None


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "503 Service Unavailable"])
async def test_every_reply_of_the_platform_tells_the_time(wire, status):
    """Refusals, too; a session that was never answered knows none."""
    wire.answers = [answer(status)]
    async with wire.session(budget=0.0) as session:
        assert session.clock.time is None
        await session.request("GET", "/1/x", repeat="idempotent", expect=range(200, 600))
        assert THEN <= session.clock.time.earliest < THEN + timedelta(seconds=30)
    wire.answers = [None]
    async with wire.session(budget=0.0) as session:
        with pytest.raises(UnreachableError):
            await session.request("GET", "/1/x", repeat="idempotent")
        assert session.clock.time is None


async def test_a_date_to_wait_for_is_the_servers(wire):
    """`Retry-After` as a date means so long after the reply's own Date, whatever this machine's clock says."""
    until = format_datetime(THEN + timedelta(seconds=3600), usegmt=True)
    wire.answers = [answer("503 Service Unavailable", Retry_After=until)]
    async with wire.session(budget=0.0) as session:
        with pytest.raises(UnavailableError) as error:
            await session.request("GET", "/1/x", repeat="idempotent")
    assert error.value.retry_after == 3600


def token(**claims):
    return jwt.encode({"sub": "u", **claims}, "k" * 32, algorithm="HS256")


async def test_a_token_that_has_expired_by_the_platforms_clock_is_renewed(wire, web):
    """This machine's clock is an hour behind, and the platform says no more than 401."""
    ahead = datetime.now(timezone.utc) + timedelta(hours=1)
    web.on("POST /token", {"access_token": "a-2", "expires_in": 300})
    old = SecretStr(token(exp=time.time() + 1800))
    auth = RefreshingToken(f"{web.url}/token", "c", refresh_token=SecretStr("r"), access_token=old)
    wire.answers = [answer("401 Unauthorized", ahead), answer(date=ahead)]
    async with wire.session(auth=auth) as session:
        await session.request("GET", "/1/x", repeat="idempotent")
    assert b"Bearer a-2" in wire.requests[1]


async def test_a_clock_that_is_ahead_does_not_renew_for_every_request(web):
    """A token tells when it was issued: how long it lives follows without this machine's clock."""
    issued = time.time() - 3 * 3600
    web.on("POST /token", JSONResponse({"access_token": token(iat=issued, exp=issued + 300)}))
    auth = RefreshingToken(f"{web.url}/token", "c", refresh_token=SecretStr("r"))
    for _ in range(3):
        await auth.header()
    assert len(web.sent("POST /token")) == 1
