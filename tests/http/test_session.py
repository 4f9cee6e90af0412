"""A session: URLs, retries by declaration, refusals, bounds, and where the token goes."""

import asyncio
import gc
import gzip
import logging
import pickle
import time
import warnings
from contextlib import AsyncExitStack

import httpx
import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

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

BUSY = Response(status_code=503, headers={"Retry-After": "0"})


@pytest.mark.parametrize("base", ["", "/", "/prefix", "/prefix/"])
async def test_a_base_url_may_have_a_prefix_and_a_slash(web, base):
    """Paths are joined with one slash, below the prefix."""
    web.on(f"GET {base.rstrip('/')}/1/x", {"ok": True})
    async with Session(web.url + base, platform="IVCAP") as session:
        assert (await session.request("GET", "/1/x", repeat="idempotent")).json() == {"ok": True}


@pytest.mark.parametrize(
    "url", ["", "api.example", "ftp://h", "http://", "https://u:p@h", "https://h/?a=1", "http://h:port"]
)
def test_a_wrong_base_url_is_refused_at_once(url):
    """A configuration error, which does not repeat a password."""
    with pytest.raises(ConfigurationError) as error:
        Session(url, platform="IVCAP")
    assert "u:p" not in str(error.value)


async def test_parameters_are_written_as_the_api_reads_them(web):
    """None is left out, booleans are lower case, and the path's own query stays."""
    web.on("GET /1/x", {})
    async with web.session() as session:
        await session.request("GET", "/1/x?sig=a%2Bb", params={"a": True, "b": None, "c": 3}, repeat="idempotent")
    assert web.seen[0].query == {"sig": "a+b", "a": "true", "c": "3"}


async def test_an_idempotent_request_outlives_failures(web, quick):
    """503 twice, then the answer; a reset connection too."""
    web.on("GET /1/x", BUSY, BUSY, {"n": 1})
    async with web.session() as session:
        assert (await session.request("GET", "/1/x", repeat="idempotent")).json() == {"n": 1}
    assert len(web.seen) == 3


async def test_a_reset_and_a_truncated_reply_are_tried_again(wire, quick):
    """No reply and half a reply are both transient."""
    wire.answers = [
        None,
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ]
    async with wire.session() as session:
        assert (await session.request("GET", "/1/x", repeat="idempotent")).json() == {}
    assert len(wire.requests) == 3


@pytest.mark.parametrize("repeat", ["keyed", "unsafe"])
async def test_an_ambiguous_failure_of_a_write_is_not_repeated(web, wire, quick, repeat):
    """After 503 or a reset the effect may exist: one send, and `sent` says so."""
    web.on("POST /1/x", BUSY)
    async with web.session() as session:
        with pytest.raises(UnavailableError) as unavailable:
            await session.request("POST", "/1/x", json={}, repeat=repeat)
    wire.answers = [None]
    async with wire.session() as session:
        with pytest.raises(UnreachableError) as reset:
            await session.request("POST", "/1/x", json={}, repeat=repeat)
    assert (len(web.seen), len(wire.requests)) == (1, 1)
    assert unavailable.value.sent is True
    assert reset.value.sent is True


async def test_a_write_that_was_refused_unprocessed_is_sent_again(web, quick):
    """429 with Retry-After: waited for, then sent; the body is the same."""
    web.on("POST /1/x", Response(status_code=429, headers={"Retry-After": "0"}), {"id": 1})
    async with web.session() as session:
        await session.request("POST", "/1/x", json={"a": 1}, repeat="keyed")
    assert [seen.body for seen in web.seen] == [b'{"a":1}'] * 2


async def test_a_failed_connection_is_tried_again_within_the_budget(quick):
    """Nobody listens: several attempts, then UnreachableError with sent False."""
    silent = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    silent.close()
    await silent.wait_closed()
    async with Session(f"http://127.0.0.1:{port}", platform="IVCAP", budget=0.2) as session:
        with pytest.raises(UnreachableError) as error:
            await session.request("POST", "/1/x", json={}, repeat="keyed")
    assert error.value.sent is False
    assert error.value.retryable


async def test_retry_after_is_waited_for(web):
    """The server's second is a second, and longer than our own first wait."""
    web.on("GET /1/x", Response(status_code=429, headers={"Retry-After": "1"}), {})
    began = time.monotonic()
    async with web.session() as session:
        await session.request("GET", "/1/x", repeat="idempotent")
    assert time.monotonic() - began >= 1.0


