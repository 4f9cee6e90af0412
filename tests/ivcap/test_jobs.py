"""Jobs beyond requesting: across services, results of any type, and events followed to the end."""

import asyncio
import json
import time

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from ivcap_flows.errors import NotFoundError, ProtocolError, UnavailableError, UnreachableError
from ivcap_flows.http import sse
from ivcap_flows.ivcap import job_events
from ivcap_flows.ivcap.job_records import JobOutput

S, J, A = "urn:ivcap:service:s", "urn:ivcap:job:j", "urn:ivcap:artifact:a"
JOB = f"/1/services2/{S}/jobs/{J}"
EVENTS = f"GET {JOB}/events"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A job's record is asked for again at once."""
    monkeypatch.setattr(job_events, "PAUSES", (0.01, 0.02, 0.05))
    monkeypatch.setattr(job_events, "GRACE", 0.3)


def listing(*items):
    return {"items": list(items), "links": [], "at-time": "2026-06-01T00:00:00Z"}


def record(status, **more):
    return {"id": J, "status": status, "service": S, **more}


def told(number, status=None, **more):
    """An event as the platform sends it."""
    kind = "ivcap.job.status" if status else "ivcap.job.event"
    body = {"SeqID": f"{number:08d}", "eventID": f"e{number}", "type": kind, "data": {"n": number}, **more}
    if status:
        body["data"] = {"job-urn": J, "status": status}
    return f"id: {number:08d}\ndata: {json.dumps(body)}\n\n".encode()


def stream(*blocks, broken=False):
    """A reply of these blocks, which breaks off or ends."""

    async def written():
        for block in blocks:
            yield block
        if broken:
            raise RuntimeError("the connection is lost")

    return lambda call: StreamingResponse(written(), media_type="text/event-stream")


async def numbers(client, **options):
    return [int(event.id) async for event in client.jobs.events(S, J, **options)]


async def test_events_go_on_after_breaks_until_the_end(client, scripted):
    """From the last id, each once, through a break, a time-out of the gateway and a stream that just ends."""
    scripted.on(f"GET {JOB}", record("executing"), record("executing"), record("executing"), record("succeeded"))
    scripted.on(
        EVENTS,
        stream(told(1, "executing"), told(2), b"id: 00000003\ndata: half", broken=True),
        JSONResponse({"name": "event-timeout"}, 504),
        stream(told(1, "executing"), told(2), told(3)),
        stream(told(4), told(5, "succeeded")),
    )
    assert await numbers(client) == [1, 2, 3, 4, 5]
    asked = [call.headers.get("last-event-id") for call in scripted.to(EVENTS)]
    assert asked == [None, "00000002", "00000002", "00000003"]
    assert {call.query["max-wait-time"] for call in scripted.to(EVENTS)} == {"30"}


async def test_the_record_has_settled_when_the_events_end(client, scripted):
    """The job may read `executing` for a moment after its last event; who reads it then sees the end."""
    scripted.on(f"GET {JOB}", record("executing"), record("executing"), record("succeeded"))
    scripted.on(EVENTS, stream(told(1, "succeeded")))
    assert await numbers(client) == [1] and len(scripted.to(f"GET {JOB}")) == 3


async def test_last_words_after_the_end_are_heard(client, scripted):
    """A service's event may come after the one that tells the end; a stream that stays open then is left."""

    async def lingering():
        yield told(1, "succeeded")
        await asyncio.sleep(0.05)
        yield told(2)
        await asyncio.sleep(5)
        yield told(3)

    scripted.on(f"GET {JOB}", record("succeeded"))
    scripted.on(EVENTS, lambda call: StreamingResponse(lingering(), media_type="text/event-stream"))
    began = time.monotonic()
    assert await numbers(client) == [1, 2] and time.monotonic() - began < 3


async def test_events_missed_by_a_break_are_asked_for_once_more(client, scripted):
    """The job is over and its end was not told: what the broken stream did not bring is fetched."""
    scripted.on(f"GET {JOB}", record("failed"))
    scripted.on(EVENTS, stream(told(1), broken=True), *(stream(told(n)) for n in (2, 3)), Response(status_code=204))
    assert await numbers(client) == [1, 2, 3]


