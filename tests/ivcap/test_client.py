"""The client itself: whose account and which platform it is, and what no request may carry out of it."""

import asyncio

import jwt
import pytest
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import BadRequestError, ConfigurationError, InputError, PlatformError, ProtocolError
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.http.session import Session
from ivcap_flows.ivcap.client import IvcapClient

A = "urn:ivcap:artifact:"
EMBEDDED = {"instance": "urn:ivcap-flows:embedded:1", "visibility_delay": 2}


def client_of(scripted, **options):
    return IvcapClient(scripted.url, StaticToken("t0ken"), **options)


@pytest.mark.parametrize(
    ("claims", "account", "name"),
    [
        ({"acc": "45a0", "name": "Reef group", "nickname": "reef"}, "urn:ivcap:account:45a0", "Reef group"),
        ({"acc": "urn:ivcap:account:45a0", "nickname": "reef"}, "urn:ivcap:account:45a0", "reef"),
        ({"acc": "45a0"}, "urn:ivcap:account:45a0", None),
    ],
)
async def test_the_account_and_its_name_are_the_tokens(scripted, claims, account, name):
    """Without a request."""
    async with IvcapClient(scripted.url, StaticToken(jwt.encode(claims, "k" * 32))) as client:
        assert (await client.account(), await client.account_name()) == (account, name)
    assert scripted.calls == []


def owned(account, policy="base.artifact"):
    return {"account": f"urn:ivcap:account:{account}", "policy": f"urn:ivcap:policy:ivcap.{policy}"}


OPEN = owned("other", "open.artifact")
ORDERS = [{"account": f"urn:ivcap:account:{name}"} for name in ("own", "other")]


@pytest.mark.parametrize(
    ("artifacts", "orders", "found"),
    [
        ([], [], False),
        ([{"account": "urn:ivcap:account:own"}], [], True),
        ([OPEN], [OPEN], False),
        ([OPEN, owned("own")], [], True),
        ([], ORDERS[:1], True),
        ([], ORDERS, False),
    ],
    ids=["nothing", "an artifact", "open to all", "one that is not", "orders of one", "orders of several"],
)
async def test_the_account_of_an_opaque_token_is_that_of_records_that_are_surely_its_own(
    client, scripted, artifacts, orders, found
):
    """Others have opened theirs to all, and orders do not say who sees them. An error is better than a guess."""
    read = [{"id": f"{A}{n}", "status": "ready", **of} for n, of in enumerate(artifacts)]
    # A list does not tell everything of what is read.
    shown = [each if "open" in each.get("policy", "") else {"id": each["id"], "status": "ready"} for each in read]
    scripted.on("GET /1/artifacts", scripted.page(*shown))
    scripted.on("GET /1/orders", scripted.page(*({"id": f"o{n}", "status": "x", **of} for n, of in enumerate(orders))))
    for each in read:
        scripted.on(f"GET /1/artifacts/{each['id']}", each)
    if found:
        assert await client.account() == await client.account() == "urn:ivcap:account:own"
    else:
        with pytest.raises(ConfigurationError, match="account cannot be told"):
            await client.account()
    assert await client.account_name() is None


async def test_a_platform_is_known_by_its_url_or_as_embedded_by_its_instance(scripted):
    """This machine alone is asked, once for all who begin at once, and without the token."""
    scripted.on("GET /_embedded", Response(status_code=404), EMBEDDED)
    async with IvcapClient(scripted.url + "/", StaticToken("t0ken")) as client:
        assert (await client.platform(), client.visibility_delay) == (scripted.url, 120)
    async with client_of(scripted) as client:
        assert set(await asyncio.gather(*(client.platform() for _ in range(5)))) == {EMBEDDED["instance"]}
        assert client.visibility_delay == 2
    async with IvcapClient("https://API.Example.invalid/ivcap/", budget=0) as client:
        assert await client.platform() == "https://api.example.invalid/ivcap"
    assert len(scripted.calls) == 2
    assert not any("authorization" in call.headers for call in scripted.calls)


