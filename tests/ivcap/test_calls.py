"""What the client sends and how it reads the replies, the odd ones included."""

import asyncio
from datetime import datetime, timezone

import jwt
import pytest
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import (
    BadRequestError,
    ConfigurationError,
    ForbiddenError,
    InputError,
    NotFoundError,
    NotUniqueError,
    PlatformError,
    ProtocolError,
    UnavailableError,
)
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.ivcap.client import IvcapClient

A, S, J, O = "urn:ivcap:artifact:a", "urn:ivcap:service:s", "urn:ivcap:job:j", "urn:ivcap:order:o"  # noqa: E741
JOBS = f"/1/services2/{S}/jobs"
POLICY = "urn:ivcap:policy:p"


def listing(*items, following=None):
    links = [{"rel": "next", "type": "application/json", "href": following}] if following else []
    return {"items": list(items), "links": links, "at-time": "2026-06-01T00:00:00Z"}


def named(*names):
    return [{"id": f"urn:ivcap:service:{n}", "name": name, "controller-schema": "x"} for n, name in enumerate(names)]


async def test_create_sends_the_metadata_in_headers(client, scripted):
    """The name is base64, so any name travels; the body is empty; the call is sent once."""
    scripted.on("POST /1/artifacts", JSONResponse({"id": A, "status": "pending", "links": []}, 201))
    await client.artifacts.create(
        name="Niño", media_type="text/csv", size=8, policy=POLICY, collection="urn:ivcap:collection:c"
    )
    headers = scripted.calls[0].headers
    assert headers["x-name"] == "TmnDsW8="
    assert (headers["x-content-type"], headers["x-content-length"], headers["content-length"]) == ("text/csv", "8", "0")
    assert (headers["x-policy"], headers["x-collection"]) == (POLICY, "urn:ivcap:collection:c")
    assert headers["tus-resumable"] == "1.0.0"
    assert headers["authorization"] == "Bearer t0ken"


async def test_urns_are_checked_before_they_are_sent(client, scripted):
    """A policy or an id that cannot be one costs no request."""
    with pytest.raises(InputError, match="policy must be a URN beginning with urn:ivcap:policy:"):
        await client.artifacts.create(name="x", media_type="text/csv", size=1, policy="open")
    with pytest.raises(InputError):
        await client.artifacts.read("")
    with pytest.raises(InputError):
        await client.orders.place("a b", {})
    assert scripted.calls == []


@pytest.mark.parametrize("urn", ["../artifacts/a", "a?x=1", "a#b", "..%2Fa", "a\\b"])
async def test_an_id_cannot_leave_its_path(client, scripted, urn):
    """What a gateway could read as another path is no id."""
    with pytest.raises(InputError, match="The id must be"):
        await client.orders.read(urn)
    assert scripted.calls == []


@pytest.mark.parametrize("href", ["https://storage.example/x?sig=s3cr3t", "http://127.0.0.1:1/blob"])
async def test_a_foreign_data_href_is_refused(client, scripted, href, tmp_path):
    """Neither bytes nor token go to another host."""
    scripted.on(f"GET /1/artifacts/{A}", {"id": A, "status": "ready", "size": 3, "data-href": href, "links": []})
    with pytest.raises(ProtocolError, match="not the platform's") as error:
        await client.artifacts.download(A, tmp_path / "out")
    assert "s3cr3t" not in str(error.value) + repr(error.value.data)


async def test_inside_a_container_the_sidecar_serves_the_bytes(scripted, tmp_path):
    """An external data-href is reached through the base URL, query included, without a token."""
    href = "https://api.example.org/1/artifacts/a/blob?sig=x"
    scripted.on(f"GET /1/artifacts/{A}", {"id": A, "status": "ready", "size": 3, "data-href": href, "links": []})
    scripted.on("GET /1/artifacts/a/blob", Response(b"abc"))
    async with IvcapClient(scripted.url, in_container=True) as client:
        assert (await client.artifacts.download(A, tmp_path / "out")).size == 3
    assert scripted.calls[1].query == {"sig": "x"}
    assert all("authorization" not in call.headers for call in scripted.calls)


