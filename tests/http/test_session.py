"""A session: URLs, retries by declaration, refusals, bounds, and where the token goes."""

import asyncio
import gc
import gzip
import logging
import pickle
import time
import warnings

import httpx
import pytest
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import (
    ConfigurationError,
    InputError,
    NotAuthorizedError,
    NotFoundError,
    ProtocolError,
    UnavailableError,
    UnreachableError,
)
from ivcap_flows.http import pool
from ivcap_flows.http import session as session_module
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.http.session import Session

NO_PLATFORM = "http://127.0.0.1:9"
PROXIES = ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


async def get(session, path="/1/x", **options):
    return await session.request("GET", path, repeat="idempotent", **options)


async def test_paths_and_parameters_are_joined_below_the_prefix_of_the_base_url(web):
    """None is left out, booleans are lower case, and the path's own query stays."""
    for base in ("", "/", "/prefix", "/prefix/"):
        web.on(f"GET {base.rstrip('/')}/1/x", {})
        async with Session(web.url + base, platform="IVCAP") as session:
            await get(session, "/1/x?sig=a%2Bb", params={"a": True, "b": None, "c": 3})
    assert [call.query for call in web.calls] == [{"sig": "a+b", "a": "true", "c": "3"}] * 4


@pytest.mark.parametrize(
    "url", ["", "api.example", "ftp://h", "http://", "https://u:p@h", "https://h/?a=1", "http://h:port"]
)
def test_a_wrong_base_url_is_refused_at_once_without_its_password(url):
    with pytest.raises(ConfigurationError) as error:
        Session(url, platform="IVCAP")
    assert "u:p" not in str(error.value)


@pytest.mark.parametrize(
    ("base", "url", "path"),
    [
        ("https://h", "https://h/1/a/blob?sig=a%2Bb", "/1/a/blob?sig=a%2Bb"),
        ("https://h/", "https://H:443/1/a", "/1/a"),
        ("https://h", "http://h/1/a", "/1/a"),
        ("https://h/ivcap", "https://h/ivcap/1/a", "/1/a"),
        ("https://h/ivcap/", "https://h/1/a", "/1/a"),
        ("https://h", "/1/a?b=c", "/1/a?b=c"),
        ("http://h:8080", "http://h:8080/1/a", "/1/a"),
        ("https://h", "https://evil.example/1/a", None),
        ("https://h", "//evil.example/1/a", None),
        ("https://h", "https://h.evil.example/1/a", None),
        ("https://h", "https://h:8443/1/a", None),
        ("https://h", "https://h@evil.example/1/a", None),
        ("https://h", "file:///etc/passwd", None),
        ("https://h", "http://[broken", None),
    ],
)
def test_a_url_that_the_server_gave_leads_to_no_other_host(base, url, path):
    session = Session(base, platform="IVCAP")
    if path is not None:
        assert session.own(url) == path
    else:
        with pytest.raises(ProtocolError, match="not followed"):
            session.own(url)


async def test_the_token_never_goes_to_another_host(web, wire):
    """A trusted host is followed without the token, by the signed URL as it was given."""
    wire.answers = [wire.reply()]
    web.on("GET /1/x", {})
    async with web.session(auth=StaticToken("s3cr3t"), trusted_hosts=["127.0.0.1"]) as session:
        await get(session)
        await get(session, session.own(f"{wire.url}/b?sig=a%2Bb%20c%3D&x=1"))
    assert web.calls[0].headers["authorization"] == "Bearer s3cr3t"
    assert wire.requests[0].startswith(b"GET /b?sig=a%2Bb%20c%3D&x=1 HTTP/1.1")
    assert b"authorization" not in wire.requests[0].lower()


async def test_an_idempotent_request_outlives_failures(wire, quick_retries):
    """A reset, half a reply and a 503."""
    busy, half = wire.reply("503 Busy", Retry_After=0), wire.reply(body=b"{}", Content_Length=10)
    wire.answers = [None, half, busy, busy, wire.reply(body=b"{}")]
    async with wire.session() as session:
        assert (await get(session)).json() == {}
    assert len(wire.requests) == 5


async def test_a_write_that_was_refused_unprocessed_is_sent_again_with_its_whole_body(web, quick_retries):
    async def blocks():
        yield b'{"a":'
        yield b"1}"

    async with web.session() as session:
        for body in ({"json": {"a": 1}}, {"content": blocks}):
            web.on("POST /1/x", Response(status_code=429, headers={"Retry-After": "0"}), {})
            await session.request("POST", "/1/x", repeat="keyed", **body)
    assert [call.content for call in web.calls] == [b'{"a":1}'] * 4