async def test_a_retry_after_beyond_the_budget_ends_at_once(web):
    """The error tells when to come back instead of waiting for it."""
    web.on("GET /1/x", Response(status_code=503, headers={"Retry-After": "3600"}))
    began = time.monotonic()
    async with web.session(budget=60) as session:
        with pytest.raises(UnavailableError) as error:
            await session.request("GET", "/1/x", repeat="idempotent")
    assert error.value.retry_after == 3600
    assert time.monotonic() - began < 30


async def test_a_silent_server_times_out(web):
    """The time-out is explicit; a write that met it may have been processed."""

    async def slow(request):
        await asyncio.sleep(2)
        return Response()

    web.on("POST /1/x", slow)
    async with web.session(timeout=0.2, budget=0) as session:
        with pytest.raises(UnreachableError) as error:
            await session.request("POST", "/1/x", json={}, repeat="keyed")
    assert error.value.sent is True


async def test_a_refusal_is_final(web):
    """404 is asked once and names the path without its query."""
    async with web.session() as session:
        with pytest.raises(NotFoundError, match="IVCAP answered 404 to GET /1/nothing: nothing at GET /1/nothing") as e:
            await session.request("GET", "/1/nothing?sig=s3cr3t", repeat="idempotent")
    assert "s3cr3t" not in str(e.value) + repr(e.value.data)


async def test_redirects_are_never_followed_blindly(web):
    """A redirect is a violation unless the caller expects it, and the token does not travel."""
    web.on("GET /1/x", Response(status_code=302, headers={"Location": "http://evil.example/"}))
    async with web.session(auth=StaticToken("abc")) as session:
        with pytest.raises(ProtocolError, match="redirects are not followed"):
            await session.request("GET", "/1/x", repeat="idempotent")
        assert (await session.request("GET", "/1/x", repeat="idempotent", expect=(302,))).status == 302


async def test_an_unexpected_success_is_a_violation(web):
    """A 2xx that the contract does not allow is not taken for the expected one."""
    web.on("POST /1/x", Response(status_code=204))
    async with web.session() as session:
        with pytest.raises(ProtocolError, match="status 204: is not one of 200, 202"):
            await session.request("POST", "/1/x", json={}, repeat="keyed", expect=(200, 202))


async def test_a_body_that_is_no_json_is_a_violation(web):
    """An HTML page with status 200 is named as such, not crashed on."""
    web.on("GET /1/x", Response("<html>login</html>", media_type="text/html"))
    async with web.session() as session:
        reply = await session.request("GET", "/1/x", repeat="idempotent")
    with pytest.raises(ProtocolError, match="The reply of IVCAP to GET /1/x is no JSON"):
        reply.json()


WHOLE = '{"a": [1.5e3, "\u00f1 \\"x\\"", true, null], "b": {"c": false}, "d": "Niño"}'.encode()


async def test_json_that_breaks_off_is_asked_for_again(web, quick):
    """Wherever it does; a gateway may frame what it has got as if it were whole."""
    async with web.session() as session:
        for cut in range(1, len(WHOLE)):
            half = Response(WHOLE[:cut], media_type="application/json")
            web.on("GET /1/x", half, Response(WHOLE, media_type="text/x+json"))
            assert (await session.request("GET", "/1/x", repeat="idempotent")).json()["d"] == "Niño", WHOLE[:cut]
    assert len(web.seen) == 2 * (len(WHOLE) - 1)


@pytest.mark.parametrize("repeat", ["keyed", "unsafe"])
async def test_json_that_breaks_off_is_an_answer_to_what_may_not_be_repeated(web, quick, repeat):
    """It took effect, so it is not sent again; whoever reads the reply is told."""
    web.on("POST /1/x", Response(WHOLE[:-5], media_type="application/json"))
    async with web.session() as session:
        reply = await session.request("POST", "/1/x", json={}, repeat=repeat)
        with pytest.raises(ProtocolError, match="is no JSON"):
            reply.json()
    assert len(web.seen) == 1


async def test_a_web_page_in_place_of_json_is_named(web):
    """A portal or proxy that answers with 200 is recognised by what its page is called."""
    page = "<!doctype html><html><head><title>Sign in &amp;\n continue</title></head></html>"
    web.on("GET /1/x", Response(page, media_type="text/html"))
    web.on("GET /1/y", Response("well", media_type="text/plain"))
    async with web.session() as session:
        for path, came in (("/1/x", "a web page with the title 'Sign in & continue'"), ("/1/y", "text/plain")):
            with pytest.raises(ProtocolError, match=f"is no JSON, but {came}"):
                (await session.request("GET", path, repeat="idempotent")).json()