@pytest.mark.parametrize("status", ["pending", "partial", "error"])
async def test_an_unfinished_artifact_is_not_downloaded(client, scripted, status, tmp_path):
    """Half an artifact is not taken for a whole one."""
    scripted.on(f"GET /1/artifacts/{A}", {"id": A, "status": status, "links": [], "data-href": "/1/artifacts/a/blob"})
    with pytest.raises(InputError, match=f"its status is {status}"):
        await client.artifacts.download(A, tmp_path / "out")


async def test_an_order_is_sent_once(client, scripted):
    """The body as the API has it; an answer that leaves in doubt is not followed by a second order."""
    scripted.on("POST /1/orders", Response(status_code=503))
    with pytest.raises(UnavailableError) as error:
        await client.orders.place(S, {"a": "1"}, name="n", tags=["t"], policy=POLICY)
    assert [call.body for call in scripted.calls] == [
        {"service": S, "parameters": [{"name": "a", "value": "1"}], "name": "n", "tags": ["t"], "policy": POLICY}
    ]
    assert error.value.sent is True


async def test_an_order_reply_without_id_is_a_violation(client, scripted):
    """A reply that names no order is not taken for one."""
    scripted.on("POST /1/orders", {"status": "pending"})
    with pytest.raises(ProtocolError, match="OrderRecord: wrong or missing id") as error:
        await client.orders.place(S, {})
    assert error.value.sent is True


async def test_all_products_are_read(client, scripted):
    """Every page, not the first ten."""
    scripted.on(
        f"GET /1/orders/{O}/products",
        listing({"id": A, "status": "ready"}, following="?page=c"),
        listing({"id": A + "2", "status": "ready"}),
    )
    assert [product.urn async for product in client.orders.products(O)] == [A, A + "2"]


@pytest.mark.parametrize(
    ("log", "tail"),
    [
        (b"", ""),
        (b"one\ntwo\nthree\n", "two\nthree"),
        (b"one\r\ntwo\r\nthree", "two\nthree"),
        (b"x" * 100_000 + b"\nlast\n", "x" * 4096 + "\nlast"),
        (b"".join(b"%d\n" % n for n in range(200_000)), "199998\n199999"),
        (b"\xff\n", "\ufffd"),
    ],
    ids=["empty", "lines", "crlf", "long line", "long log", "binary"],
)
async def test_the_tail_of_a_log(client, scripted, log, tail):
    """The last lines, each bounded, however long the log is."""
    scripted.on(f"GET /1/orders/{O}/logs", Response(log, media_type="text/plain"))
    assert await client.orders.log_tail(O, lines=2) == tail


async def test_a_job_is_requested_without_waiting(client, scripted):
    """202: the id, and when to ask again."""
    scripted.on(f"POST {JOBS}", JSONResponse({"job-id": J, "location": "x", "retry-later": 10}, 202))
    record = await client.jobs.request(S, {"a": 1})
    assert (record.urn, record.service, record.status, record.retry_later) == (J, S, "pending", 10)
    assert scripted.calls[0].headers["timeout"] == "0"
    assert scripted.calls[0].body == {"a": 1}


async def test_a_job_without_id_is_named_by_its_location(client, scripted):
    """The id is optional in the API; the location ends with it."""
    location = "https://h/1/services2/s/jobs/urn%3Aivcap%3Ajob%3Aj/"
    scripted.on(f"POST {JOBS}", JSONResponse({"location": location, "retry-later": 1}, 202))
    assert (await client.jobs.request(S, {})).urn == J


