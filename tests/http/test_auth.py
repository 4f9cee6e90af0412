"""Tokens that are given, renew themselves, or come from a device login."""

import asyncio
import time
from urllib.parse import parse_qsl

import jwt
import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import ConfigurationError, NotAuthorizedError, ProtocolError, WaitTimeoutError
from ivcap_flows.http.auth import Auth, StaticToken, claims
from ivcap_flows.http.oauth import DeviceLogin, RefreshingToken

CHALLENGE = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


def token(**more):
    return jwt.encode({"sub": "u", **more}, "k" * 32, algorithm="HS256")


def refreshing(web, **options):
    return RefreshingToken(f"{web.url}/token", "client-1", **({"refresh_token": SecretStr("r-s3cr3t")} | options))


def granted(access="a-1", **more):
    return {"access_token": access, "token_type": "Bearer", "expires_in": 300, **more}


def forms(web, path="/token"):
    return [dict(parse_qsl(seen.body.decode())) for seen in web.sent(f"POST {path}")]


def test_each_kind_is_an_auth(web):
    """All of them are what a session asks for."""
    login = DeviceLogin(f"{web.url}/code", f"{web.url}/token", "c", show=print)
    assert all(isinstance(kind, Auth) for kind in (StaticToken("x"), refreshing(web), login))


@pytest.mark.parametrize("text", ["", "  ", "a b", "a\nb", "Bearer ", "toké"])
def test_a_token_that_cannot_be_one_is_refused(text):
    """A cut or decorated token is told at once, without repeating it."""
    with pytest.raises(ConfigurationError, match="copy it again"):
        StaticToken(text)


async def test_a_given_token_is_sent_as_it_is():
    """White space and a copied `Bearer ` around it do not matter."""
    assert await StaticToken(SecretStr(" Bearer abc\n")).header() == "Bearer abc"
    assert not StaticToken(token(exp=1060)).expired_at(1000)
    assert StaticToken(token(exp=940)).expired_at(1000)


def test_claims_are_read_without_a_key():
    """An opaque token has none."""
    assert claims("Bearer " + token(acc="45a0"))["acc"] == "45a0"
    assert claims("Bearer opaque") == claims(None) == {}


async def test_a_token_is_renewed_once_for_all_who_wait(web):
    """Fifty requests at once, one renewal."""

    async def slow(request):
        await asyncio.sleep(0.05)
        return JSONResponse(granted())

    web.on("POST /token", slow)
    auth = refreshing(web)
    assert set(await asyncio.gather(*(auth.header() for _ in range(50)))) == {"Bearer a-1"}
    assert forms(web) == [{"client_id": "client-1", "grant_type": "refresh_token", "refresh_token": "r-s3cr3t"}]


async def test_a_renewal_goes_on_when_who_waits_is_cancelled(web):
    """A refresh token that is good for one use is not lost with the request that sent it, nor sent a second time."""

    async def slow(request):
        await asyncio.sleep(0.2)
        return JSONResponse(granted(refresh_token="r-2"))

    web.on("POST /token", slow)
    auth = refreshing(web)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(auth.header(), 0.05)
    assert await auth.header() == "Bearer a-1"
    assert [form["refresh_token"] for form in forms(web)] == ["r-s3cr3t"]
    assert await auth.header(force=True) == "Bearer a-1"
    assert [form["refresh_token"] for form in forms(web)] == ["r-s3cr3t", "r-2"]


async def test_a_token_is_renewed_before_it_expires(web):
    """Within the skew of its expiry a token counts as old; a rotated refresh token replaces the old one."""
    kept = []
    web.on("POST /token", granted("a-1", refresh_token="r-2"), granted("a-2", refresh_token="r-2"))
    old = SecretStr(token(exp=time.time() + 10))
    auth = refreshing(web, access_token=old, on_rotate=kept.append)
    assert await auth.header() == "Bearer a-1"
    assert await auth.header() == "Bearer a-1"
    assert await auth.header(force=True) == "Bearer a-2"
    assert [form["refresh_token"] for form in forms(web)] == ["r-s3cr3t", "r-2"]
    assert [secret.get_secret_value() for secret in kept] == ["r-2"]


async def test_a_fresh_token_is_not_renewed(web):
    """A token with time left costs no request."""
    auth = refreshing(web, access_token=SecretStr(token(exp=time.time() + 600)))
    await auth.header()
    assert web.seen == []


async def test_a_token_that_lives_shorter_than_the_skew_is_used(web):
    """A life of ten seconds does not mean a renewal for every request."""
    web.on("POST /token", granted(expires_in=10))
    auth = refreshing(web)
    for _ in range(3):
        await auth.header()
    assert len(web.seen) == 1


async def test_client_credentials(web):
    """Without a refresh token the client's own secret is used."""
    web.on("POST /token", granted())
    auth = refreshing(web, refresh_token=None, client_secret=SecretStr("c-s3cr3t"), scope="roles")
    await auth.header()
    assert forms(web)[0] == {
        "client_id": "client-1",
        "grant_type": "client_credentials",
        "client_secret": "c-s3cr3t",
        "scope": "roles",
    }
    with pytest.raises(ConfigurationError):
        refreshing(web, refresh_token=None)


async def test_a_refused_renewal_says_so_without_the_secret(web):
    """The provider's words, the next step, and no echo of the refresh token."""
    body = {"error": "invalid_grant", "error_description": "Token r-s3cr3t is not active"}
    web.on("POST /token", JSONResponse(body, 400))
    auth = refreshing(web)
    with pytest.raises(NotAuthorizedError, match="invalid_grant .*is not active.* Log in again") as error:
        await auth.header()
    assert "s3cr3t" not in str(error.value) + repr(error.value.data) + repr(auth)