async def test_json_that_always_breaks_off_is_a_violation(web, quick):
    """When the budget is spent; what is wrong in another way is no matter of luck."""
    web.on("GET /1/x", Response(WHOLE[:-5], media_type="application/json"))
    web.on("GET /1/y", Response(b'{"a": b}                  ', media_type="application/json"))
    async with web.session(budget=0.2) as session:
        with pytest.raises(ProtocolError, match="breaks off in the middle of its JSON"):
            await session.request("GET", "/1/x", repeat="idempotent")
        assert len(web.seen) > 2
        with pytest.raises(ProtocolError, match="is no JSON"):
            (await session.request("GET", "/1/y", repeat="idempotent")).json()
        # What users have made may be as it likes.
        assert (await session.request("GET", "/1/x", repeat="idempotent", raw=True)).body == WHOLE[:-5]
    assert len(web.sent("GET /1/y")) == 1


@pytest.mark.parametrize(
    ("body", "headers"),
    [(b"x" * 5000, {}), (gzip.compress(b"x" * 5000), {"Content-Encoding": "gzip"})],
    ids=["long", "inflated"],
)
async def test_a_reply_read_whole_is_bounded(web, monkeypatch, body, headers):
    """An endless body ends in an error, not in the memory, and so does a short one that inflates."""
    monkeypatch.setattr(session_module, "MAX_BODY", 1000)
    web.on("GET /1/x", Response(body, headers=headers))
    async with web.session() as session:
        with pytest.raises(ProtocolError, match="larger than 1000 bytes"):
            await session.request("GET", "/1/x", repeat="idempotent")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
async def test_a_request_that_is_no_json_is_not_sent(web, value):
    """NaN and foreign objects are the caller's fault, told before a byte leaves."""
    async with web.session() as session:
        with pytest.raises(InputError, match="no JSON"):
            await session.request("POST", "/1/x", json={"a": value}, repeat="keyed")
    assert web.seen == []


@pytest.mark.parametrize("part", ["json", "params", "data"])
async def test_half_a_surrogate_pair_is_not_sent(web, part):
    """It is refused by name in a body, a parameter and a form, and the error does not carry the rest of the request."""
    async with web.session() as session:
        with pytest.raises(InputError, match="half a surrogate pair") as caught:
            await session.request("POST", "/1/x", repeat="keyed", **{part: {"secret": "quiet", "a": "x\ud800"}})
    assert web.seen == []
    assert part == "params" or (caught.value.__cause__ is None and "quiet" not in str(caught.value))


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "Niño"])
async def test_a_header_cannot_smuggle(web, value):
    """Line breaks and characters beyond ASCII in a header are refused before sending."""
    web.on("GET /1/x", {})
    async with web.session() as session:
        with pytest.raises(InputError):
            await session.request("GET", "/1/x", headers={"X-Name": value}, repeat="idempotent")
    assert web.seen == []


@pytest.mark.parametrize(
    ("base", "url", "expected"),
    [
        ("https://h", "https://h/1/a/blob?sig=a%2Bb", "/1/a/blob?sig=a%2Bb"),
        ("https://h/", "https://H:443/1/a", "/1/a"),
        ("https://h", "http://h/1/a", "/1/a"),
        ("https://h/ivcap", "https://h/ivcap/1/a", "/1/a"),
        ("https://h/ivcap/", "https://h/1/a", "/1/a"),
        ("https://h", "/1/a?b=c", "/1/a?b=c"),
        ("http://h:8080", "http://h:8080/1/a", "/1/a"),
    ],
)
def test_an_own_url_is_joined_to_the_base(base, url, expected):
    """Same host: path and query, below the base's prefix whether or not the URL has it."""
    assert Session(base, platform="IVCAP").own(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/1/a",
        "//evil.example/1/a",
        "https://h.evil.example/1/a",
        "https://h:8443/1/a",
        "https://h@evil.example/1/a",
        "file:///etc/passwd",
        "http://[broken",
    ],
)
def test_a_foreign_url_is_refused(url):
    """Another host, port or scheme in a URL that the server gave is never followed."""
    with pytest.raises(ProtocolError, match="not followed"):
        Session("https://h", platform="IVCAP").own(url)