async def test_a_job_may_end_before_the_reply(client, scripted):
    """200: the result is the body, the ids are headers."""
    headers = {"IVCAP-Job-Id": J, "IVCAP-Order-Id": O, "Content-Type": "application/vnd.ivcap.urn:x"}
    scripted.on(f"POST {JOBS}", Response(b'{"out": 1}', headers=headers))
    record = await client.jobs.request(S, {})
    assert (record.urn, record.order, record.status, record.result_content) == (J, O, "succeeded", {"out": 1})
    scripted.on(f"POST {JOBS}", Response(b"\x89PNG", headers=headers | {"Content-Type": "image/png"}))
    assert (await client.jobs.request(S, {})).result_content is None


async def test_a_307_is_followed_with_method_and_body(client, scripted):
    """Within the platform only, and not for ever."""
    moved = {"Location": f"{scripted.url}/1/elsewhere?x=1"}
    scripted.on(f"POST {JOBS}", Response(status_code=307, headers=moved))
    scripted.on("POST /1/elsewhere", JSONResponse({"job-id": J, "location": "x", "retry-later": 1}, 202))
    await client.jobs.request(S, {"a": 1})
    [call] = scripted.to("POST /1/elsewhere")
    assert (call.body, call.headers["timeout"], call.query) == ({"a": 1}, "0", {"x": "1"})
    scripted.on(f"POST {JOBS}", Response(status_code=307, headers={"Location": "http://evil.example/"}))
    with pytest.raises(ProtocolError, match=r"evil\.example"):
        await client.jobs.request(S, {})
    scripted.on(f"POST {JOBS}", Response(status_code=307, headers={"Location": JOBS}))
    with pytest.raises(ProtocolError, match="more than 3 times"):
        await client.jobs.request(S, {})


async def test_a_jobs_documents_are_read_on_demand(client, scripted):
    """Both are asked for explicitly, as servers differ in their defaults."""
    scripted.on(f"GET {JOBS}/{J}", {"id": J, "status": "failed", "error-message": "no", "service": S, "order": O})
    record = await client.jobs.read(S, J, with_request=True, with_result=False)
    assert scripted.calls[0].query == {"with-request-content": "true", "with-result-content": "false"}
    assert record.handle("p").error_message == "no"


async def test_the_service_of_a_job_is_found_under_either_spelling(client, scripted):
    """`schema:job.2`, else `schema.job.2`; none is an error that names the job."""
    aspect = {"id": "x", "entity": J, "schema": "s", "content-type": "application/json", "content": {"service-id": S}}
    scripted.on("GET /1/aspects", listing(), listing(aspect))
    assert await client.jobs.service_of(J) == S
    assert [call.query["schema"] for call in scripted.calls] == ["urn:ivcap:schema:job.2", "urn:ivcap:schema.job.2"]
    scripted.on("GET /1/aspects", listing())
    with pytest.raises(NotFoundError, match=J):
        await client.jobs.service_of(J)


async def test_output_is_bytes_or_none(client, scripted):
    """A 204 is no result yet."""
    scripted.on(f"GET {JOBS}/{J}/output", Response(status_code=204), Response(b"\x89PNG", media_type="image/png"))
    assert await client.jobs.output(S, J) is None
    found = await client.jobs.output(S, J)
    assert (found.media_type, found.content) == ("image/png", b"\x89PNG")


async def test_update_falls_back_to_add(client, scripted):
    """Deployments that allow only adding answer 403 or 404 to PUT. What is replaced is retracted, if there is one."""
    scripted.on("POST /1/aspects", {"id": "urn:ivcap:aspect:1"})
    scripted.on("GET /1/aspects", listing())
    scripted.on("PUT /1/aspects", Response(status_code=403))
    assert await client.aspects.update("urn:e", "urn:s", {"a": 1}) == "urn:ivcap:aspect:1"
    assert scripted.to("POST /1/aspects")[0].query == {"entity": "urn:e", "schema": "urn:s"}
    scripted.on("PUT /1/aspects", Response(status_code=424))
    with pytest.raises(NotUniqueError):
        await client.aspects.update("urn:e", "urn:s", {"a": 1})
    scripted.on("PUT /1/aspects", Response(status_code=403))
    scripted.on("POST /1/aspects", Response(status_code=403))
    with pytest.raises(ForbiddenError):
        await client.aspects.update("urn:e", "urn:s", {"a": 1})


