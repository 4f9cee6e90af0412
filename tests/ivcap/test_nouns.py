"""Aspects' lists, search, queues, secrets, projects and packages: what is sent, and how odd replies are read."""

from __future__ import annotations

import asyncio
import traceback
from datetime import datetime, timedelta, timezone

import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import (
    ConflictError,
    InputError,
    InvalidParameterError,
    NotFoundError,
    ProtocolError,
    UnavailableError,
    UnreachableError,
)
from ivcap_flows.ivcap.client import IvcapClient

Q, X = "urn:ivcap:queue:q", "urn:ivcap:aspect:x"
SECRET = "s3cr3t value ✓"


def page(*items, following=None, **more):
    links = [{"rel": "next", "type": "application/json", "href": following}] if following else []
    return {"items": list(items), "links": links, "at-time": "2026-06-01T00:00:00Z", **more}


async def all_of(items):
    return [item async for item in items]


def listed(n, content):
    return {"id": f"urn:ivcap:aspect:{n}", "entity": "urn:e", "schema": "urn:s", "content": content}


async def test_aspects_are_listed_by_every_parameter(client, scripted):
    """Each goes out under the API's name; several columns each with a direction."""
    scripted.on("GET /1/aspects", page())
    await all_of(
        client.aspects.list(
            entity="urn:e",
            schema="urn:s.%",
            content_path="$.n ? (@ > 1)",
            at_time=datetime(2026, 6, 1, tzinfo=timezone(timedelta(hours=10))),
            filter="entity ~= 'urn:%'",
            order_by=["entity", "valid_from"],
            order_direction=("asc", "DESC"),
            include_content=False,
            limit=7,
        )
    )
    assert scripted.calls[0].query == {
        "entity": "urn:e",
        "schema": "urn:s.%",
        "content-path": "$.n ? (@ > 1)",
        "at-time": "2026-05-31T14:00:00Z",
        "filter": "entity ~= 'urn:%'",
        "order-by": "entity,valid_from",
        "order-direction": "ASC,DESC",
        "include-content": "false",
        "limit": "7",
    }


async def test_one_direction_holds_for_all_columns(client, scripted):
    """It is sent for each; a comma list is as good as a sequence."""
    scripted.on("GET /1/aspects", page())
    await all_of(client.aspects.list(order_by="entity, valid_to", order_direction="asc"))
    assert scripted.calls[0].query["order-by"] == "entity,valid_to"
    assert scripted.calls[0].query["order-direction"] == "ASC,ASC"


@pytest.mark.parametrize(
    "wrong", [{"order_direction": "up"}, {"order_direction": ["ASC", "DESC"]}, {"order_by": ["entity", ""]}]
)
async def test_an_order_that_cannot_be_is_not_asked_for(client, scripted, wrong):
    """Told before anything is sent."""
    with pytest.raises(InputError, match="order_direction is ASC or DESC"):
        await all_of(client.aspects.list(**wrong))
    assert scripted.calls == []


@pytest.mark.parametrize("content", [[1, "a"], "text", 3, None, {"k": []}])
async def test_content_of_any_json_is_read(client, scripted, content):
    """Objects are the custom, not the rule."""
    scripted.on("GET /1/aspects", page(listed(1, content)))
    scripted.on("GET /1/aspects/urn:ivcap:aspect:1", listed(1, content))
    assert [record.content async for record in client.aspects.list()] == [content]
    assert (await client.aspects.read("urn:ivcap:aspect:1")).content == content


async def test_a_retraction_again_changes_nothing(client, scripted):
    """A platform may hide from the second what the first one retracted; what is active or unknown is an error."""
    scripted.on(f"GET /1/aspects/{X}", {**listed("x", 1), "valid-to": "2026-06-01T00:00:00Z"}, listed("x", 1))
    await client.aspects.retract(X)
    with pytest.raises(NotFoundError):
        await client.aspects.retract(X)
    with pytest.raises(NotFoundError):
        await client.aspects.retract("urn:ivcap:aspect:unknown")


async def test_a_search_goes_over_all_pages(client, scripted):
    """The program as the official client sends it, again with each page; items of any shape; a POST that only reads."""
    scripted.on(
        "POST /1/search",
        Response(status_code=503, headers={"Retry-After": "0"}),
        page(["a", 1], following="?page=c1"),
        page("b", {"c": 1}, following="/1/search?limit=2&page=c2"),
        page(),
    )
    program = "query(X) :- p(X).  # ✓"
    at = datetime(2026, 6, 1, tzinfo=timezone.utc)
    assert await all_of(client.search(program, at_time=at)) == [["a", 1], "b", {"c": 1}]
    sent = scripted.calls[1:]
    assert [call.query.get("page") for call in sent] == [None, "c1", "c2"]
    assert {call.headers["content-type"] for call in sent} == {"application/datalog+mangle"}
    assert {call.body for call in sent} == {program}
    assert {call.query["at-time"] for call in sent} == {"2026-06-01T00:00:00Z"}