def test_inside_a_container_external_urls_lead_to_the_sidecar():
    """Where hosts are rewritten, any host is the base URL's."""
    session = Session("http://ivcap.local", platform="IVCAP", rewrite_hosts=True)
    assert session.own("https://api.example.org/1/a?b=c") == "/1/a?b=c"


async def test_the_token_never_goes_to_another_host(web, wire):
    """A trusted host is followed without the token."""
    wire.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    web.on("GET /1/x", {})
    async with web.session(auth=StaticToken("s3cr3t"), trusted_hosts=["127.0.0.1"]) as session:
        await session.request("GET", "/1/x", repeat="idempotent")
        await session.request("GET", session.own(wire.url + "/blob"), repeat="idempotent")
    assert web.seen[0].headers["authorization"] == "Bearer s3cr3t"
    assert b"authorization" not in wire.requests[0].lower()


async def test_no_log_repr_or_error_shows_the_token(web, quick, caplog):
    """Neither on retries nor on a 401 that echoes it."""
    caplog.set_level(logging.DEBUG)
    web.on("GET /1/x", BUSY, JSONResponse({"message": "bad token s3cr3t"}, 401))
    async with web.session(auth=StaticToken("s3cr3t")) as session:
        with pytest.raises(NotAuthorizedError) as error:
            await session.request("GET", "/1/x", repeat="idempotent")
    shown = caplog.text + repr(session) + repr(session.auth) + str(error.value) + repr(error.value.data)
    assert "s3cr3t" not in shown
    assert "Trying again in" in caplog.text


async def test_the_cause_of_an_error_has_no_token():
    """Dask pickles the causes of an error, too, and an exception of httpx refers to its request."""
    async with Session("http://127.0.0.1:9", platform="IVCAP", budget=0.0, auth=StaticToken("s3cr3t")) as session:
        with pytest.raises(UnreachableError) as error:
            await session.request("GET", "/1/x", repeat="idempotent")
    cause = error.value.__cause__
    assert isinstance(cause, httpx.RequestError) and cause.request.method == "GET"
    assert b"s3cr3t" not in pickle.dumps(cause)


async def test_an_unreachable_platform_is_said_once_after_seconds(web, quick, caplog, monkeypatch):
    """By its own address and not by what happened to be asked; the retries go on, and a later outage is said again."""
    monkeypatch.setattr(session_module, "_SAID_AFTER", 0.0)
    caplog.set_level(logging.WARNING)
    gone = "http://127.0.0.1:9"
    async with Session(gone, platform="IVCAP", budget=0.3) as session:
        for _ in range(2):
            with pytest.raises(UnreachableError, match=f"^IVCAP at {gone} cannot be reached: ") as error:
                await session.request("GET", "/1/x", repeat="idempotent")
    assert "/1/x" not in str(error.value)
    [said] = caplog.messages
    assert said.startswith(str(error.value)) and "Trying again for up to" in said
    caplog.clear()
    web.on("GET /1/y", BUSY, BUSY, {}, BUSY, {})
    async with web.session() as session:
        for _ in range(2):
            assert (await session.request("GET", "/1/y", repeat="idempotent")).status == 200
    assert len(caplog.messages) == 2


async def test_a_proxy_is_not_asked_for_this_machine(web, monkeypatch):
    """HTTP_PROXY does not stand between us and a platform on loopback."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    web.on("GET /1/x", {})
    async with web.session(budget=0) as session:
        assert (await session.request("GET", "/1/x", repeat="idempotent")).status == 200


async def test_a_proxy_of_the_environment_is_used_for_others(wire, monkeypatch):
    """Other hosts are reached as httpx reaches them, through the proxy."""
    monkeypatch.setenv("HTTP_PROXY", wire.url)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    wire.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"]
    async with Session("http://ivcap.invalid", platform="IVCAP") as session:
        await session.request("GET", "/1/x", repeat="idempotent")
    assert wire.requests[0].startswith(b"GET http://ivcap.invalid/1/x HTTP/1.1")


async def test_a_proxy_that_cannot_be_used_is_named_however_often(monkeypatch):
    """Not its password; and no try takes a place from the next."""
    for name in ("http_proxy", "no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", "socks4://me:s3cr3t-word@gate:1080")
    async with Session("http://ivcap.invalid", platform="IVCAP", timeout=0.2) as session:
        for _ in range(2 * pool.AT_ONCE):
            with pytest.raises(ConfigurationError, match="proxy .*socks4://.*gate:1080.*NO_PROXY") as error:
                await session.request("GET", "/1/x", repeat="idempotent")
    assert "s3cr3t" not in str(error.value)


async def test_a_no_proxy_that_cannot_be_read_is_named(monkeypatch):
    """As what it is: the proxies are right."""
    for name in ("http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "gate:3128")
    monkeypatch.setenv("NO_PROXY", "localhost,host:port")
    async with Session("http://ivcap.invalid", platform="IVCAP", timeout=0.2) as session:
        with pytest.raises(ConfigurationError, match="NO_PROXY cannot be read.*port.*localhost,host:port"):
            await session.request("GET", "/1/x", repeat="idempotent")


async def test_certificates_that_cannot_be_read_are_named(monkeypatch, tmp_path):
    """The variable and the path."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    async with Session("https://ivcap.invalid", platform="IVCAP") as session:
        with pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE=.*missing\.pem.*unset it"):
            await session.request("GET", "/1/x", repeat="idempotent")