async def test_aspects_are_listed_with_all_filters(client, scripted):
    """Names as the API declares them; a naive time is refused, as a server would read it as another."""
    scripted.on("GET /1/aspects", listing())
    at = datetime(2026, 6, 1, tzinfo=timezone.utc)
    path = "$ ? (@.n == 1)"
    assert [a async for a in client.aspects.list(entity="urn:e", schema="urn:s%", content_path=path, at_time=at)] == []
    assert scripted.calls[0].query == {
        "entity": "urn:e",
        "schema": "urn:s%",
        "content-path": path,
        "at-time": "2026-06-01T00:00:00Z",
        "order-by": "valid_from",
        "order-direction": "DESC",
        "include-content": "true",
        "limit": "50",
    }
    with pytest.raises(InputError, match="no offset"):
        client.aspects.list(at_time=datetime(2026, 6, 1))


@pytest.mark.parametrize("content", [{"a": 1}, [1], "x", 3, None, True])
async def test_any_json_is_content(client, scripted, content):
    """Content goes out as it is, and comes back as it was."""
    scripted.on("POST /1/aspects", {"id": "1"})
    assert await client.aspects.add("urn:e", "urn:s", content) == "urn:ivcap:aspect:1"
    assert scripted.calls[0].body == content
    scripted.on("GET /1/aspects/1", {"id": "1", "entity": "urn:e", "schema": "urn:s", "content": content})
    assert (await client.aspects.read("1")).content == content


async def test_a_service_is_found_by_its_exact_name(client, scripted):
    """On any page, among names that contain it; then it is read with its parameters."""
    scripted.on(
        "GET /1/services2", listing(*named("echo-2", "my echo"), following="?page=c"), listing(*named("x", "y", "echo"))
    )
    scripted.on("GET /1/services2/urn:ivcap:service:2", {"id": "urn:ivcap:service:2", "name": "echo", "parameters": []})
    assert (await client.services.by_name("echo")).urn == "urn:ivcap:service:2"
    assert scripted.calls[0].query["filter"] == "name~='echo'"


async def test_a_platform_without_our_filter_is_listed_whole(client, scripted):
    """A refused filter, or one that finds nothing, is not the last word; odd names are never put into one."""
    everything = listing(*named("it's 100% mine", "Echo"))

    def answer(call):
        return JSONResponse({"message": "bad filter"}, 400) if "filter" in call.query else everything

    scripted.on("GET /1/services2", answer)
    for n in (0, 1):
        scripted.on(f"GET /1/services2/urn:ivcap:service:{n}", {"id": f"urn:ivcap:service:{n}"})
    assert (await client.services.by_name("echo")).urn == "urn:ivcap:service:1"
    assert (await client.services.by_name("it's 100% mine")).urn == "urn:ivcap:service:0"
    assert [call.query.get("filter") for call in scripted.to("GET /1/services2")] == ["name~='echo'", None, None]


async def test_an_ambiguous_or_unknown_name_lists_the_candidates(client, scripted):
    """Two of one name: their URNs. None: the names that are near. Nothing is guessed."""
    scripted.on("GET /1/services2", listing(*named("echo", "echo", "echo-2", "sleep")))
    with pytest.raises(InputError, match="urn:ivcap:service:0, urn:ivcap:service:1"):
        await client.services.by_name("echo")
    with pytest.raises(InputError, match="There is no service named 'ech'. Candidates: 'echo', 'echo-2'"):
        await client.services.by_name("ech")
    with pytest.raises(InputError, match="empty"):
        await client.services.by_name(" ")