async def test_a_search_is_cut_where_it_is_asked_to_be(client, scripted):
    """`limit` is the total; an empty program is told at once."""
    scripted.on("POST /1/search", page(1, 2, following="?page=c1"), page(3, 4, following="?page=c2"))
    assert await all_of(client.search("query(X) :- p(X).", limit=3)) == [1, 2, 3]
    assert [call.query["limit"] for call in scripted.calls] == ["3", "1"]
    with pytest.raises(InputError, match="it is empty"):
        client.search("  ")


@pytest.mark.parametrize(
    ("route", "items", "ask"),
    [
        ("POST /1/search", "items", lambda client: client.search("query(X) :- p(X).")),
        ("GET /1/queues", "items", lambda client: client.queues.list()),
        ("GET /1/secrets/list", "items", lambda client: client.secrets.list()),
        ("GET /1/aspects", "items", lambda client: client.aspects.list()),
    ],
)
async def test_a_cursor_that_repeats_ends_in_an_error(client, scripted, route, items, ask):
    """Rather than in a list without end, or in one that is cut in silence."""
    scripted.on(route, {items: [], "page": "c", "links": [{"rel": "next", "type": "x", "href": "?page=c"}]})
    with pytest.raises(ProtocolError, match="names a page as the next that was read before"):
        await all_of(ask(client))
    assert len(scripted.calls) == 2


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a*", "a>b", "a/b", "a\\b", "a\x00"])
async def test_a_queue_cannot_have_that_name(client, scripted, name):
    """IVCAP's own rules, told before anything is sent."""
    with pytest.raises(InputError, match="A queue's name"):
        await client.queues.create(name)
    assert scripted.calls == []


async def test_messages_are_taken_once(client, scripted):
    """The request is a GET that removes: neither a lost reply nor a busy platform makes it go out again."""
    path = f"GET /1/queues/{Q}/messages"
    scripted.on(path, Response(status_code=503), Response(b"{", media_type="application/json"))
    with pytest.raises(UnavailableError):
        await client.queues.dequeue(Q)
    with pytest.raises(ProtocolError):
        await client.queues.dequeue(Q, limit=3)
    assert [call.query for call in scripted.to(path)] == [{"limit": "1"}, {"limit": "3"}]
    for wrong in (0, -1, True, "1"):
        with pytest.raises(InputError, match="limit of messages"):
            await client.queues.dequeue(Q, limit=wrong)


async def test_a_message_is_sent_once(client, scripted):
    """An answer that leaves in doubt is for the task to decide on."""
    scripted.on(f"POST /1/queues/{Q}/messages", Response(status_code=500))
    with pytest.raises(UnavailableError):
        await client.queues.enqueue(Q, [1, None], schema="urn:s")
    [call] = scripted.calls
    assert (call.query, call.body) == ({"schema": "urn:s"}, [1, None])


async def test_messages_in_the_forms_that_occur(client, scripted):
    """JSON as it is or as a text, optional fields left out, nothing at all."""
    scripted.on(
        f"GET /1/queues/{Q}/messages",
        {"messages": [{"id": "1", "content": '{"t": 1}', "content-type": "application/json"}, {"id": "2"}]},
        {"messages": [{"id": "3", "content": "no json", "content-type": "application/json", "schema": ""}]},
        {"messages": None},
    )
    one, two = await client.queues.dequeue(Q, limit=2)
    assert (one.content, two.content, two.schema_urn) == ({"t": 1}, None, None)
    [three] = await client.queues.dequeue(Q)
    assert (three.content, three.schema_urn) == ("no json", None)
    assert await client.queues.dequeue(Q) == ()


async def test_queues_on_the_embedded_platform(embedded):
    """Created once, found by name, filled, emptied in order, deleted, and deleted again."""
    queue = await embedded.queues.create("nouns-queue", description="of a test")
    with pytest.raises(ConflictError):
        await embedded.queues.create("nouns-queue")
    assert (await embedded.queues.by_name("nouns-queue")).urn == queue.urn
    assert await embedded.queues.by_name("nouns") is None
    for n in range(3):
        assert await embedded.queues.enqueue(queue.urn, {"n": n}, schema="urn:s")
    read = await embedded.queues.read(queue.urn)
    assert (read.name, read.description, read.total_messages) == ("nouns-queue", "of a test", 3)
    taken = [*await embedded.queues.dequeue(queue.urn, limit=2), *await embedded.queues.dequeue(queue.urn, limit=2)]
    assert [(message.content, message.schema_urn) for message in taken] == [({"n": n}, "urn:s") for n in range(3)]
    await embedded.queues.delete(queue.urn)
    await embedded.queues.delete(queue.urn)
    with pytest.raises(NotFoundError):
        await embedded.queues.read(queue.urn)
    handle = queue.handle("p")
    assert (handle.urn, handle.platform, handle.name) == (queue.urn, "p", "nouns-queue")