async def test_a_job_that_is_over_without_events_ends_at_once(client, scripted):
    """204 is no result yet for a job that runs, and the end for one that is over."""
    scripted.on(f"GET {JOB}", record("executing"), record("succeeded"))
    scripted.on(EVENTS, Response(status_code=204))
    assert await numbers(client, last_id="00000009") == []
    assert [call.headers["last-event-id"] for call in scripted.to(EVENTS)] == ["00000009"] * 3


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_platform_without_events_has_none(client, scripted, status):
    """The iterator ends; it is asked once for what was told of ended jobs, unless 404 may be about the job alone."""
    scripted.on(f"GET {JOB}", record("executing"))
    scripted.on(EVENTS, JSONResponse({"message": "no"}, status))
    assert await numbers(client) == []
    assert await client.jobs.told(S, J) == await client.jobs.told(S, J) == []
    assert len(scripted.to(EVENTS)) == (3 if status == 404 else 2)


async def test_the_events_of_a_job_that_is_not_there_are_an_error(client, scripted):
    """And not an iterator without any."""
    for route in (EVENTS, f"GET {JOB}"):
        scripted.on(route, JSONResponse({"message": "no"}, 404))
    with pytest.raises(NotFoundError):
        await numbers(client)


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
    scripted.on(f"GET {JOB}", record("succeeded"))
    scripted.on(
        EVENTS, stream(b"data: " + json.dumps(body).encode() + b"\n\ndata: plain words\n\n"), Response(None, 204)
    )
    event, plain = [event async for event in client.jobs.events(S, J)]
    assert (event.id, event.type, event.data) == ("00013567", "ivcap.job.event", {"name": "n"})
    assert event.schema_urn.endswith("step.start.1") and event.at.isoformat() == "2026-06-01T10:00:00.123456+10:00"
    assert (plain.type, plain.data, plain.at) == ("message", "plain words", None)
    assert [call.headers.get("last-event-id") for call in scripted.to(EVENTS)] == [None, "00013567"]


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
    scripted.on(f"GET {JOB}", record("executing"))
    scripted.on(EVENTS, stream(told(1), broken=True), stream(b": nothing\n", broken=True))
    began = time.monotonic()
    with pytest.raises(UnreachableError):
        await numbers(client)
    assert 1.5 < time.monotonic() - began < 20


async def test_the_services_own_events_of_an_ended_job(client, scripted):
    """The last of them, without the platform's own."""
    scripted.on(f"GET {JOB}", record("succeeded"))
    scripted.on(EVENTS, stream(*map(told, range(1, 8)), told(8, "succeeded")))
    assert [event.data["n"] for event in await client.jobs.told(S, J, limit=3)] == [5, 6, 7]


async def test_one_job_without_events_says_nothing_of_others(client, scripted):
    """404 is about the job; 405 and 501 are about the platform, which is asked no more."""
    scripted.on(f"GET {JOB}", record("succeeded"))
    scripted.on(EVENTS, JSONResponse({}, 404), stream(told(1), told(2, "succeeded")), JSONResponse({}, 501))
    assert [len(await client.jobs.told(S, J)) for _ in range(4)] == [0, 1, 0, 0]
    assert len(scripted.to(EVENTS)) == 3


async def test_jobs_across_services(client, scripted):
    """From the aspects of either spelling, each job once, others passed over; status and limit hold."""

    def aspect(number, status, schema="urn:ivcap:schema:job.2", **more):
        content = {"id": f"{J}{number}", "service-id": S, "service-name": "n", "status": status, **more}
        return {"id": str(number), "entity": f"{J}{number}", "schema": schema, "content": content}

    scripted.on(
        "GET /1/aspects",
        listing(
            aspect(1, "succeeded", **{"requested-at": "2026-06-01T00:00:00Z"}),
            aspect(2, "failed", "urn:ivcap:schema.job.2"),
            aspect(1, "executing"),
            aspect(3, "succeeded", "urn:ivcap:schema:my-job.2"),
            aspect(4, "succeeded"),
        ),
    )
    first, *rest = [job async for job in client.jobs.list_all()]
    assert (first.urn, first.service, first.service_name, first.status) == (J + "1", S, "n", "succeeded")
    assert first.requested_at.year == 2026 and first.handle("p").service_name == "n"
    assert [job.urn for job in rest] == [J + "2", J + "4"]
    assert [job.urn async for job in client.jobs.list_all(limit=2)] == [J + "1", J + "2"]
    assert [job.urn async for job in client.jobs.list_all(status="failed")] == [J + "2"]
    assert scripted.calls[-1].query["content-path"] == '$.status ? (@ == "failed")'
    assert scripted.calls[-1].query["order-by"] == "requested-at"


