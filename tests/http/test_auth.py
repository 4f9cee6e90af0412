"""Tokens that are given, renew themselves, or come from a device login."""

import asyncio
import time
from collections import Counter
from urllib.parse import parse_qsl

import jwt
import pytest
from own_login import renewing
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import ConfigurationError, NotAuthorizedError, ProtocolError, WaitTimeoutError
from ivcap_flows.http.auth import StaticToken, claims
from ivcap_flows.http.oauth import DeviceLogin
from ivcap_flows.http.pauses import retry_until

CHALLENGE = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


def token(**more):
    return jwt.encode({"sub": "u", **more}, "k" * 32, algorithm="HS256")


def refreshing(web, **options):
    return renewing(f"{web.url}/token", "client-1", **({"refresh_token": SecretStr("r-s3cr3t")} | options))


def granted(access="a-1", **more):
    return {"access_token": access, "token_type": "Bearer", "expires_in": 300, **more}


def forms(web, path="/token"):
    return [dict(parse_qsl(call.body)) for call in web.to(f"POST {path}")]


@pytest.mark.parametrize("text", ["", "  ", "a b", "a\nb", "Bearer ", "toké"])
def test_a_token_that_is_cut_or_decorated_is_told_at_once(text):
    with pytest.raises(ConfigurationError, match="copy it again"):
        StaticToken(text)


async def test_a_given_token_is_sent_as_it_is_and_its_claims_are_read():
    """White space and a copied `Bearer ` around it do not matter. An opaque one has no claims."""
    assert await StaticToken(SecretStr(" Bearer abc\n")).header() == "Bearer abc"
    assert not StaticToken(token(exp=1060)).expired_at(1000)
    assert StaticToken(token(exp=940)).expired_at(1000)
    assert claims("Bearer " + token(acc="45a0"))["acc"] == "45a0"
    assert claims("Bearer opaque") == claims(None) == {}


async def test_a_token_is_renewed_once_for_all_who_wait_though_one_is_cancelled(web):
    """A refresh token that is good for one use is not lost with the request that sent it, nor sent a second time."""

    async def slow(request):
        await asyncio.sleep(0.2)
        return JSONResponse(granted(refresh_token="r-2"))

    web.on("POST /token", slow)
    auth = refreshing(web)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(auth.header(), 0.05)
    assert set(await asyncio.gather(*(auth.header() for _ in range(50)))) == {"Bearer a-1"}
    assert forms(web) == [{"client_id": "client-1", "grant_type": "refresh_token", "refresh_token": "r-s3cr3t"}]
    await auth.header(force=True)
    assert [form["refresh_token"] for form in forms(web)] == ["r-s3cr3t", "r-2"]


async def test_a_renewal_is_tried_again_for_all_though_the_first_who_asks_has_no_time(web):
    web.on("POST /token", Response(status_code=503), granted())
    auth = refreshing(web)
    before = retry_until.set(time.monotonic())
    assert await auth.header() == "Bearer a-1"
    retry_until.reset(before)


@pytest.mark.parametrize(
    ("old", "reply", "renewals"),
    [
        ({"exp": 600}, None, 0),
        ({"exp": 10}, granted(), 1),
        (None, {"access_token": token(iat=time.time(), exp=time.time() + 10)}, 1),
        (None, {"access_token": token(iat=time.time() - 10_800, exp=time.time() - 10_500)}, 1),
    ],
    ids=["fresh", "about to expire", "shorter than the skew", "of a clock that is three hours behind"],
)
async def test_a_token_is_renewed_shortly_before_it_expires_and_not_for_each_request(web, old, reply, renewals):
    web.on("POST /token", *[reply] * (reply is not None))
    access = old and SecretStr(token(exp=time.time() + old["exp"]))
    auth = refreshing(web, access_token=access)
    for _ in range(3):
        await auth.header()
    assert len(web.calls) == renewals


async def test_without_a_refresh_token_the_clients_own_secret_is_used(web):
    web.on("POST /token", granted())
    await refreshing(web, refresh_token=None, client_secret=SecretStr("c-s3cr3t")).header()
    given = {"client_id": "client-1", "client_secret": "c-s3cr3t"}
    assert forms(web) == [given | {"grant_type": "client_credentials"}]


async def test_a_refused_renewal_says_so_without_the_secret(web):
    """The provider's words, the next step, and no echo of the refresh token."""
    body = {"error": "invalid_grant", "error_description": "Token r-s3cr3t is not active"}
    web.on("POST /token", JSONResponse(body, 400))
    auth = refreshing(web)
    with pytest.raises(NotAuthorizedError, match="invalid_grant.*is not active.* Log in again") as error:
        await auth.header()
    assert "s3cr3t" not in str(error.value) + repr(error.value.data) + repr(auth)