async def test_the_request_model_is_read_from_aspects(client, scripted):
    """The tool's description, else the service's own document, else an error."""

    def aspect(**content):
        return listing({"id": "1", "entity": S, "schema": "x", "content": content})

    scripted.on("GET /1/aspects", aspect(fn_schema={"type": "object"}))
    assert await client.services.request_schema(S) == {"type": "object"}
    scripted.on("GET /1/aspects", listing(), aspect(**{"request-schema": {"title": "R"}}))
    assert await client.services.request_schema("s") == {"title": "R"}
    scripted.on("GET /1/aspects", listing())
    with pytest.raises(NotFoundError, match="publishes no request model"):
        await client.services.request_schema(S)


async def test_the_account_is_the_tokens(scripted):
    """The claim `acc`, bare or as a URN, without a request."""
    for claim in ("45a0", "urn:ivcap:account:45a0"):
        token = StaticToken(jwt.encode({"acc": claim}, "k" * 32))
        async with IvcapClient(scripted.url, token) as client:
            assert await client.account() == "urn:ivcap:account:45a0"
    assert scripted.calls == []


async def test_the_name_of_the_account_is_the_tokens(client, scripted):
    """What a person calls it, if the token says so."""
    for said, name in (
        ({"name": "Reef group", "nickname": "reef"}, "Reef group"),
        ({"nickname": "reef"}, "reef"),
        ({}, None),
    ):
        async with IvcapClient(scripted.url, StaticToken(jwt.encode(said, "k" * 32))) as named:
            assert await named.account_name() == name
    assert await client.account_name() is None
    assert scripted.calls == []


async def test_the_account_of_an_opaque_token_is_that_of_a_record(client, scripted):
    """An order or an artifact tells; where there is none, an error does, rather than a guess that could change."""
    scripted.on("GET /1/orders", listing())
    scripted.on("GET /1/artifacts", listing())
    with pytest.raises(ConfigurationError, match="account cannot be told"):
        await client.account()
    scripted.on("GET /1/artifacts", listing({"id": A, "status": "ready"}))
    scripted.on(f"GET /1/artifacts/{A}", {"id": A, "status": "ready", "account": "urn:ivcap:account:x"})
    assert await client.account() == await client.account() == "urn:ivcap:account:x"


async def test_the_account_is_never_that_of_what_is_open_to_all(client, scripted):
    """Artifacts and orders that others have opened are passed over; the next one tells."""
    opened = {"policy": "urn:ivcap:policy:ivcap.open.artifact", "account": "urn:ivcap:account:other"}
    own = {"policy": "urn:ivcap:policy:ivcap.base.artifact", "account": "urn:ivcap:account:own"}
    theirs, ours = ({"id": f"{A}{n}", "status": "ready", **of} for n, of in enumerate((opened, own)))
    order = {"id": "urn:ivcap:order:o", "status": "succeeded", **opened}
    scripted.on("GET /1/orders", listing(order))
    scripted.on("GET /1/artifacts", listing(theirs))
    with pytest.raises(ConfigurationError, match="account cannot be told"):
        await client.account()
    scripted.on("GET /1/artifacts", listing(theirs, {"id": f"{A}1", "status": "ready"}))
    scripted.on(f"GET /1/artifacts/{A}1", ours)
    assert await client.account() == "urn:ivcap:account:own"


async def test_orders_tell_the_account_where_all_are_of_one(client, scripted):
    """They do not say who sees them, so an order of another account puts all of them in doubt."""
    orders = [{"id": f"urn:ivcap:order:{n}", "status": "failed", "account": f"urn:ivcap:account:{n}"} for n in "ab"]
    scripted.on("GET /1/artifacts", listing())
    scripted.on("GET /1/orders", listing(*orders), listing(*orders[:1]))
    with pytest.raises(ConfigurationError, match="account cannot be told"):
        await client.account()
    assert await client.account() == "urn:ivcap:account:a"


async def test_what_is_no_embedded_platform_is_named_by_its_url(scripted):
    """Only an instance id makes an embedded platform; the token is not sent to find out."""
    scripted.on("GET /_embedded", Response(status_code=404))
    async with IvcapClient(scripted.url + "/", StaticToken("t0ken")) as client:
        assert await client.platform() == scripted.url
        assert client.visibility_delay == 120
    assert "authorization" not in scripted.calls[0].headers


