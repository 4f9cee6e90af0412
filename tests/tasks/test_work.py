"""Services, orders, jobs and agents as tasks: find, list, register, and follow them to their end."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
import weakref

import pytest
from prefect.context import TaskRunContext
from pydantic import BaseModel

from ivcap_flows import loop, wait_or_park
from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.durable import plan, poller
from ivcap_flows.errors import InputError, JobFailedError, NotFoundError, ParameterError, WaitTimeoutError
from ivcap_flows.ivcap import job_events
from ivcap_flows.ivcap.orders import OrderRecord
from ivcap_flows.journal.rows import Wait
from ivcap_flows.local.register import register
from ivcap_flows.settings import Settings
from ivcap_flows.sinks import run_graph
from ivcap_flows.tasks import (
    attach_aspect,
    exec_agent,
    find_service,
    get_job,
    job_result,
    list_jobs,
    list_orders,
    list_services,
    order_log,
    place_order,
    register_service,
    request_job,
    wait_for_jobs,
    wait_for_orders,
    waiting,
)
from ivcap_flows.tasks import poll_sources as watching
from ivcap_flows.tasks.call import IvcapCall
from ivcap_flows.tasks.waiting import first_of

SERVICE = """
def told(request, job):
    for number in range(request.get("times", 1)):
        job.event("step", message=f"{request['message']} {number}", number=number)
    job.add_product("told.txt", request["message"].encode(), "text/plain")
    kind = request.get("kind", "json")
    return {"json": {"said": request["message"]}, "text": request["message"], "bytes": bytes([0, 255])}[kind]
"""


@pytest.fixture(scope="session")
def telling(_embedded, tmp_path_factory):
    """The name of a service that sends events, makes a product, and returns results of every type."""
    folder = tmp_path_factory.mktemp("telling")
    (folder / "setup.cfg").touch()
    (folder / "services_of_work_tests.py").write_text(SERVICE)
    parameters = [
        {"name": "message", "type": "string"},
        {"name": "kind", "type": "string", "optional": True},
        {"name": "times", "type": "int", "optional": True},
    ]
    definition = {"name": "telling", "entry": "services_of_work_tests:told", "parameters": parameters}
    register(_embedded.url, _embedded.environment["IVCAP_JWT"], definition, folder / "services.yaml")
    return "telling"


def batch(name, **more):
    controller = {"$schema": "urn:ivcap:schema.service.batch.1", "image": "none", "command": ["none"]}
    return {
        "name": name,
        "description": "Does nothing here.",
        "controller-schema": "urn:ivcap:schema.service.batch.1",
        "controller": controller,
        **more,
    }


def test_a_service_is_found_and_used_by_its_handle(in_flow, unique):
    """A service's handle can be used for orders and jobs."""

    def body():
        service = find_service("echo")
        order = place_order(service, {"message": unique})
        job = request_job(service, {"message": unique})
        return service, wait_for_orders([order]), wait_for_jobs([job])

    service, [order], [job] = in_flow(body)
    assert service.name == "echo" and order.service == job.service == service.urn
    with pytest.raises(InputError, match=r"There is no service named 'ecko'\. Candidates: .*'echo'"):
        in_flow(lambda: find_service("ecko"))


def test_services_are_listed_whole_or_up_to_a_limit(in_flow, ivcap_journal):
    """Without a limit all services are listed. The listing is not recorded as their maker."""
    every = in_flow(list_services)
    assert {"echo", "sleep", "fail"} <= {service.name for service in every}
    assert len(in_flow(lambda: list_services(limit=2))) == 2
    [run] = ivcap_journal.runs.recent(1)
    relations = [r for r in run_graph(ivcap_journal, run.id).relations.values() if ":service:" in r.source + r.target]
    assert {r.type for r in relations} == {"used"}


def test_a_registered_service_stays_what_it_is(in_flow, effects, unique, tmp_path):
    """An unchanged registration is sent once.

    A changed definition replaces the old one. A file works like a mapping.
    """
    definition = batch(unique, parameters=[{"name": "a", "type": "int", "description": "A."}])
    path = tmp_path / "service.json"
    path.write_text(json.dumps(definition))

    first = in_flow(lambda: register_service(definition))
    sent = effects.count(f"/1/services2/{first.urn}", "PUT")
    assert in_flow(lambda: register_service(path)) == first
    assert effects.count(f"/1/services2/{first.urn}", "PUT") == sent == 1
    changed = in_flow(lambda: register_service({**definition, "description": "Does less."}))
    assert (changed.urn, changed.description) == (first.urn, "Does less.")