@pytest.mark.parametrize(
    "reply", [Response("no"), JSONResponse({}), JSONResponse([]), JSONResponse({"access_token": 1})]
)
async def test_a_renewal_without_a_token_is_a_violation(web, reply):
    """A 200 that holds no token is not taken for one."""
    web.on("POST /token", reply)
    with pytest.raises(ProtocolError):
        await refreshing(web).header()


async def test_a_session_renews_a_rejected_token_once(web):
    """401 with a Bearer challenge: one renewal, one more send, a keyed request too."""
    web.on("POST /token", granted("a-1"), granted("a-2"))
    web.on("POST /1/x", Response(status_code=401, headers=CHALLENGE), {"ok": True})
    async with web.session(auth=refreshing(web)) as session:
        await session.request("POST", "/1/x", json={}, repeat="keyed")
    assert [seen.headers["authorization"] for seen in web.sent("POST /1/x")] == ["Bearer a-1", "Bearer a-2"]


async def test_requests_that_are_rejected_together_share_one_renewal(web):
    """Who finds that another has renewed the token meanwhile takes the new one."""

    async def check(request):
        await asyncio.sleep(0.02)
        known = request.headers["authorization"] == "Bearer a-2"
        return JSONResponse({}) if known else Response(status_code=401, headers=CHALLENGE)

    web.on("POST /token", granted("a-1"), granted("a-2"), granted("a-3"))
    web.on("GET /1/x", check)
    async with web.session(auth=refreshing(web)) as session:
        await asyncio.gather(*(session.request("GET", "/1/x", repeat="idempotent") for _ in range(20)))
    assert len(forms(web)) == 2


async def test_a_session_gives_up_after_one_renewal(web):
    """A platform that rejects every token is asked twice."""
    web.on("POST /token", granted())
    web.on("GET /1/x", Response(status_code=401, headers=CHALLENGE))
    async with web.session(auth=refreshing(web)) as session:
        with pytest.raises(NotAuthorizedError):
            await session.request("GET", "/1/x", repeat="idempotent")
    assert len(web.sent("GET /1/x")) == 2


async def test_a_401_without_a_challenge_is_not_about_the_token(web):
    """Provena answers 401 for items that are not open: no renewal."""
    web.on("POST /token", granted())
    web.on("GET /1/x", Response(status_code=401))
    async with web.session(auth=refreshing(web)) as session:
        with pytest.raises(NotAuthorizedError):
            await session.request("GET", "/1/x", repeat="idempotent")
    assert len(forms(web)) == 1


async def test_a_given_token_is_not_tried_twice(web):
    """What cannot be renewed is not sent again."""
    web.on("GET /1/x", Response(status_code=401, headers=CHALLENGE))
    async with web.session(auth=StaticToken("x")) as session:
        with pytest.raises(NotAuthorizedError, match="Check that the token is set"):
            await session.request("GET", "/1/x", repeat="idempotent")
    assert len(web.seen) == 1


def device(web, shown, **begun):
    web.on(
        "POST /code",
        {
            "device_code": "d-s3cr3t",
            "user_code": "ABCD",
            "verification_uri": "https://idp/device",
            "verification_uri_complete": "https://idp/device?code=ABCD",
            "expires_in": 5,
            "interval": 0.01,
            **begun,
        },
    )
    return DeviceLogin(f"{web.url}/code", f"{web.url}/token", "client-1", show=shown.append, audience="https://api/")


def pending(code, status=403):
    return JSONResponse({"error": code}, status)


async def test_a_device_login_waits_for_the_user(web):
    """Pending as 403 and as 400, then a token that renews itself; the user is shown where to confirm, once."""
    shown = []
    login = device(web, shown)
    web.on(
        "POST /token",
        pending("authorization_pending"),
        pending("authorization_pending", 400),
        granted("a-1", refresh_token="r-1"),
        granted("a-2"),
    )
    assert await asyncio.gather(login.header(), login.header()) == ["Bearer a-1"] * 2
    assert [(each.uri, each.code, each.complete_uri) for each in shown] == [
        ("https://idp/device", "ABCD", "https://idp/device?code=ABCD")
    ]
    assert forms(web, "/code")[0]["audience"] == "https://api/"
    assert forms(web)[0]["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code"
    assert login.refreshable
    assert await login.header(force=True) == "Bearer a-2"
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
    await login.login()
    assert [wait for wait in waits if wait >= 5] == [5, 10, 10, 20]


@pytest.mark.parametrize("code", ["access_denied", "invalid_grant", "something_new"])
async def test_a_refused_device_login_ends(web, code):
    """The user's no, and any error that is not known to be temporary, end the login."""
    login = device(web, [])
    web.on("POST /token", pending(code, 400))
    with pytest.raises(NotAuthorizedError, match=code) as error:
        await login.login()
    assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize("how", ["told", "counted"])
async def test_a_device_login_that_nobody_confirms_times_out(web, how):
    """By the provider's expired_token, or by its expires_in."""
    login = device(web, [], expires_in=0.1 if how == "counted" else 60)
    web.on("POST /token", pending("expired_token" if how == "told" else "authorization_pending"))
    with pytest.raises(WaitTimeoutError, match="Nobody confirmed the login at https://idp/device"):
        await login.login()


async def test_a_device_login_without_refresh_token_is_static(web):
    """A provider that gives none gives a token for its own life only."""
    login = device(web, [])
    web.on("POST /token", granted())
    assert await login.header() == "Bearer a-1"
    assert not login.refreshable