async def test_a_retry_after_beyond_the_budget_ends_at_once(web):
    """The error tells when to come back instead of waiting for it."""
    web.on("GET /1/x", Response(status_code=503, headers={"Retry-After": "3600"}))
    began = time.monotonic()
    async with web.session(budget=60) as session:
        with pytest.raises(UnavailableError) as error:
            await get(session)
    assert error.value.retry_after == 3600
    assert time.monotonic() - began < 30


async def test_a_first_attempt_that_took_longer_than_the_budget_is_repeated(web, quick_retries):
    """As that of a process that was suspended in it, and has found nothing out about the platform."""

    async def never(request):
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
        return Response()

    web.on("GET /1/x", never, {})
    async with web.session(timeout=2.0, budget=0.4) as session:
        assert (await get(session)).json() == {}
    assert len(web.calls) == 2


async def test_an_unreachable_platform_is_said_once_after_seconds(web, quick_retries, caplog, monkeypatch):
    """By its own address and not by what happened to be asked; the retries go on, and a later outage is said again."""
    monkeypatch.setattr(session_module, "_SAID_AFTER", 0.0)
    monkeypatch.setattr(pool, "AT_ONCE", 1)  # a failure leaves its place
    caplog.set_level(logging.WARNING)
    async with Session(NO_PLATFORM, platform="IVCAP", budget=0.3) as session:
        for _ in range(2):
            with pytest.raises(UnreachableError, match=f"^IVCAP at {NO_PLATFORM} cannot be reached: ") as error:
                await session.request("POST", "/1/x", json={}, repeat="keyed")
    assert "/1/x" not in str(error.value) and error.value.retryable and error.value.sent is False
    [said] = caplog.messages
    assert said.startswith(str(error.value)) and "Trying again for up to" in said
    caplog.clear()
    busy = Response(status_code=503, headers={"Retry-After": "0"})
    web.on("GET /1/y", busy, busy, {}, busy, {})
    async with web.session() as session:
        for _ in range(2):
            await get(session, "/1/y")
    assert len(caplog.messages) == 2


async def test_no_log_repr_or_error_shows_the_token(web, quick_retries, caplog):
    """Neither on retries, nor on a 401 that echoes it, nor in the cause of an error, which Dask pickles, too."""
    caplog.set_level(logging.DEBUG)
    busy = Response(status_code=503, headers={"Retry-After": "0"})
    web.on("GET /1/x", busy, JSONResponse({"message": "bad token s3cr3t"}, 401))
    async with web.session(auth=StaticToken("s3cr3t")) as session:
        with pytest.raises(NotAuthorizedError) as error:
            await get(session)
    shown = caplog.text + repr(session) + repr(session.auth) + str(error.value) + repr(error.value.data)
    assert "s3cr3t" not in shown and "Trying again in" in caplog.text
    async with Session(NO_PLATFORM, platform="IVCAP", budget=0.0, auth=StaticToken("s3cr3t")) as session:
        with pytest.raises(UnreachableError) as gone:
            await get(session)
    cause = gone.value.__cause__
    assert isinstance(cause, httpx.RequestError) and cause.request.method == "GET"
    assert b"s3cr3t" not in pickle.dumps(cause)


PAGE = "<!doctype html><html><head><title>Sign in &amp;\n continue</title></head></html>"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (JSONResponse({"message": "no x"}, 404), NotFoundError, "IVCAP answered 404 to GET /1/x: no x"),
        (Response(status_code=302, headers={"Location": "/1/y"}), ProtocolError, "redirects are not followed"),
        (Response(status_code=204), ProtocolError, "status 204: is not one of 200, 202"),
        (Response("<html>", media_type="text/html"), ProtocolError, "The reply of IVCAP to GET /1/x is no JSON"),
        (Response(PAGE, media_type="text/html"), ProtocolError, "a web page with the title 'Sign in & continue'"),
        (Response("well", media_type="text/plain"), ProtocolError, "is no JSON, but text/plain"),
        (Response(b'{"a": b}        ', media_type="application/json"), ProtocolError, "is no JSON"),
    ],
)
async def test_what_is_no_answer_is_named_and_not_asked_for_again(web, answer, error, words):
    """The path without its query, which may be signed."""
    web.on("GET /1/x", answer)
    async with web.session() as session:
        with pytest.raises(error, match=words) as caught:
            (await get(session, "/1/x?sig=s3cr3t", expect=(200, 202))).json()
    assert len(web.calls) == 1 and "s3cr3t" not in str(caught.value) + repr(caught.value.data)


WHOLE = '{"a": [1.5e3, "\u00f1 \\"x\\"", true, null], "b": {"c": false}, "d": "Niño"}'.encode()