def test_a_planned_registration_sends_nothing(in_flow, effects, unique):
    """A plan lists the registration, and ends where the service would be needed."""
    with plan() as planned, pytest.raises(waiting.PlannedError):
        in_flow(lambda: place_order(register_service(batch(unique)), {}))
    assert [effect.noun for effect in planned.new] == ["service"]
    assert effects.count("/1/orders") == 0


def test_a_wrong_definition_says_what_it_lacks(in_flow, tmp_path):
    """A definition that is incomplete, or a file that is not one, is an error that says what is missing."""
    with pytest.raises(InputError, match="lacks description, controller-schema, controller"):
        in_flow(lambda: register_service({"name": "x"}))
    (tmp_path / "list.yaml").write_text("- a\n")
    for path, words in ((tmp_path / "list.yaml", "must be a mapping"), (tmp_path / "none.yaml", "cannot be read")):
        with pytest.raises(InputError, match=words):
            in_flow(lambda path=path: register_service(path))


def test_orders_are_listed_and_their_logs_read(in_flow, unique):
    """Orders are listed by status and name, all or some. A log is read whole or from its end."""

    def body():
        failing = place_order("fail", {"message": f"{unique}\nlast words"}, name=unique)
        wait_for_orders([failing], raise_on_failure=False)
        some = list_orders(filter=f"name ~= '{unique}%'")
        none = list_orders(filter=f"name ~= '{unique}%'", status="succeeded")
        return failing, some, none, order_log(failing), order_log(failing, lines=1), list_orders(limit=1)

    failing, some, none, whole, end, one = in_flow(body)
    assert [order.urn for order in some] == [failing.urn] and none == [] and len(one) == 1
    assert "last words" in whole and whole.endswith(end) and "\n" not in end


def test_products_of_an_order_go_into_its_collection(in_flow, on_platform, ivcap_journal, telling, unique):
    """Products are added to the collection once, after success, even if the order is waited for twice.

    The membership is recorded.
    """
    urn = f"urn:ivcap:collection:{unique}"
    on_platform(lambda client: client.collections.create(unique, urn=urn))

    def body():
        order = place_order(telling, {"message": unique}, collection=urn)
        wait_for_orders([order])
        return wait_for_orders([order])[0]

    order = in_flow(body)

    async def members(client):
        return [item.urn async for item in client.collections.items(urn)]

    products = [product.urn for product in order.products]
    assert on_platform(members) == products and order.collection == urn
    relations = run_graph(ivcap_journal, ivcap_journal.runs.recent(1)[0].id).relations.values()
    assert [(r.source, r.target) for r in relations if r.type == "hadMember"] == [(urn, each) for each in products]


def test_an_unknown_collection_is_told_before_an_order_is_sent(in_flow, effects, unique):
    """An unknown collection is an error before the order is sent, so nothing is spent."""
    before = effects.count("/1/orders")
    with pytest.raises(NotFoundError):
        in_flow(lambda: place_order("echo", {"message": unique}, collection=f"urn:ivcap:collection:{unique}"))
    assert effects.count("/1/orders") == before


def test_a_request_may_be_an_aspect(in_flow, effects, unique):
    """The content of the aspect is checked, is the request in the handle, and makes one job."""

    def body():
        note = attach_aspect("urn:example:thing", {"$schema": "urn:example:schema:request.1", "message": unique})
        first = request_job("echo", request_aspect=note)
        again = request_job("echo", request_aspect=note.urn)
        [done] = wait_for_jobs([first])
        return first, again, done

    first, again, done = in_flow(body)
    assert first.urn == again.urn and first.request["message"] == unique
    assert done.result["message"] == unique
    with pytest.raises(InputError, match="either a request or a request_aspect"):
        in_flow(lambda: request_job("echo"))

    def wrong():
        note = attach_aspect("urn:example:thing", {"$schema": "urn:example:schema:request.1", "mesage": unique})
        return request_job("echo", request_aspect=note)

    with pytest.raises(ParameterError, match="did you mean 'message'"):
        in_flow(wrong)


def test_a_job_tells_its_events_and_results_of_any_type(in_flow, telling, unique):
    """The service's own events come in order, at most the last hundred. Results are JSON, text or bytes."""

    def body():
        asked = [
            request_job(telling, {"message": unique, "times": 103}),
            request_job(telling, {"message": unique, "kind": "text"}),
            request_job(telling, {"message": unique, "kind": "bytes"}),
        ]
        done = wait_for_jobs(asked, events=True)
        return done, [job_result(job) for job in done], job_result(done[0].urn)

    (many, *_), results, by_urn = in_flow(body)
    assert [event.data["options"]["number"] for event in many.events] == list(range(3, 103))
    assert all(event.type == "ivcap.job.event" and event.at is not None for event in many.events)
    assert results == [{"said": unique}, unique, b"\x00\xff"] and by_urn == results[0]