@pytest.mark.parametrize(
    "failure",
    [
        *(Response(status_code=status) for status in (408, 423, 425, 429, 500, 502, 503, 504)),
        Response(b'{"instance": "urn:ivcap-flows:tw', media_type="application/json"),
    ],
    ids=lambda failure: str(failure.status_code),
)
async def test_a_failure_does_not_tell_what_a_platform_is(scripted, failure):
    """It is asked again for as long as all else, and then nothing is taken for known: all keys depend on it."""
    scripted.on("GET /_embedded", failure)
    async with client_of(scripted, budget=0) as client:
        with pytest.raises(PlatformError):
            await client.platform()
    assert len(scripted.calls) == 1
    async with client_of(scripted, budget=0.1) as client:
        with pytest.raises(PlatformError):
            await client.platform()
        scripted.on("GET /_embedded", EMBEDDED)
        assert await client.platform() == EMBEDDED["instance"]
    scripted.on("GET /_embedded", failure, failure, EMBEDDED)
    async with client_of(scripted) as client:
        assert await client.platform() == EMBEDDED["instance"]


@pytest.mark.parametrize(
    "answer",
    [
        *(Response(status_code=status) for status in (204, 302, 400, 401, 403, 405, 407)),
        Response("<html>Log in</html>", media_type="text/html"),
        *map(JSONResponse, ({"instance": EMBEDDED["instance"]}, {"instance": 7, "visibility_delay": 2}, {}, [])),
    ],
    ids=lambda answer: str(answer.status_code),
)
async def test_an_answer_of_something_else_is_no_answer(scripted, answer):
    """A proxy or a login page between here and the platform is named, with what to do."""
    scripted.on("GET /_embedded", answer)
    async with client_of(scripted, budget=0.1) as client:
        with pytest.raises(ProtocolError, match="See what answers there"):
            await client.platform()


@pytest.mark.parametrize("urn", ["", "a b", "../artifacts/a", "a?x=1", "a#b", "..%2Fa", "a\\b"])
async def test_an_id_cannot_leave_its_path(client, scripted, urn):
    """What a gateway could read as another path is no id, and costs no request."""
    for ask in (client.orders.read, client.artifacts.read, client.aspects.read, client.services.read):
        with pytest.raises(InputError, match="The id must be"):
            await ask(urn)
    assert scripted.calls == []


async def test_a_refusal_keeps_the_platforms_words(client, scripted):
    """The message names call and reason; the token stays out of every text."""
    scripted.on("POST /1/orders", JSONResponse({"message": "bad token t0ken"}, 400, {"goa-error": "bad-request"}))
    with pytest.raises(BadRequestError, match="IVCAP answered 400 to POST /1/orders: bad token") as error:
        await client.orders.place("urn:ivcap:service:s", {})
    assert "t0ken" not in str(error.value) + repr(error.value.data) + repr(client)
    assert error.value.code == "bad-request"


async def test_inside_a_container_the_sidecar_serves_the_bytes(scripted, tmp_path):
    """An external data-href is reached through the base URL, query included, without a token."""
    href = "https://api.example.org/1/artifacts/a/blob?sig=x"
    scripted.on(f"GET /1/artifacts/{A}a", {"id": f"{A}a", "status": "ready", "size": 3, "data-href": href})
    scripted.on("GET /1/artifacts/a/blob", Response(b"abc"))
    async with IvcapClient(scripted.url, in_container=True) as client:
        assert (await client.artifacts.download(f"{A}a", tmp_path / "out")).size == 3
    assert scripted.calls[1].query == {"sig": "x"}
    assert all("authorization" not in call.headers for call in scripted.calls)


async def test_a_host_header_in_the_place_of_the_urls(scripted):
    """It goes to the platform with each call, and links to that host are read as the platform's own."""
    session = Session(scripted.url, platform="IVCAP", host="ivcap.example.org")
    async with IvcapClient(session) as client:
        scripted.on("GET /1/queues", scripted.page())
        assert [queue async for queue in client.queues.list()] == []
    assert scripted.calls[0].headers["host"] == "ivcap.example.org"
    assert session.own("http://ivcap.example.org/1/x?y=1") == "/1/x?y=1"
    with pytest.raises(ProtocolError):
        session.own("http://other.example.org/1/x")