@pytest.mark.parametrize(
    "reply", [Response("no"), JSONResponse({}), JSONResponse([]), JSONResponse({"access_token": 1})]
)
async def test_a_200_that_holds_no_token_is_not_taken_for_one(web, reply):
    web.on("POST /token", reply)
    with pytest.raises(ProtocolError):
        await refreshing(web).header()


async def test_requests_that_are_rejected_together_share_one_renewal_and_are_sent_once_more(web):
    """Who finds that another has renewed the token meanwhile takes the new one."""

    async def check(request):
        await asyncio.sleep(0.02)
        known = request.headers["authorization"] == "Bearer a-2"
        return JSONResponse({}) if known else Response(status_code=401, headers=CHALLENGE)

    web.on("POST /token", granted("a-1"), granted("a-2"), granted("a-3"))
    web.on("POST /1/x", check)
    async with web.session(auth=refreshing(web)) as session:
        await asyncio.gather(*(session.request("POST", "/1/x", json=n, repeat="keyed") for n in range(20)))
    assert len(forms(web)) == 2
    assert max(Counter(call.content for call in web.to("POST /1/x")).values()) == 2


@pytest.mark.parametrize(
    ("renews", "headers", "renewals", "sends"),
    [(True, CHALLENGE, 2, 2), (True, {}, 1, 1), (False, CHALLENGE, 0, 1)],
    ids=["each token is rejected", "not about the token, as of items that are not open", "a given token"],
)
async def test_a_401_that_no_renewal_can_mend_is_an_error(web, renews, headers, renewals, sends):
    web.on("POST /token", granted())
    web.on("GET /1/x", Response(status_code=401, headers=headers))
    async with web.session(auth=refreshing(web) if renews else StaticToken("x")) as session:
        with pytest.raises(NotAuthorizedError, match="Check that the token is set"):
            await session.request("GET", "/1/x", repeat="idempotent")
    assert (len(forms(web)), len(web.to("GET /1/x"))) == (renewals, sends)


def device(web, shown, **begun):
    told = {
        "device_code": "d-s3cr3t",
        "user_code": "ABCD",
        "verification_uri": "https://idp/device",
        "verification_uri_complete": "https://idp/device?code=ABCD",
        "expires_in": 5,
        "interval": 0.01,
    }
    web.on("POST /code", told | begun)
    return DeviceLogin(f"{web.url}/code", f"{web.url}/token", "client-1", show=shown.append, audience="https://api/")


def pending(code, status=403):
    return JSONResponse({"error": code}, status)


async def test_a_device_login_waits_for_the_user(web):
    """Pending as 403 and as 400, then tokens; where to confirm is shown once."""
    shown = []
    login = device(web, shown)
    waits = pending("authorization_pending"), pending("authorization_pending", 400)
    web.on("POST /token", *waits, granted("a-1", refresh_token="r-1"))
    tokens = await login.tokens()
    assert (tokens.access.get_secret_value(), tokens.refresh.get_secret_value()) == ("a-1", "r-1")
    assert [(each.uri, each.code, each.complete_uri) for each in shown] == [
        ("https://idp/device", "ABCD", "https://idp/device?code=ABCD")
    ]
    assert forms(web, "/code")[0]["audience"] == "https://api/"
    assert forms(web)[0]["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code"
    assert "s3cr3t" not in repr(login)


async def test_slow_down_lengthens_the_interval(web, monkeypatch):
    """Five seconds more after each slow_down (RFC 8628, section 3.5), or twice as long where that is more."""
    waits = []
    real = asyncio.sleep

    async def note(seconds):
        waits.append(seconds)
        await real(0)

    login = device(web, [], interval=5, expires_in=600)
    web.on("POST /token", pending("slow_down"), pending("authorization_pending"), pending("slow_down"), granted())
    monkeypatch.setattr(asyncio, "sleep", note)
    await login.tokens()
    assert [wait for wait in waits if wait >= 5] == [5, 10, 10, 20]


@pytest.mark.parametrize(
    ("code", "lasts", "error", "words"),
    [
        ("access_denied", 60, NotAuthorizedError, "access_denied"),
        ("something_new", 60, NotAuthorizedError, "something_new"),
        ("expired_token", 60, WaitTimeoutError, "Nobody confirmed the login at https://idp/device"),
        ("authorization_pending", 0.1, WaitTimeoutError, "Nobody confirmed the login at https://idp/device"),
    ],
)
async def test_a_device_login_that_is_refused_or_that_nobody_confirms_ends(web, code, lasts, error, words):
    """By the user's no, by any error that is not known to be temporary, and by the provider's word or time."""
    login = device(web, [], expires_in=lasts)
    web.on("POST /token", pending(code, 400))
    with pytest.raises(error, match=words) as caught:
        await login.tokens()
    assert "s3cr3t" not in str(caught.value)