def test_events_of_a_success_are_read_on_request(in_flow, telling, unique):
    """By default a wait spends no request on them."""
    job = in_flow(lambda: wait_for_jobs([request_job(telling, {"message": unique})])[0])
    assert job.succeeded and job.events == ()
    assert [event.type for event in in_flow(lambda: wait_for_jobs([job], events=True)[0]).events] == ["ivcap.job.event"]


def test_events_and_results_are_on_record(in_flow, telling, unique, ivcap_journal):
    """The service's events are recorded with the job, in short form."""

    def body():
        return wait_for_jobs([request_job(telling, {"message": unique})], events=True)[0]

    job = in_flow(body)
    facts = [f.record for f in ivcap_journal.facts.about(job.urn) if f.record.attributes.get("events")]
    [event] = facts[-1].attributes["events"]
    assert (event["name"], event["message"]) == ("step", f"{unique} 0") and event["at"].startswith("20")


def test_a_result_that_is_not_there_is_an_error(in_flow, unique):
    """A running job has no result yet. A failed one has an error with the reason."""

    def body(service, request):
        job = request_job(service, request)
        if service == "fail":
            wait_for_jobs([job], raise_on_failure=False)
        return job_result(job)

    with pytest.raises(InputError, match="has no result yet"):
        in_flow(lambda: body("sleep", {"seconds": 2}))
    with pytest.raises(JobFailedError, match=unique):
        in_flow(lambda: body("fail", {"message": unique}))


def test_jobs_are_listed_by_service_and_across(in_flow, unique):
    """The list of all jobs has those of both services, and each service's list only its own."""

    def body():
        done = wait_for_jobs([request_job("echo", {"message": unique}), request_job("sleep", {"seconds": 0.01})])
        return (
            done,
            list_jobs(status="succeeded"),
            list_jobs("echo"),
            list_jobs("echo", status="failed", limit=3),
            list_jobs(limit=1),
        )

    (echoed, slept), across, own, failed, one = in_flow(body)
    assert {echoed.urn, slept.urn} <= {job.urn for job in across}
    assert {job.service_name for job in across if job.urn in (echoed.urn, slept.urn)} == {"echo", "sleep"}
    urns = [job.urn for job in own]
    assert echoed.urn in urns and slept.urn not in urns and failed == [] and len(one) == 1


def test_a_job_is_attached_by_its_urn_alone(in_flow, unique):
    """The job's service is found from its URN."""

    def body():
        return get_job(wait_for_jobs([request_job("echo", {"message": unique})])[0].urn)

    job = in_flow(body)
    assert (job.service_name, job.request, job.status) == ("echo", {"message": unique}, "succeeded")


def test_an_agent_runs_once_and_is_waited_for(in_flow, effects, unique):
    """An agent is named by name or URN, with a mapping or a model. An equal request in a run is the same job."""

    class Message(BaseModel):
        message: str

    def body():
        first = exec_agent("echo", {"message": unique})
        return first, exec_agent(find_service("echo"), Message(message=unique), timeout=20)

    first, again = in_flow(body)
    assert first.urn == again.urn and first.result == {"message": unique}
    with pytest.raises(JobFailedError, match=unique):
        in_flow(lambda: exec_agent("fail", {"message": unique}))
    with pytest.raises(WaitTimeoutError):
        in_flow(lambda: exec_agent("sleep", {"seconds": 3}, timeout=0.1))
    with pytest.raises(InputError, match="no service named"):
        in_flow(lambda: exec_agent(unique, {}))


@pytest.mark.long
def test_a_deadline_names_the_jobs_of_all_services(in_flow, telling):
    """A wait that times out names the pending jobs of all services."""

    def body():
        slow = [request_job("sleep", {"seconds": 12.0}), request_job("sleep", {"seconds": 12.1})]
        quick = request_job(telling, {"message": "x"})
        wait_for_jobs([quick])
        try:
            wait_for_jobs([*slow, quick], timeout=2.0)
        except WaitTimeoutError as late:
            return [job.urn for job in slow], late.pending

    slow, pending = in_flow(body)
    assert pending == slow


def watched_now():
    return [poller for pollers in watching._pollers.values() for poller in pollers.values()]