async def test_no_more_jobs_are_asked_for_than_wanted(client, scripted):
    """None for a limit of none, and no page after the one that holds the last."""

    def aspect(number):
        content = {"service-id": S, "status": "succeeded"}
        return {"id": str(number), "entity": f"{J}{number}", "schema": "urn:ivcap:schema:job.2", "content": content}

    following = [{"rel": "next", "type": "application/json", "href": "/1/aspects?page=c"}]
    scripted.on("GET /1/aspects", {**listing(*map(aspect, range(50))), "links": following})
    assert [job async for job in client.jobs.list_all(limit=0)] == [] and scripted.calls == []
    assert len([job async for job in client.jobs.list_all(limit=50)]) == 50
    assert len(scripted.calls) == 1


async def test_jobs_are_listed_by_their_request_on_the_embedded_platform(embedded):
    """One that was requested first and ends last is not the newest."""
    slow, quick = [await embedded.services.by_name(name) for name in ("sleep", "echo")]
    first = await embedded.jobs.request(slow.urn, {"seconds": 6})
    await asyncio.sleep(1.1)  # the time of a request is told in whole seconds
    second = await embedded.jobs.request(quick.urn, {"message": "x"}, hold=20)
    assert not (await embedded.jobs.read(slow.urn, first.urn)).done
    while not (await embedded.jobs.read(slow.urn, first.urn)).done:
        await asyncio.sleep(0.05)
    assert [job.urn async for job in embedded.jobs.list_all(limit=2)] == [second.urn, first.urn]


async def test_a_job_is_found_by_its_id_alone(client, scripted):
    """Its service from the aspect, then the record with the request."""
    content = {"id": J, "service-id": S}
    scripted.on("GET /1/aspects", listing({"id": "x", "entity": J, "schema": "s", "content": content}))
    scripted.on(f"GET {JOB}", record("succeeded", **{"request-content": {"a": 1}}))
    assert (await client.jobs.find(J)).request_content == {"a": 1}
    scripted.on("GET /1/aspects", listing())
    with pytest.raises(NotFoundError):
        await client.jobs.find(J)


async def test_a_request_may_be_an_aspect_and_be_waited_for(client, scripted):
    """The body names aspect and service; the gateway is asked to hold the request that long."""
    scripted.on(f"POST /1/services2/{S}/jobs", JSONResponse({"job-id": J, "location": "x", "retry-later": 1}, 202))
    await client.jobs.request(S, aspect="urn:ivcap:aspect:x", hold=20)
    [call] = scripted.calls
    assert call.headers["timeout"] == "20"
    assert call.body == {
        "$schema": "urn:ivcap:schema:job.input.1",
        "request-aspect": "urn:ivcap:aspect:x",
        "service": S,
    }


async def test_a_json_result_is_in_the_record(client, scripted):
    """As JSON, false and zero too; a job without one has none."""
    for value in ({"a": 1}, 0, False):
        scripted.on(
            f"GET {JOB}", record("succeeded", **{"result-content": value, "result-content-type": "application/json"})
        )
        assert await client.jobs.result(S, J) == value
    for status in ("executing", "succeeded"):
        scripted.on(f"GET {JOB}", record(status))
        assert await client.jobs.result(S, J) is None