EMBEDDED = JSONResponse({"instance": "urn:ivcap-flows:embedded:1", "visibility_delay": 2})


@pytest.mark.parametrize(
    "failure",
    [
        *(Response(status_code=status) for status in (408, 423, 425, 429, 500, 502, 503, 504)),
        Response(b'{"instance": "urn:ivcap-flows:tw', media_type="application/json"),
    ],
    ids=lambda failure: str(failure.status_code),
)
async def test_a_failure_does_not_tell_what_a_platform_is(scripted, failure):
    """It is asked again, and where that lasts, nothing is taken for known: all keys depend on it."""
    scripted.on("GET /_embedded", failure, failure, EMBEDDED)
    async with IvcapClient(scripted.url, StaticToken("t0ken")) as client:
        assert (await client.platform(), client.visibility_delay) == ("urn:ivcap-flows:embedded:1", 2)
    scripted.on("GET /_embedded", failure)
    async with IvcapClient(scripted.url, StaticToken("t0ken"), budget=0.1) as client:
        with pytest.raises(PlatformError):
            await client.platform()
        scripted.on("GET /_embedded", EMBEDDED)
        assert await client.platform() == "urn:ivcap-flows:embedded:1"


@pytest.mark.parametrize(
    "answer",
    [
        *(Response(status_code=status) for status in (204, 302, 400, 401, 403, 405, 407)),
        Response("<html>Log in</html>", media_type="text/html"),
        JSONResponse({"instance": "urn:ivcap-flows:embedded:1"}),
        JSONResponse({"instance": 7, "visibility_delay": 2}),
        JSONResponse({}),
        JSONResponse([]),
    ],
    ids=lambda answer: str(answer.status_code),
)
async def test_an_answer_of_something_else_is_no_answer(scripted, answer):
    """A proxy or a login page between here and the platform is named, with what to do."""
    scripted.on("GET /_embedded", answer)
    async with IvcapClient(scripted.url, StaticToken("t0ken"), budget=0.1) as client:
        with pytest.raises(ProtocolError, match="See what answers there"):
            await client.platform()


async def test_a_platform_is_asked_once_what_it_is(scripted):
    """Tasks that begin at once wait for one answer."""
    scripted.on("GET /_embedded", JSONResponse({"instance": "urn:ivcap-flows:embedded:1", "visibility_delay": 2}))
    async with IvcapClient(scripted.url, StaticToken("t0ken")) as client:
        assert set(await asyncio.gather(*(client.platform() for _ in range(5)))) == {"urn:ivcap-flows:embedded:1"}
    assert len(scripted.calls) == 1


async def test_what_a_platform_is_is_asked_for_as_long_as_all_else(scripted):
    """A client without patience has none for this either."""
    scripted.on("GET /_embedded", Response(status_code=503))
    async with IvcapClient(scripted.url, StaticToken("t0ken"), budget=0) as client:
        with pytest.raises(UnavailableError):
            await client.platform()
    assert len(scripted.calls) == 1


async def test_only_this_machine_is_asked_for_an_embedded_platform():
    """A platform elsewhere is named without a request."""
    async with IvcapClient("https://API.Example.invalid/ivcap/", budget=0) as client:
        assert await client.platform() == "https://api.example.invalid/ivcap"


async def test_a_refusal_keeps_the_platforms_words(client, scripted):
    """The message names call and reason; the token stays out of every text."""
    scripted.on("POST /1/orders", JSONResponse({"message": "bad token t0ken"}, 400, {"goa-error": "bad-request"}))
    with pytest.raises(BadRequestError, match="IVCAP answered 400 to POST /1/orders: bad token") as error:
        await client.orders.place(S, {})
    assert "t0ken" not in str(error.value) + repr(error.value.data) + repr(client)
    assert error.value.code == "bad-request"