async def test_a_cookie_comes_back_to_the_host_that_set_it(web):
    """A gateway may tell by it which of its servers has an upload."""
    web.on("GET /1/x", Response(headers={"Set-Cookie": "server=7; Path=/"}), Response())
    async with web.session() as session:
        await session.request("GET", "/1/x", repeat="idempotent")
        await session.request("GET", "/1/x", repeat="idempotent")
    assert [seen.headers.get("cookie") for seen in web.seen] == [None, "server=7"]


async def test_an_encoded_reply_is_decoded(web):
    """Compressed on the wire or not, the body is the same."""
    web.on("GET /1/x", Response(gzip.compress(b'{"n": 1}'), headers={"Content-Encoding": "gzip"}))
    async with web.session() as session:
        assert (await session.request("GET", "/1/x", repeat="idempotent")).json() == {"n": 1}


def test_a_session_may_move_to_another_loop(web):
    """Connections of a loop that is gone are not used again."""
    web.on("GET /1/x", {})
    session = web.session()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the first loop's connection goes unclosed, as its loop did
        for _ in range(2):
            assert asyncio.run(session.request("GET", "/1/x", repeat="idempotent")).status == 200
        del session
        gc.collect()


async def test_a_stream_that_is_encoded_is_refused(web):
    """Bytes are stored as they come, so they must not come compressed."""
    web.on("GET /1/x", Response(b"x", headers={"Content-Encoding": "gzip"}))
    async with web.session() as session:
        with pytest.raises(ProtocolError, match="declined"):
            async with session.stream("GET", "/1/x", repeat="idempotent"):
                pass


async def test_a_signed_url_is_asked_as_it_was_given(wire):
    """The query of a server-given URL is not rewritten."""
    wire.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    async with wire.session() as session:
        await session.request("GET", session.own(f"{wire.url}/b?sig=a%2Bb%20c%3D&x=1"), repeat="idempotent")
    assert wire.requests[0].startswith(b"GET /b?sig=a%2Bb%20c%3D&x=1 HTTP/1.1")


async def test_streams_leave_connections_to_all_else(web):
    """As many streams as there are connections for plain requests are held open, and a plain one is answered."""
    held = asyncio.Event()

    async def endless(request):
        async def blocks():
            yield b"first"
            while not held.is_set():
                await asyncio.sleep(0.01)

        return StreamingResponse(blocks())

    web.on("GET /1/events", endless)
    web.on("GET /1/x", {"ok": True})
    async with web.session(timeout=20, budget=10) as session, AsyncExitStack() as open_streams:
        for _ in range(32):
            await open_streams.enter_async_context(session.stream("GET", "/1/events", repeat="idempotent"))
        try:
            assert (await session.request("GET", "/1/x", repeat="idempotent")).json() == {"ok": True}
        finally:
            held.set()


async def test_too_many_at_once_are_told_so(web, monkeypatch):
    """The network is not to blame when this client has no connection left."""
    monkeypatch.setattr(pool, "STREAMS_AT_ONCE", 1)
    web.on("GET /1/x", {"ok": True})
    async with web.session(timeout=0.1, budget=0.1) as session, session.stream("GET", "/1/x", repeat="idempotent"):
        with pytest.raises(UnreachableError, match="all connections of this client.* Do less at once") as error:
            async with session.stream("GET", "/1/x", repeat="idempotent"):
                pass
    assert "network" not in str(error.value)
