"""Jobs: requested once, listed across services, with results of any type and events to the end; and agents, which are
services that say what a request to them looks like."""

import asyncio
import json
import time

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from ivcap_flows.errors import (
    InputError,
    NotFoundError,
    ProtocolError,
    UnavailableError,
    UnreachableError,
)
from ivcap_flows.http import sse
from ivcap_flows.ivcap import job_events
from ivcap_flows.ivcap.job_records import JobOutput

S, J, A, O = "urn:ivcap:service:s", "urn:ivcap:job:j", "urn:ivcap:artifact:a", "urn:ivcap:order:o"  # noqa: E741
JOBS = f"/1/services2/{S}/jobs"
REQUEST, READ, EVENTS, OUTPUT = f"POST {JOBS}", f"GET {JOBS}/{J}", f"GET {JOBS}/{J}/events", f"GET {JOBS}/{J}/output"
ACCEPTED = JSONResponse({"job-id": J, "location": "x", "retry-later": 10}, 202)
NO = {"message": "no"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A job's record is asked for again at once."""
    monkeypatch.setattr(job_events, "PAUSES", (0.01, 0.02, 0.05))
    monkeypatch.setattr(job_events, "GRACE", 0.3)


def record(status, **more):
    return {"id": J, "status": status, "service": S, **more}


async def test_a_job_is_requested(client, scripted):
    """By a document or an aspect, waiting or not. The id may be in the reply's location alone."""
    location = "https://h/1/services2/s/jobs/urn%3Aivcap%3Ajob%3Aj/"
    scripted.on(REQUEST, ACCEPTED, JSONResponse({"location": location, "retry-later": 1}, 202))
    made = await client.jobs.request(S, {"a": 1})
    assert (made.urn, made.service, made.status, made.retry_later) == (J, S, "pending", 10)
    assert (await client.jobs.request(S, aspect="urn:ivcap:aspect:x", hold=20)).urn == J
    assert [(call.headers["timeout"], call.body) for call in scripted.calls] == [
        ("0", {"a": 1}),
        (
            "20",
            {"$schema": "urn:ivcap:schema:job.input.1", "request-aspect": "urn:ivcap:aspect:x", "service": S},
        ),
    ]


async def test_a_job_may_end_before_the_reply(client, scripted):
    """200: the result is the body, the ids are headers."""
    headers = {"IVCAP-Job-Id": J, "IVCAP-Order-Id": O, "Content-Type": "application/vnd.ivcap.urn:x"}
    scripted.on(REQUEST, Response(b'{"out": 1}', headers=headers))
    done = await client.jobs.request(S, {})
    assert (done.urn, done.order, done.status, done.result_content) == (J, O, "succeeded", {"out": 1})
    scripted.on(REQUEST, Response(b"\x89PNG", headers=headers | {"Content-Type": "image/png"}))
    assert (await client.jobs.request(S, {})).result_content is None


async def test_a_307_is_followed_with_method_and_body(client, scripted):
    """Within the platform only, and not for ever."""

    def moved(location):
        return Response(status_code=307, headers={"Location": location})

    scripted.on(REQUEST, moved(f"{scripted.url}/1/elsewhere?x=1"))
    scripted.on("POST /1/elsewhere", ACCEPTED)
    await client.jobs.request(S, {"a": 1})
    [call] = scripted.to("POST /1/elsewhere")
    assert (call.body, call.headers["timeout"], call.query) == ({"a": 1}, "0", {"x": "1"})
    for location, said in (("http://evil.example/", r"evil\.example"), (JOBS, "more than 3 times")):
        scripted.on(REQUEST, moved(location))
        with pytest.raises(ProtocolError, match=said):
            await client.jobs.request(S, {})


async def test_a_job_is_found_by_its_id_alone(client, scripted):
    """Its service is in an aspect of either spelling. Documents are asked for explicitly, as servers differ."""
    aspect = {"id": "x", "entity": J, "schema": "s", "content": {"service-id": S}}
    scripted.on("GET /1/aspects", scripted.page(), scripted.page(aspect), scripted.page())
    scripted.on(READ, record("failed", **{"request-content": {"a": 1}, "error-message": "no"}))
    found = await client.jobs.find(J, with_result=False)
    assert (found.request_content, found.handle("p").error_message) == ({"a": 1}, "no")
    first, second, read = scripted.calls
    assert [first.query["schema"], second.query["schema"]] == ["urn:ivcap:schema:job.2", "urn:ivcap:schema.job.2"]
    assert read.query == {"with-request-content": "true", "with-result-content": "false"}
    with pytest.raises(NotFoundError, match=J):
        await client.jobs.find(J)


async def test_jobs_across_services(client, scripted):
    """From the aspects of either spelling, each job once, others passed over; status and limit hold."""

    def aspect(number, status, schema="urn:ivcap:schema:job.2", **more):
        content = {"id": f"{J}{number}", "service-id": S, "service-name": "n", "status": status, **more}
        return {"id": str(number), "entity": f"{J}{number}", "schema": schema, "content": content}

    listed = [
        aspect(1, "succeeded", **{"requested-at": "2026-06-01T00:00:00Z"}),
        aspect(2, "failed", "urn:ivcap:schema.job.2"),
        aspect(1, "executing"),
        aspect(3, "succeeded", "urn:ivcap:schema:my-job.2"),
        aspect(4, "succeeded"),
    ]
    scripted.on("GET /1/aspects", scripted.page(*listed))
    assert [job async for job in client.jobs.list_all(limit=0)] == [] and scripted.calls == []
    first, *rest = [job async for job in client.jobs.list_all()]
    assert (first.urn, first.service, first.service_name, first.status) == (J + "1", S, "n", "succeeded")
    assert first.requested_at.year == 2026 and first.handle("p").service_name == "n"
    assert [job.urn for job in rest] == [J + "2", J + "4"]
    assert [job.urn async for job in client.jobs.list_all(status="failed")] == [J + "2"]
    assert scripted.calls[-1].query["content-path"] == '$.status ? (@ == "failed")'
    assert scripted.calls[-1].query["order-by"] == "requested-at"
    scripted.calls.clear()
    scripted.on("GET /1/aspects", scripted.page(*listed, following="/1/aspects?page=c"))
    assert [job.urn async for job in client.jobs.list_all(limit=3)] == [J + "1", J + "2", J + "4"]
    assert len(scripted.calls) == 1, "no page after the one that holds the last"


async def test_a_result_is_in_the_record_or_looked_for_where_it_may_lie(client, scripted):
    """As JSON, false and zero too; at `output`; else behind the URN of the record, an artifact's or an aspect's."""

    async def result(status="succeeded", **more):
        scripted.on(READ, record(status, **more))
        return await client.jobs.result(S, J)

    for value in ({"a": 1}, 0, False):
        assert await result(**{"result-content": value, "result-content-type": "application/json"}) == value
    assert await result() is None and await result("executing") is None
    image = {"result-content-type": "image/png"}
    scripted.on(OUTPUT, Response(b"\x89PNG", media_type="image/png"))
    assert await result(**image) == JobOutput("image/png", b"\x89PNG")

    blob = f"{scripted.url}/1/artifacts/a/blob"
    scripted.on("GET /1/artifacts/a/blob", Response(b"bytes"))
    scripted.on("GET /1/aspects/urn:ivcap:aspect:x", {"id": "x", "entity": J, "schema": "s", "content": [1]})
    for refusal in (Response(status_code=204), JSONResponse({"message": "broken"}, 400)):
        scripted.on(OUTPUT, refusal)
        scripted.on(f"GET /1/artifacts/{A}", {"id": A, "status": "ready", "mime-type": "image/png", "data-href": blob})
        assert await result(**image, **{"result-content-urn": A}) == JobOutput("image/png", b"bytes")
        assert await result(**image, **{"result-content-urn": "urn:ivcap:aspect:x"}) == [1]
    scripted.on(f"GET /1/artifacts/{A}", {"id": A, "status": "ready", "data-href": "https://evil.example/blob"})
    with pytest.raises(ProtocolError, match=r"evil\.example"):
        await result(**image, **{"result-content-urn": A})
    scripted.on(OUTPUT, Response(status_code=500))
    with pytest.raises(UnavailableError):
        await result(**image)


def test_text_is_read_in_its_charset():
    """UTF-8 where none, or an unknown one, is named."""
    assert JobOutput("text/plain; charset=latin-1", b"Ni\xf1o").text == "Niño"
    for kind in ("text/plain", "text/plain; charset=klingon"):
        assert JobOutput(kind, "Niño".encode()).text == "Niño"


async def test_all_products_of_a_job_are_read(client, scripted):
    """Those of the record, then those behind its next link; a foreign or circling one is refused."""

    def page(*names, following=None):
        return scripted.page(*({"id": f"{A}{name}", "status": "ready"} for name in names), following=following)

    async def products(following):
        scripted.on(READ, record("succeeded", products=page(1, 2, following=following)))
        return [each.urn async for each in client.jobs.products(await client.jobs.read(S, J))]

    more = f"{scripted.url}/1/orders/o/products?page=c"
    scripted.on("GET /1/orders/o/products", page(3))
    assert await products(more) == [f"{A}1", f"{A}2", f"{A}3"] and await products(None) == [f"{A}1", f"{A}2"]
    assert scripted.to("GET /1/orders/o/products")[0].query == {"page": "c"}
    scripted.on("GET /1/orders/o/products", page(3, following=more))
    for wrong, words in ((more, "have no last page"), ("https://evil.example/?page=c", r"evil\.example")):
        with pytest.raises(ProtocolError, match=words):
            await products(wrong)


def told(number, status=None, **more):
    """An event as the platform sends it."""
    kind = "ivcap.job.status" if status else "ivcap.job.event"
    body = {"SeqID": f"{number:08d}", "eventID": f"e{number}", "type": kind, "data": {"n": number}, **more}
    if status:
        body["data"] = {"job-urn": J, "status": status}
    return f"id: {number:08d}\ndata: {json.dumps(body)}\n\n".encode()


def stream(*blocks, broken=False):
    """A reply of these blocks, and of pauses of that many seconds, which breaks off or ends."""

    async def written():
        for block in blocks:
            if isinstance(block, bytes):
                yield block
            else:
                await asyncio.sleep(block)
        if broken:
            raise RuntimeError("the connection is lost")

    return lambda call: StreamingResponse(written(), media_type="text/event-stream")


async def numbers(client, **options):
    return [int(event.id) async for event in client.jobs.events(S, J, **options)]


def resumed(scripted):
    return [call.headers.get("last-event-id") for call in scripted.to(EVENTS)]


async def test_events_go_on_after_breaks_until_the_end(client, scripted):
    """From the last id, each once, through a break, a time-out of the gateway and a stream that just ends."""
    scripted.on(READ, record("executing"), record("executing"), record("executing"), record("succeeded"))
    scripted.on(
        EVENTS,
        stream(told(1, "executing"), told(2), b"id: 00000003\ndata: half", broken=True),
        JSONResponse({"name": "event-timeout"}, 504),
        stream(told(1, "executing"), told(2), told(3)),
        stream(told(4), told(5, "succeeded")),
    )
    assert await numbers(client) == [1, 2, 3, 4, 5]
    assert resumed(scripted) == [None, "00000002", "00000002", "00000003"]
    assert {call.query["max-wait-time"] for call in scripted.to(EVENTS)} == {"30"}


async def test_the_end_is_told_when_the_record_has_it_and_after_last_words(client, scripted):
    """The job may read `executing` for a moment, and a service's event may come after the one that tells the end. A
    stream that stays open then is left."""
    scripted.on(READ, record("executing"), record("executing"), record("succeeded"))
    scripted.on(EVENTS, stream(told(1, "succeeded"), 0.05, told(2), 5, told(3)))
    began = time.monotonic()
    assert await numbers(client) == [1, 2] and time.monotonic() - began < 3
    assert len(scripted.to(READ)) == 3


async def test_a_job_that_is_over_is_asked_for_what_was_missed_and_no_more(client, scripted):
    """Its end was not told, by a stream that broke, or by one without any event, which a job that runs has too."""
    scripted.on(READ, record("failed"))
    scripted.on(EVENTS, stream(told(1), broken=True), *(stream(told(n)) for n in (2, 3)), Response(status_code=204))
    assert await numbers(client) == [1, 2, 3]
    scripted.calls.clear()
    scripted.on(READ, record("executing"), record("succeeded"))
    assert await numbers(client, last_id="00000009") == []
    assert resumed(scripted) == ["00000009"] * 3


async def test_keys_are_read_whatever_their_case(client, scripted):
    """Deployments have capitalised them; times have nanoseconds; ids of the stream may be missing."""
    body = {
        "SeqId": "00013567",
        "EventID": "e",
        "Type": "ivcap.job.event",
        "Schema": "urn:ivcap:schema:service.event.step.start.1",
        "Timestamp": "2026-06-01T10:00:00.123456789+10:00",
        "Data": {"name": "n"},
    }
    scripted.on(READ, record("succeeded"))
    sent = stream(b"data: " + json.dumps(body).encode() + b"\n\ndata: plain words\n\n")
    scripted.on(EVENTS, sent, Response(status_code=204))
    event, plain = [event async for event in client.jobs.events(S, J)]
    assert (event.id, event.type, event.data) == ("00013567", "ivcap.job.event", {"name": "n"})
    assert event.schema_urn.endswith("step.start.1") and event.at.isoformat() == "2026-06-01T10:00:00.123456+10:00"
    assert (plain.type, plain.data, plain.at) == ("message", "plain words", None)
    assert resumed(scripted) == [None, "00013567"]


@pytest.mark.parametrize("together", [False, True])
async def test_an_event_beyond_all_bounds_is_refused(client, scripted, monkeypatch, together):
    """Instead of being held; one that came whole before it counts, even where both arrive at once."""
    monkeypatch.setattr(sse, "MAX_EVENT", 10_000)
    sent = (told(1), b"data: ", *[b"x" * 5000] * 9)
    scripted.on(EVENTS, stream(b"".join(sent)) if together else stream(*sent))
    events = client.jobs.events(S, J)
    assert (await anext(events)).id == "00000001"
    with pytest.raises(ProtocolError, match="larger than 10000 bytes"):
        await anext(events)


async def test_a_platform_that_only_breaks_is_given_up(client, scripted):
    """After the session's budget, which each event begins anew."""
    scripted.on(READ, record("executing"))
    scripted.on(EVENTS, stream(told(1), broken=True), stream(b": nothing\n", broken=True))
    began = time.monotonic()
    with pytest.raises(UnreachableError):
        await numbers(client)
    assert 0.8 < time.monotonic() - began < 20


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_platform_without_events_has_none(client, scripted, status):
    """405 and 501 are about the platform, which is asked no more for what ended jobs told; 404 is about the job. Where
    there is no such job, the iterator is an error."""
    scripted.on(READ, record("executing"), JSONResponse(NO, 404))
    scripted.on(EVENTS, JSONResponse(NO, status))
    assert await numbers(client) == []
    assert await client.jobs.told(S, J) == await client.jobs.told(S, J) == []
    assert len(scripted.to(EVENTS)) == (3 if status == 404 else 2)
    if status == 404:
        with pytest.raises(NotFoundError):
            await numbers(client)


async def test_the_services_own_events_of_an_ended_job(client, scripted):
    """The last of them, without the platform's own. A platform that holds the request is asked once."""
    scripted.on(EVENTS, JSONResponse({"name": "event-timeout"}, 504))
    assert await client.jobs.told(S, J) == [] and len(scripted.to(EVENTS)) == 1
    scripted.on(READ, record("succeeded"))
    scripted.on(EVENTS, stream(*map(told, range(1, 8)), told(8, "succeeded")))
    assert [event.data["n"] for event in await client.jobs.told(S, J, limit=3)] == [5, 6, 7]


TOOL = "urn:sd-core:schema.ai-tool.1"
SCHEMA = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}


