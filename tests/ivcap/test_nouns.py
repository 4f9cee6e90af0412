"""Search, queues and secrets: what is sent, and how odd replies are read."""

import asyncio
import traceback
from datetime import datetime, timedelta, timezone

import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import InputError, InvalidParameterError, NotFoundError, ProtocolError, UnavailableError
from ivcap_flows.ivcap.client import IvcapClient

Q = "urn:ivcap:queue:q"
MESSAGES = f"GET /1/queues/{Q}/messages"
SECRET = "s3cr3t value ✓"


async def test_a_search_goes_over_all_pages(client, scripted):
    """The program as the official client sends it, again with each page; items of any shape; a POST that only reads.
    `limit` is the total."""
    scripted.on(
        "POST /1/search",
        Response(status_code=503, headers={"Retry-After": "0"}),
        scripted.page(["a", 1], following="?page=c1"),
        scripted.page("b", {"c": 1}, following="/1/search?limit=2&page=c2"),
        scripted.page(),
    )
    program = "query(X) :- p(X).  # ✓"
    at = datetime(2026, 6, 1, tzinfo=timezone.utc)
    assert [item async for item in client.search(program, at_time=at)] == [["a", 1], "b", {"c": 1}]
    sent = scripted.calls[1:]
    assert [call.query.get("page") for call in sent] == [None, "c1", "c2"]
    assert {call.headers["content-type"] for call in sent} == {"application/datalog+mangle"}
    assert {(call.body, call.query["at-time"]) for call in sent} == {(program, "2026-06-01T00:00:00Z")}

    scripted.calls.clear()
    scripted.on("POST /1/search", scripted.page(1, 2, following="?page=c1"), scripted.page(3, 4, following="?page=c2"))
    assert [item async for item in client.search(program, limit=3)] == [1, 2, 3]
    assert [call.query["limit"] for call in scripted.calls] == ["3", "1"]
    with pytest.raises(InputError, match="it is empty"):
        client.search("  ")


async def test_a_queue_cannot_have_that_name(client, scripted):
    """IVCAP's own rules, told before anything is sent."""
    for name in ("", "a b", "a.b", "a*", "a>b", "a/b", "a\\b", "a\x00"):
        with pytest.raises(InputError, match="A queue's name"):
            await client.queues.create(name)
    assert scripted.calls == []


async def test_a_message_is_taken_or_sent_once(client, scripted):
    """To take is a GET that removes: neither a lost reply nor a busy platform makes it go out again. An answer that
    leaves in doubt is for the task to decide on. An unknown queue is an error, not one without messages."""
    scripted.on(MESSAGES, Response(status_code=503), Response(b"{", media_type="application/json"))
    scripted.on(f"POST /1/queues/{Q}/messages", Response(status_code=500))
    with pytest.raises(UnavailableError):
        await client.queues.dequeue(Q)
    with pytest.raises(ProtocolError):
        await client.queues.dequeue(Q, limit=3)
    with pytest.raises(UnavailableError):
        await client.queues.enqueue(Q, [1, None], schema="urn:s")
    for wrong in (0, -1, True, "1"):
        with pytest.raises(InputError, match="limit of messages"):
            await client.queues.dequeue(Q, limit=wrong)
    for attempt in (lambda: client.queues.dequeue("unknown"), lambda: client.queues.enqueue("unknown", {})):
        with pytest.raises(NotFoundError):
            await attempt()
    assert [(call.query, call.body) for call in scripted.calls if "unknown" not in call.route] == [
        ({"limit": "1"}, None),
        ({"limit": "3"}, None),
        ({"schema": "urn:s"}, [1, None]),
    ]


async def test_messages_in_the_forms_that_occur(client, scripted):
    """JSON as it is or as a text, optional fields left out, nothing at all."""
    in_json = {"content-type": "application/json"}
    scripted.on(
        MESSAGES,
        {"messages": [{"id": "1", "content": '{"t": 1}', **in_json}, {"id": "2"}]},
        {"messages": [{"id": "3", "content": "no json", "schema": "", **in_json}]},
        {"messages": None},
    )
    one, two = await client.queues.dequeue(Q, limit=2)
    assert (one.content, two.content, two.schema_urn) == ({"t": 1}, None, None)
    [three] = await client.queues.dequeue(Q)
    assert (three.content, three.schema_urn) == ("no json", None)
    assert await client.queues.dequeue(Q) == ()