@pytest.mark.long
def test_a_job_that_cannot_be_read_ends_the_wait_and_its_polling(in_flow, embedded_platform):
    """A job that cannot be read ends the whole wait, and its polling stops."""
    watched = []

    def body():
        slow = request_job("sleep", {"seconds": 12.0})
        gone = slow.model_copy(update={"urn": "urn:ivcap:job:00000000-0000-4000-8000-000000000000"})
        began = time.monotonic()
        with pytest.raises(NotFoundError):
            wait_for_jobs([slow, gone])
        watched.extend(urn for each in watched_now() for urn in each.watched)
        return slow.urn, time.monotonic() - began

    slow, taken = in_flow(body)
    assert taken < 10 and slow not in watched


def test_an_order_that_cannot_be_read_ends_the_wait_for_jobs_beside_it(in_flow, embedded_platform):
    """If a wait for orders and jobs ends with an error, nothing of it is polled any more."""

    def body():
        slow = request_job("sleep", {"seconds": 12.0})
        with pytest.raises(NotFoundError):
            wait_or_park([slow, "urn:ivcap:order:00000000-0000-4000-8000-000000000000"])
        return slow.urn, [urn for each in watched_now() for urn in each.watched]

    slow, watched = in_flow(body)
    assert slow not in watched


def test_pollers_go_with_their_client(embedded_platform, ivcap_journal):
    """No poller remains after its waits have ended, and none of a client that was closed."""

    async def wait():
        client = IvcapCredentials.from_environment().get_client()
        service = (await client.services.by_name("echo")).urn
        job = await client.jobs.request(service, {"message": "x"})
        platform, account = await client.platform(), await client.account()
        call = IvcapCall(ivcap_journal, None, platform, account, Settings.current(), client)
        await watching.wait_for(call, watching.JobSource(client.jobs), [Wait(job.urn, "job", service)], timeout=20)
        for _ in range(50):
            if not watching._pollers[client]:
                break
            await asyncio.sleep(0.1)
        assert not watching._pollers[client]
        await client.aclose()
        return weakref.ref(client)

    left = loop.run(wait())
    for _ in range(20):
        gc.collect()
        if left() is None:
            break
        time.sleep(0.1)
    assert left() is None


@pytest.mark.long
def test_a_long_wait_says_how_far_it_is(in_flow, monkeypatch):
    """A long wait logs the number of jobs by status, at its begin and at intervals, in the log of its run."""
    said = []

    class Heard(logging.Handler):
        def emit(self, record):
            said.append((record.getMessage(), TaskRunContext.get()))

    monkeypatch.setattr(poller, "TELLING", 0.4)
    heard = Heard(logging.INFO)
    poller.logger.addHandler(heard)
    try:
        in_flow(lambda: wait_for_jobs([request_job("sleep", {"seconds": 3 + i / 100}) for i in range(2)]))
    finally:
        poller.logger.removeHandler(heard)
    words = [message for message, _ in said]
    assert words[0] == "Waiting for 2 jobs: sleep (2)." and any("2 executing (sleep (2))" in line for line in words)
    assert 2 <= len(words) <= 12
    assert {context.task_run.name for _, context in said} == {"wait for 2 jobs: sleep (2)"}


def test_a_platform_without_events_fails_no_wait(in_flow, monkeypatch, unique):
    """A platform without event streams does not fail a wait. A 404 may be about one job, so each job is tried."""
    asked = []
    opened = job_events.event_stream

    def absent(session, path, **options):
        asked.append(path)
        return opened(session, "/1/no-such-route", **options)

    monkeypatch.setattr(job_events, "event_stream", absent)
    done = in_flow(lambda: wait_for_jobs([request_job("echo", {"message": unique})], events=True))
    again = in_flow(lambda: wait_for_jobs(done, events=True))
    assert [job.events for job in [*done, *again]] == [(), ()] and 2 <= len(asked) <= 3


async def test_a_list_is_read_no_further_than_asked():
    """A list is read only up to the last record that is wanted, also with a filter by status."""
    read = []

    async def records():
        for number, status in enumerate(("failed", "succeeded", "failed", "succeeded", "failed")):
            read.append(number)
            yield OrderRecord(id=f"o{number}", status=status)

    async def first(limit, status="succeeded"):
        read.clear()
        found = await first_of(records(), lambda record: record.handle("p"), status=status, limit=limit)
        return [order.urn for order in found], len(read)

    assert await first(0) == ([], 0)
    assert await first(1) == (["urn:ivcap:order:o1"], 2)
    assert await first(2) == (["urn:ivcap:order:o1", "urn:ivcap:order:o3"], 4)
    assert (await first(None))[1] == 5 and len((await first(None, None))[0]) == 5