@pytest.mark.parametrize("ends", [timedelta(seconds=-1), timedelta(days=-36500)])
async def test_a_secret_that_has_expired_is_refused(embedded, ends):
    """It would be gone at once, or, before 1970, never expire; nothing is stored."""
    with pytest.raises(InputError, match="'late' would expire in the past"):
        await embedded.secrets.set("late", SecretStr("x"), expires_at=datetime.now(timezone.utc) + ends)
    with pytest.raises(NotFoundError):
        await embedded.secrets.get("late")


async def test_secrets_on_the_embedded_platform(embedded):
    """Set, replaced, read, and listed over pages without their values."""
    ends = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)
    await embedded.secrets.set("nouns", SecretStr("old"))
    await embedded.secrets.set("nouns", SecretStr(SECRET), expires_at=ends)
    for n in range(60):
        await embedded.secrets.set(f"many-{n:02}", SecretStr("x"))
    found = await embedded.secrets.get("nouns")
    assert found.secret_value.get_secret_value() == SECRET
    assert found.expires_at == ends
    everything = await all_of(embedded.secrets.list())
    assert {"nouns", *(f"many-{n:02}" for n in range(60))} <= {each.secret_name for each in everything}
    assert {each.secret_value for each in everything} == {None}
    assert [each.secret_name async for each in embedded.secrets.list(filter="nouns", limit=1)] == ["nouns"]
    with pytest.raises(NotFoundError):
        await embedded.secrets.get("nobody")
    assert SECRET not in repr(found) + str(found) + found.model_dump_json()


async def test_a_list_of_secrets_goes_on_by_page_or_offset(client, scripted):
    """Deployments name the cursor either way; a far time is no overflow."""
    names = [{"secret-name": name, "expiry-time": 2**62} for name in "abc"]
    scripted.on(
        "GET /1/secrets/list",
        page(names[0], following="/1/secrets/list?limit=1&offset=10"),
        page(names[1], following="/1/secrets/list?page=x%3D"),
        page({**names[2], "secret-value": SECRET}),
    )
    found = await all_of(client.secrets.list(filter="."))
    assert [each.secret_name for each in found] == ["a", "b", "c"]
    asked = [{k: v for k, v in call.query.items() if k != "limit"} for call in scripted.calls]
    assert asked == [{"filter": "."}, {"filter": ".", "offset": "10"}, {"filter": ".", "page": "x="}]
    assert found[2].secret_value is None
    assert found[0].expires_at.year == 9999


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


async def test_secrets_inside_a_container(scripted, monkeypatch):
    """The variable of that name first, then the secret manager, which is asked as the service SDK does."""
    scripted.on("GET /manager/1/secret", {"secret-value": SECRET})
    async with IvcapClient(scripted.url, in_container=True, secret_manager=f"{scripted.url}/manager") as client:
        assert (await client.secrets.get("NOUNS_KEY")).secret_value.get_secret_value() == SECRET
        monkeypatch.setenv("NOUNS_KEY", "by hand")
        assert (await client.secrets.get("NOUNS_KEY")).secret_value.get_secret_value() == "by hand"
    [call] = scripted.calls
    assert call.query == {"secret-name": "NOUNS_KEY", "secret-type": "raw", "token-type": "M2M"}


async def test_a_secret_manager_that_is_away_is_waited_for_as_long_as_the_platform(scripted):
    """The client's own budget ends the tries of both; without it they go on for minutes."""
    scripted.on("GET /manager/1/secret", Response(status_code=503))
    manager = f"{scripted.url}/manager"
    async with IvcapClient(scripted.url, in_container=True, secret_manager=manager, budget=0.2) as client:
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(client.secrets.get("NOUNS_KEY"), 20)


async def test_a_variable_outside_of_a_container_is_no_secret(client, monkeypatch):
    """There it is the user's own business."""
    monkeypatch.setenv("NOUNS_KEY", "by hand")
    with pytest.raises(NotFoundError):
        await client.secrets.get("NOUNS_KEY")


async def test_a_host_header_in_the_place_of_the_urls(scripted):
    """It goes to the platform with each call, and links to that host are read as the platform's own."""
    from ivcap_flows.http.session import Session

    session = Session(scripted.url, platform="IVCAP", host="ivcap.example.org")
    async with IvcapClient(session) as client:
        scripted.on("GET /1/queues", page())
        await all_of(client.queues.list())
    assert scripted.calls[0].headers["host"] == "ivcap.example.org"
    assert session.own("http://ivcap.example.org/1/x?y=1") == "/1/x?y=1"
    with pytest.raises(ProtocolError):
        session.own("http://other.example.org/1/x")


async def test_nothing_there(client):
    """A platform that does not answer is told as such."""
    async with IvcapClient("http://127.0.0.1:9", budget=0) as nobody:
        with pytest.raises(UnreachableError):
            await all_of(nobody.search("query(X) :- p(X)."))