async def test_a_secret_that_has_expired_is_refused(client, scripted):
    """It would be gone at once, or, before 1970, never expire; nothing is stored."""
    for ends in (timedelta(seconds=-1), timedelta(days=-36500)):
        with pytest.raises(InputError, match="'late' would expire in the past"):
            await client.secrets.set("late", SecretStr("x"), expires_at=datetime.now(timezone.utc) + ends)
    assert scripted.calls == []


async def test_a_list_of_secrets_has_no_values_and_goes_on_by_page_or_offset(client, scripted):
    """Deployments name the cursor either way; a far time is no overflow."""
    names = [{"secret-name": name, "expiry-time": 2**62} for name in "abc"]
    scripted.on(
        "GET /1/secrets/list",
        scripted.page(names[0], following="/1/secrets/list?limit=1&offset=10"),
        scripted.page(names[1], following="/1/secrets/list?page=x%3D"),
        scripted.page({**names[2], "secret-value": SECRET}),
    )
    found = [each async for each in client.secrets.list(filter=".")]
    assert [(each.secret_name, each.secret_value, each.expires_at.year) for each in found] == [
        (name, None, 9999) for name in "abc"
    ]
    asked = [{k: v for k, v in call.query.items() if k != "limit"} for call in scripted.calls]
    assert asked == [{"filter": "."}, {"filter": ".", "offset": "10"}, {"filter": ".", "page": "x="}]


async def test_the_value_of_a_secret_is_in_no_error(client, scripted, caplog):
    """A platform that repeats what it refuses is not quoted, in a log neither; a plain text does not get that far."""
    said = {"name": "secret-value", "message": f"bad {SECRET}", "value": SECRET}
    scripted.on("POST /1/secrets", JSONResponse(said, 503), JSONResponse(said, 422, {"goa-error": "invalid-parameter"}))
    with caplog.at_level("DEBUG"), pytest.raises(InvalidParameterError) as refused:
        await client.secrets.set("n", SecretStr(SECRET))
    scripted.on("GET /1/secrets", {"secret-name": "n", "secret-value": [SECRET]})
    with pytest.raises(ProtocolError, match="holds no secret-value") as broken:
        await client.secrets.get("n")
    with pytest.raises(InputError, match="Wrap it: SecretStr") as plain:
        await client.secrets.set("n", SECRET)
    for error in (refused.value, broken.value, plain.value):
        assert SECRET not in "".join(traceback.format_exception(error)) + repr(error.data)
    assert SECRET not in caplog.text
    assert refused.value.code == "invalid-parameter"
    assert scripted.calls[1].body == {"secret-name": "n", "secret-value": SECRET, "expiry-time": 0}


async def test_a_secret_is_read_as_the_service_sdk_reads_it(client, scripted, monkeypatch):
    """Inside a container the variable of that name first, then the secret manager, which is waited for as long as the
    platform. Outside, a variable is the user's own business."""
    manager = f"{scripted.url}/manager"
    scripted.on("GET /manager/1/secret", {"secret-value": SECRET})
    async with IvcapClient(scripted.url, in_container=True, secret_manager=manager, budget=0.2) as inside:
        found = await inside.secrets.get("NOUNS_KEY")
        assert found.secret_value.get_secret_value() == SECRET
        assert SECRET not in repr(found) + str(found) + found.model_dump_json()
        [call] = scripted.calls
        assert call.query == {"secret-name": "NOUNS_KEY", "secret-type": "raw", "token-type": "M2M"}
        scripted.on("GET /manager/1/secret", Response(status_code=503))
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(inside.secrets.get("NOUNS_KEY"), 20)
        monkeypatch.setenv("NOUNS_KEY", "by hand")
        assert (await inside.secrets.get("NOUNS_KEY")).secret_value.get_secret_value() == "by hand"
    with pytest.raises(NotFoundError):
        await client.secrets.get("NOUNS_KEY")