@pytest.mark.parametrize("refusal", [Response(status_code=204), JSONResponse({"message": "broken"}, 400)])
async def test_another_result_is_looked_for_where_it_may_lie(client, scripted, refusal):
    """At `output`, else behind the URN that the record names: an artifact or an aspect."""
    image = {"result-content-type": "image/png"}
    scripted.on(f"GET {JOB}", record("succeeded", **image))
    scripted.on(f"GET {JOB}/output", Response(b"\x89PNG", media_type="image/png"))
    assert await client.jobs.result(S, J) == JobOutput("image/png", b"\x89PNG")

    scripted.on(f"GET {JOB}", record("succeeded", **image, **{"result-content-urn": A}))
    scripted.on(f"GET {JOB}/output", refusal)
    blob = f"{scripted.url}/1/artifacts/a/blob"
    scripted.on(f"GET /1/artifacts/{A}", {"id": A, "status": "ready", "mime-type": "image/png", "data-href": blob})
    scripted.on("GET /1/artifacts/a/blob", Response(b"bytes"))
    assert await client.jobs.result(S, J) == JobOutput("image/png", b"bytes")
    scripted.on(f"GET /1/artifacts/{A}", {"id": A, "status": "ready", "data-href": "https://evil.example/blob"})
    with pytest.raises(ProtocolError, match=r"evil\.example"):
        await client.jobs.result(S, J)

    scripted.on(f"GET {JOB}", record("succeeded", **image, **{"result-content-urn": "urn:ivcap:aspect:x"}))
    scripted.on("GET /1/aspects/urn:ivcap:aspect:x", {"id": "x", "entity": J, "schema": "s", "content": [1]})
    assert await client.jobs.result(S, J) == [1]


async def test_a_result_that_is_refused_is_an_error(client, scripted):
    """Where nothing else names it."""
    scripted.on(f"GET {JOB}", record("succeeded", **{"result-content-type": "image/png"}))
    scripted.on(f"GET {JOB}/output", Response(status_code=500))
    with pytest.raises(UnavailableError):
        await client.jobs.result(S, J)


async def test_all_products_of_a_job_are_read(client, scripted):
    """Those of the record, then those behind its next link; a foreign or circling one is refused."""

    def page(*names, following=None):
        links = [{"rel": "next", "type": "application/json", "href": following}] if following else []
        return {"items": [{"id": f"{A}{name}", "status": "ready"} for name in names], "links": links}

    async def products(following):
        scripted.on(f"GET {JOB}", record("succeeded", products=page(1, 2, following=following)))
        return [each.urn async for each in client.jobs.products(await client.jobs.read(S, J))]

    more = f"{scripted.url}/1/orders/o/products?page=c"
    scripted.on("GET /1/orders/o/products", page(3))
    assert await products(more) == [f"{A}1", f"{A}2", f"{A}3"] and await products(None) == [f"{A}1", f"{A}2"]
    assert scripted.to("GET /1/orders/o/products")[0].query == {"page": "c"}
    scripted.on("GET /1/orders/o/products", page(3, following=more))
    for wrong, words in ((more, "have no last page"), ("https://evil.example/?page=c", r"evil\.example")):
        with pytest.raises(ProtocolError, match=words):
            await products(wrong)


async def test_an_ended_job_is_not_waited_for(client, scripted):
    """A platform that holds the request for a job that is over is asked once."""
    scripted.on(EVENTS, JSONResponse({"name": "event-timeout"}, 504))
    assert await client.jobs.told(S, J) == [] and len(scripted.to(EVENTS)) == 1


def test_text_is_read_in_its_charset():
    """UTF-8 where none, or an unknown one, is named."""
    assert JobOutput("text/plain; charset=latin-1", b"Ni\xf1o").text == "Niño"
    for kind in ("text/plain", "text/plain; charset=klingon"):
        assert JobOutput(kind, "Niño".encode()).text == "Niño"


async def test_events_on_the_embedded_platform(embedded):
    """As they happen, to the end; afterwards from any id on, and nothing more after the last."""
    service = await embedded.services.by_name("sleep")
    job = await embedded.jobs.request(service.urn, {"seconds": 0.5})
    events = [event async for event in embedded.jobs.events(service.urn, job.urn)]
    assert [event.data["status"] for event in events][-2:] == ["executing", "succeeded"]
    assert (await embedded.jobs.find(job.urn)).done
    after = [event.id async for event in embedded.jobs.events(service.urn, job.urn, last_id=events[0].id)]
    assert after == [event.id for event in events[1:]]
    assert [event async for event in embedded.jobs.events(service.urn, job.urn, last_id=events[-1].id)] == []
    assert await embedded.jobs.told(service.urn, job.urn) == []
    assert job.urn in [each.urn async for each in embedded.jobs.list_all(status="succeeded", limit=20)]


async def test_a_job_may_be_waited_for_in_its_request_on_the_embedded_platform(embedded):
    """One that ends within the hold is answered with its result."""
    service = await embedded.services.by_name("echo")
    job = await embedded.jobs.request(service.urn, {"message": "x"}, hold=20)
    assert (job.status, job.result_content) == ("succeeded", {"message": "x"})
