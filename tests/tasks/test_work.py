"""Services, orders, jobs and agents as tasks: find, list, register, and follow them to their end."""

from __future__ import annotations

import gc
import json
import logging
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from eventually import auntil, until
from on_record import last_graph
from prefect.context import TaskRunContext
from pydantic import BaseModel

from ivcap_flows import loop, tasks, wait_or_park
from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.durable import plan, poller
from ivcap_flows.errors import InputError, JobFailedError, NotFoundError, ParameterError, WaitTimeoutError
from ivcap_flows.handles import Job
from ivcap_flows.ivcap.idempotency_records import IdempotencyRecords
from ivcap_flows.ivcap.orders import OrderRecord
from ivcap_flows.journal.rows import Wait
from ivcap_flows.settings import Settings
from ivcap_flows.sinks import run_graph
from ivcap_flows.tasks import poll_sources as watching
from ivcap_flows.tasks import waiting
from ivcap_flows.tasks.call import IvcapCall
from ivcap_flows.tasks.waiting import first_of

SERVICE = """
def run(request, job):
    for number in range(request.get("times", 1)):
        job.event("step", message=f"{request['message']} {number}", number=number)
    job.add_product("told.txt", request["message"].encode(), "text/plain")
    kind = request.get("kind", "json")
    return {"json": {"said": request["message"]}, "text": request["message"], "bytes": bytes([0, 255])}[kind]
"""


@pytest.fixture(scope="session")
def telling(serve):
    """The name of a service that sends events, makes a product, and returns results of every type."""
    parameters = [
        {"name": "message", "type": "string"},
        {"name": "kind", "type": "string", "optional": True},
        {"name": "times", "type": "int", "optional": True},
    ]
    return serve("telling", SERVICE, parameters)


def test_a_service_is_found_and_used_by_its_handle(in_script, unique):
    """For orders and jobs."""

    def body():
        service = tasks.find_service("echo")
        order = tasks.place_order(service, {"message": unique})
        job = tasks.request_job(service, {"message": unique})
        return service, order, job

    service, order, job = in_script(body)
    assert service.name == "echo" and order.service == job.service == service.urn


def test_services_are_listed_whole_or_up_to_a_limit(in_script, ivcap_journal):
    """Without a limit all services are listed. The listing is not recorded as their maker."""
    every, two = in_script(lambda: (tasks.list_services(), tasks.list_services(limit=2)))
    assert {"echo", "sleep", "fail"} <= {service.name for service in every} and len(two) == 2
    [run] = ivcap_journal.runs.recent(1)
    relations = [r for r in run_graph(ivcap_journal, run.id).relations.values() if ":service:" in r.source + r.target]
    assert {r.type for r in relations} == {"used"}