def tool(service=S, key="fn_schema"):
    content = {"name": "talker", "description": "Talks.", key: SCHEMA}
    return {"id": "urn:ivcap:aspect:x", "entity": service, "schema": TOOL, "content": content}


async def test_agents_are_listed_once_each_and_found_by_their_own_name(client, scripted):
    """Aspects without a schema are none, two of one service are one; the limit is the total."""
    others = [tool(f"{S}{n}", key) for n, key in enumerate(("fn-schema", "fn_schema"))]
    scripted.on("GET /1/aspects", scripted.page(tool(), tool(), tool(key="nothing"), *others))
    assert [agent.urn async for agent in client.agents.list()] == [S, f"{S}0", f"{S}1"]
    assert [agent.urn async for agent in client.agents.list(limit=2)] == [S, f"{S}0"]
    assert scripted.calls[0].query["schema"] == TOOL

    scripted.on("GET /1/services2", scripted.page())
    scripted.on("GET /1/aspects", scripted.page(tool()))
    agent = await client.agents.get("talker")
    assert (agent.urn, agent.description) == (S, "Talks.")
    with pytest.raises(InputError, match="no service named 'other'"):
        await client.agents.get("other")
    scripted.on("GET /1/aspects", scripted.page())
    with pytest.raises(NotFoundError, match=f"{S} is no agent"):
        await client.agents.read("s")