async def test_json_that_breaks_off_is_asked_for_again_where_that_may_be(web, quick_retries):
    """A gateway may frame what it has got as if it were whole. What may not be repeated took effect."""
    async with web.session() as session:
        for cut in range(1, len(WHOLE)):
            half = Response(WHOLE[:cut], media_type="application/json")
            web.on("GET /1/x", half, Response(WHOLE, media_type="text/x+json"))
            assert (await get(session)).json()["d"] == "Niño", WHOLE[:cut]
        assert len(web.calls) == 2 * (len(WHOLE) - 1)
    web.on("* /1/x", Response(WHOLE[:-5], media_type="application/json"))
    web.on("GET /1/x")
    async with web.session(budget=0.2) as session:
        with pytest.raises(ProtocolError, match="breaks off in the middle of its JSON"):
            await get(session)
        # What users have made may be as it likes.
        assert (await get(session, raw=True)).body == WHOLE[:-5]
        for repeat in ("keyed", "unsafe"):
            reply = await session.request("POST", "/1/x", json={}, repeat=repeat)
            with pytest.raises(ProtocolError, match="is no JSON"):
                reply.json()
    assert len(web.to("POST /1/x")) == 2


@pytest.mark.parametrize(
    ("body", "headers"),
    [(b"x" * 5000, {}), (gzip.compress(b"x" * 5000), {"Content-Encoding": "gzip"})],
    ids=["long", "inflated"],
)
async def test_an_endless_reply_ends_in_an_error_and_not_in_the_memory(web, monkeypatch, body, headers):
    monkeypatch.setattr(session_module, "MAX_BODY", 1000)
    web.on("GET /1/x", Response(body, headers=headers))
    async with web.session() as session:
        with pytest.raises(ProtocolError, match="larger than 1000 bytes"):
            await get(session)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *(({"json": {"a": value}}, "no JSON") for value in (float("nan"), {1, 2}, object())),
        *(({part: {"s": "quiet", "a": "x\ud800"}}, "half a surrogate pair") for part in ("json", "params", "data")),
        ({"headers": {"X-Name": "a\r\nX-Evil: 1"}}, "header"),
        ({"headers": {"X-Name": "Niño"}}, "beyond ASCII"),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_a_byte_leaves(web, options, words):
    """The error does not carry the rest of the request's body."""
    web.on("POST /1/x", {})
    async with web.session() as session:
        with pytest.raises(InputError, match=words) as caught:
            await session.request("POST", "/1/x", repeat="keyed", **options)
    assert web.calls == []
    cause = caught.value.__cause__
    assert "params" in options or "quiet" not in f"{caught.value}{cause and cause.args}"


async def test_a_proxy_of_the_environment_is_asked_for_other_machines_alone(web, wire, monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", wire.url)
    wire.answers = [wire.reply(body=b"{}")]
    web.on("GET /1/x", {})
    async with web.session(budget=0) as here, Session("http://ivcap.invalid", platform="IVCAP") as there:
        await get(here)
        await get(there)
    assert [request.split(b"\r\n")[0] for request in wire.requests] == [b"GET http://ivcap.invalid/1/x HTTP/1.1"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ALL_PROXY": "socks4://me:s3cr3t-word@gate:1080"}, "proxy .*socks4://.*gate:1080.*NO_PROXY"),
        (
            {"HTTP_PROXY": "gate:3128", "NO_PROXY": "localhost,host:port"},
            "NO_PROXY cannot be read.*port.*localhost,host:port",
        ),
        ({"SSL_CERT_FILE": "/no/such.pem"}, r"SSL_CERT_FILE=/no/such\.pem.*unset it"),
    ],
)
async def test_an_environment_that_cannot_be_used_is_named_however_often(monkeypatch, variables, words):
    """Not its password; and no try takes a place from the next."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with Session("https://ivcap.invalid", platform="IVCAP", timeout=0.2) as session:
        for _ in range(2 * pool.AT_ONCE):
            with pytest.raises(ConfigurationError, match=words) as error:
                await get(session)
    assert "s3cr3t" not in str(error.value)


async def test_a_reply_may_be_compressed_and_a_stream_may_not(web):
    """Its bytes are stored as they come."""
    web.on("GET /1/x", Response(gzip.compress(b'{"n": 1}'), headers={"Content-Encoding": "gzip"}))
    async with web.session() as session:
        assert (await get(session)).json() == {"n": 1}
        with pytest.raises(ProtocolError, match="declined"):
            async with session.stream("GET", "/1/x", repeat="idempotent"):
                pass


def test_a_session_may_move_to_another_loop(web):
    """Connections of a loop that is gone are not used again."""
    web.on("GET /1/x", {})
    session = web.session()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the first loop's connection goes unclosed, as its loop did
        for _ in range(2):
            assert asyncio.run(get(session)).status == 200
        del session
        gc.collect()