def test_a_registered_service_stays_what_it_is(in_script, effects, unique, tmp_path):
    """An unchanged registration is sent once, also by another run. A changed definition replaces the old one.

    A file works like a mapping. A plan lists the registration, and ends where the service would be needed. A definition
    that is incomplete, or a file that is not one, is an error that says what is missing.
    """
    definition = {
        "name": unique,
        "description": "Does nothing here \U0001f642",
        "controller-schema": "urn:ivcap:schema.service.batch.1",
        "controller": {"$schema": "urn:ivcap:schema.service.batch.1", "image": "none", "command": ["none"]},
        "parameters": [{"name": "a", "type": "int", "description": "A."}],
    }
    path = tmp_path / "service.json"
    path.write_text(json.dumps(definition, indent="\t"))
    with plan() as planned, pytest.raises(waiting.PlannedError):
        in_script(lambda: tasks.place_order(tasks.register_service(definition), {}))
    assert [effect.noun for effect in planned.new] == ["service"]

    (tmp_path / "list.yaml").write_text("- a\n")
    for given, words in (
        ({"name": "x"}, "lacks description, controller-schema, controller"),
        (
            tmp_path / "list.yaml",
            "The fields of the service in .* are wrong. line 1: Input should be a valid dictionary",
        ),
        (tmp_path / "none.yaml", "cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            in_script(lambda given=given: tasks.register_service(given))

    def again():
        same = tasks.register_service(path)
        return same, sent(), tasks.register_service({**definition, "description": "Does less."})

    def sent():
        return effects.count(f"/1/services2/{first.urn}", "PUT")

    first = in_script(lambda: tasks.register_service(definition))
    assert sent() == 1
    same, times, changed = in_script(again)
    assert (same, times) == (first, 1)
    assert (changed.urn, changed.description) == (first.urn, "Does less.") and effects.count("/1/orders") == 0


def test_orders_are_listed_and_their_logs_read(in_script, unique):
    """Orders are listed by status and name, all or some. A log is read whole or from its end."""

    def body():
        failing = tasks.place_order("fail", {"message": f"{unique}\nlast words"}, name=unique)
        tasks.wait_for_orders([failing], raise_on_failure=False)
        some = tasks.list_orders(filter=f"name ~= '{unique}%'")
        none = tasks.list_orders(filter=f"name ~= '{unique}%'", status="succeeded")
        return (
            failing,
            some,
            none,
            tasks.order_log(failing),
            tasks.order_log(failing, lines=1),
            tasks.list_orders(limit=1),
        )

    failing, some, none, whole, end, one = in_script(body)
    assert [order.urn for order in some] == [failing.urn] and none == [] and len(one) == 1
    assert "last words" in whole and whole.endswith(end) and "\n" not in end


@pytest.mark.parametrize("status", [403, 404])
def test_work_of_a_service_that_cannot_be_read_has_no_name_of_it(in_script, effects, unique, status):
    """An account may see an order or a job and not its service, which is read for its name alone."""

    def body():
        urns = [ask("echo", {"message": unique}).urn for ask in (tasks.place_order, tasks.request_job)]
        effects.embedded.add_fault(method="GET", path="^/1/services2/[^/]+$", status=status)
        read = [tasks.get_order(urns[0]), tasks.get_job(urns[1])]
        return urns, read, tasks.wait_for_orders(urns[:1]) + tasks.wait_for_jobs(urns[1:])

    urns, *found = in_script(body)
    assert [[(each.urn, each.service_name) for each in work] for work in found] == [[(urn, None) for urn in urns]] * 2


def test_products_of_an_order_go_into_its_collection(in_script, effects, on_platform, ivcap_journal, telling, unique):
    """Products are added to the collection once, after success, even if the order is waited for twice.

    The membership is recorded. An unknown collection is an error before the order is sent, so nothing is spent.
    """
    urn = f"urn:ivcap:collection:{unique}"
    on_platform(lambda client: client.collections.create(unique, urn=urn))

    def body():
        with pytest.raises(NotFoundError):
            tasks.place_order(telling, {"message": unique}, collection=f"{urn}-none")
        order = tasks.place_order(telling, {"message": unique}, collection=urn)
        tasks.wait_for_orders([order])
        return tasks.wait_for_orders([order])[0]

    order = in_script(body)

    async def members(client):
        return [item.urn async for item in client.collections.items(urn)]

    products = [product.urn for product in order.products]
    assert on_platform(members) == products and order.collection == urn and effects.count("/1/orders") == 1
    relations = last_graph(ivcap_journal).relations.values()
    assert [(r.source, r.target) for r in relations if r.type == "hadMember"] == [(urn, each) for each in products]


def test_a_request_may_be_an_aspect(in_script, unique):
    """The content of the aspect is checked, is the request in the handle, and makes one job."""

    def request(name):
        return tasks.attach_aspect("urn:example:thing", {"$schema": "urn:example:schema:request.1", name: unique})

    def body():
        note = request("message")
        first = tasks.request_job("echo", request_aspect=note)
        again = tasks.request_job("echo", request_aspect=note.urn)
        with pytest.raises(InputError, match="either a request or a request_aspect"):
            tasks.request_job("echo")
        with pytest.raises(ParameterError, match="did you mean 'message'"):
            tasks.request_job("echo", request_aspect=request("mesage"))
        return first, again, tasks.wait_for_jobs([first])

    first, again, [done] = in_script(body)
    assert first.urn == again.urn and first.request["message"] == unique
    assert done.result["message"] == unique


def test_a_job_tells_its_events_and_results_of_any_type(in_script, telling, unique, ivcap_journal):
    """The service's own events come in order, at most the last hundred, are recorded in short form, and are read of a
    success only on request. Results are JSON, text or bytes; a running job has none yet, and a failed one a reason."""

    def body():
        asked = [
            tasks.request_job(telling, {"message": unique, "times": 103}),
            tasks.request_job(telling, {"message": unique, "kind": "text"}),
            tasks.request_job(telling, {"message": unique, "kind": "bytes"}),
        ]
        [quiet, *_] = tasks.wait_for_jobs(asked[1:])
        done = tasks.wait_for_jobs(asked, events=True)
        with pytest.raises(InputError, match="has no result yet"):
            tasks.ivcap.job_result(tasks.request_job("sleep", {"seconds": 2}))
        [failed] = tasks.wait_for_jobs([tasks.request_job("fail", {"message": unique})], raise_on_failure=False)
        with pytest.raises(JobFailedError, match=unique):
            tasks.ivcap.job_result(failed)
        return quiet, done, [tasks.ivcap.job_result(job) for job in done], tasks.ivcap.job_result(done[0].urn)

    quiet, (many, *others), results, by_urn = in_script(body)
    assert quiet.succeeded and quiet.events == ()
    assert [event.data["options"]["number"] for event in many.events] == list(range(3, 103))
    assert all(event.type == "ivcap.job.event" and event.at is not None for event in many.events)
    assert results == [{"said": unique}, unique, b"\x00\xff"] and by_urn == results[0]
    facts = [f.record for f in ivcap_journal.facts.about(others[0].urn) if f.record.attributes.get("events")]
    [event] = facts[-1].attributes["events"]
    assert (event["name"], event["message"]) == ("step", f"{unique} 0") and event["at"].startswith("20")


def test_jobs_are_listed_by_service_and_across(in_script, unique):
    """The list of all jobs has those of both services, and each service's list only its own.

    A job's service is found from its URN alone.
    """

    def body():
        done = tasks.wait_for_jobs(
            [tasks.request_job("echo", {"message": unique}), tasks.request_job("sleep", {"seconds": 0.01})]
        )
        return (
            done,
            tasks.get_job(done[0].urn),
            tasks.list_jobs(status="succeeded"),
            tasks.list_jobs("echo"),
            tasks.list_jobs("echo", status="failed", limit=3),
            tasks.list_jobs(limit=1),
        )

    (echoed, slept), again, across, own, failed, one = in_script(body)
    assert (again.service_name, again.request, again.status) == ("echo", {"message": unique}, "succeeded")
    assert {echoed.urn, slept.urn} <= {job.urn for job in across}
    assert {job.service_name for job in across if job.urn in (echoed.urn, slept.urn)} == {"echo", "sleep"}
    urns = [job.urn for job in own]
    assert echoed.urn in urns and slept.urn not in urns and failed == [] and len(one) == 1


def test_an_agent_runs_once_and_is_waited_for(in_script, unique):
    """An agent is named by name or URN, with a mapping or a model. An equal request in a run is the same job."""

    class Message(BaseModel):
        message: str

    def body():
        with pytest.raises(JobFailedError, match=unique):
            tasks.ivcap.exec_agent("fail", {"message": unique})
        with pytest.raises(WaitTimeoutError):
            tasks.ivcap.exec_agent("sleep", {"seconds": 3}, timeout=0.1)
        with pytest.raises(InputError, match="no service named"):
            tasks.ivcap.exec_agent(unique, {})
        first = tasks.ivcap.exec_agent("echo", {"message": unique})
        return first, tasks.ivcap.exec_agent(tasks.find_service("echo"), Message(message=unique), timeout=20)

    first, again = in_script(body)
    assert first.urn == again.urn and first.result == {"message": unique}


def test_work_that_cannot_be_read_ends_the_wait_and_its_polling(in_script, soon_missing):
    """Of jobs, and of orders and jobs together: nothing of such a wait is polled any more."""
    nobody = "00000000-0000-4000-8000-000000000000"

    def body():
        slow = tasks.request_job("sleep", {"seconds": 20.0})
        gone = slow.model_copy(update={"urn": f"urn:ivcap:job:{nobody}"})
        for wait in (
            lambda: tasks.wait_for_jobs([slow, gone]),
            lambda: wait_or_park([slow, f"urn:ivcap:order:{nobody}"]),
        ):
            with pytest.raises(NotFoundError):
                wait()
            pollers = [poller for of_client in watching._pollers.values() for poller in of_client.values()]
            assert not any(slow.urn in poller.watched for poller in pollers)
        assert not tasks.get_job(slow.urn).done

    in_script(body)


def test_pollers_go_with_their_client(embedded_platform, ivcap_journal):
    """No poller remains after its waits have ended, and none of a client that was closed."""

    async def wait():
        client = IvcapCredentials.from_environment().get_client()
        service = (await client.services.by_name("echo")).urn
        job = await client.jobs.request(service, {"message": "x"})
        platform, account = await client.platform(), await client.account()
        call = IvcapCall(ivcap_journal, None, platform, account, Settings.current(), client)
        await watching.wait_for(call, watching.JobSource(client.jobs), [Wait(job.urn, "job", service)], timeout=60)
        await auntil(lambda: not watching._pollers[client])
        await client.aclose()
        return weakref.ref(client)

    left = loop.run(wait())

    def is_deleted():
        gc.collect()
        return left() is None

    until(is_deleted)


@pytest.mark.long
def test_a_long_wait_says_how_far_it_is(in_flow, monkeypatch):
    """A long wait logs the number of jobs by status, at its begin and at intervals, in the log of its run."""
    said, took = [], []

    class Heard(logging.Handler):
        def emit(self, record):
            said.append((record.getMessage(), TaskRunContext.get()))

    def body():
        work = [tasks.request_job("sleep", {"seconds": 3 + i / 100}) for i in range(2)]
        began = time.monotonic()
        tasks.wait_for_jobs(work)
        took.append(time.monotonic() - began)

    monkeypatch.setattr(poller, "TELLING", 0.4)
    heard = Heard(logging.INFO)
    poller.logger.addHandler(heard)
    try:
        in_flow(body)
    finally:
        poller.logger.removeHandler(heard)
    words = [message for message, _ in said]
    assert words[0] == "Waiting for 2 jobs: sleep (2)." and any("2 executing (sleep (2))" in line for line in words)
    assert 2 <= len(words) <= 2 + took[0] / 0.4
    assert {context.task_run.name for _, context in said} == {"wait for 2 jobs: sleep (2)"}


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


LARGE = """
def run(request, job):
    job.event("step", message="half way", more="xy" * 100_000)
    return {"message": request["message"], "more": "xy" * 1_000_000}
"""


@pytest.mark.catches("whole results kept", "result not read again")
def test_a_long_result_is_kept_on_the_platform_alone(in_flow, effects, on_platform, serve, unique):
    """The wait returns all of it, and so does the same request in the next try, as with a short one. Neither the
    journal nor the idempotency record has it."""
    seen: list[Job] = []
    large = serve("tasks-large", LARGE, [{"name": "message", "type": "string"}])

    def body() -> None:
        asked = tasks.request_job(large, {"message": unique})
        seen.append(asked)
        if len(seen) == 1:
            seen.extend(tasks.wait_for_jobs([asked], events=True))
            raise RuntimeError("again")

    in_flow(body, retries=1)
    first, ended, kept = seen
    assert not first.done and ended.result == {"message": unique, "more": "xy" * 1_000_000}
    assert len(str(ended.events[0].data)) > 200_000
    assert (kept.urn, kept.result) == (ended.urn, ended.result)

    database = Path(effects.journal.url.removeprefix("sqlite:///"))
    files = [path for path in database.parent.glob(f"{database.name}*") if path.is_file()]
    assert not any(b"xy" * 1_000 in path.read_bytes() for path in files)
    [intent] = effects.intents("job")
    assert len(intent.outcome["result_sha256"]) == 64 and intent.outcome["result"] is None

    async def record(client: Any) -> Any:
        return await IdempotencyRecords(client.aspects, await client.account(), client.visibility_delay).read(
            intent.key
        )

    assert "xy" * 1_000 not in str(on_platform(record))


def test_a_call_that_waits_to_be_recorded_holds_no_result():
    """No record has it, and thousands of calls may wait."""
    job = Job(urn="urn:ivcap:job:1", platform="p", service="s", result=["large"])
    look = ValueScan()
    look.at("jobs", [job])
    assert look.handles == [("jobs", job.model_copy(update={"result": None}))] and job.result == ["large"]
