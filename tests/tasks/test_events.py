"""What happens to effects and runs is emitted as events, which a real Prefect server lists."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import prefect.events
import pytest

from ivcap_flows.errors import OrderFailedError, SpendLimitError
from ivcap_flows.in_prefect import events as emitted
from ivcap_flows.sinks import Delivery, drain
from ivcap_flows.tasks import place_order, register_model_run, request_job, wait_for_jobs, wait_for_orders

SECRET = "hunter2-and-more-of-it"


@pytest.fixture
def listed(prefect_server: dict[str, str], effects: Any) -> Callable[..., list[dict[str, Any]]]:
    """Return the events of this package with these names about the newest run, once so many are listed."""

    def of_run(*names: str, count: int | None = None) -> list[dict[str, Any]]:
        [run, *_] = effects.journal.runs.recent(1)
        flow_run = effects.journal.runs.attempts(run.id)[0].flow_run_id
        chosen = {"related": {"id": [f"prefect.flow-run.{flow_run}"]}, "event": {"name": list(names)}}
        end = time.monotonic() + 60
        while True:
            asked = {"filter": chosen, "limit": 50}
            reply = httpx.post(f"{prefect_server['PREFECT_API_URL']}/events/filter", json=asked, timeout=60)
            found: list[dict[str, Any]] = reply.raise_for_status().json()["events"]
            if len(found) == (len(names) if count is None else count):
                return sorted(found, key=lambda event: names.index(event["event"]))
            assert time.monotonic() < end, found
            time.sleep(0.2)

    return of_run


def test_the_events_of_an_order_and_a_job(in_flow, effects, listed, unique):
    """Placed and succeeded, each once, with the service, the key and the run, but nothing of the parameters."""

    def body():
        order = place_order("echo", {"message": f"{unique} {SECRET}"}, name="as I call it")
        job = request_job("echo", {"message": f"{unique} {SECRET}"})
        for _ in range(2):
            wait_for_orders([order])
            wait_for_jobs([job])
        return order, job

    order, job = in_flow(body)
    placed, succeeded, *of_job = listed(
        *(f"ivcap.{noun}.{what}" for noun in ("order", "job") for what in ("placed", "succeeded"))
    )
    [run] = effects.journal.runs.recent(1)
    assert placed["resource"] == {
        "prefect.resource.id": order.urn,
        "prefect.resource.name": "as I call it",
        "ivcap.service": "echo",
    }
    assert placed["payload"] == {
        "key": order.key,
        "service": "echo",
        "scope": f"run:{run.id}",
        "generation": 0,
        "run": run.id,
        "platform": order.platform,
    }
    assert succeeded["payload"]["status"] == "succeeded"
    assert [each["resource"]["prefect.resource.id"] for each in of_job] == [job.urn, job.urn]
    assert SECRET not in str([placed, succeeded, of_job])


def test_a_doubt_and_what_was_adopted(in_flow, effects, listed, unique):
    """The lost reply is a doubt about the effect, and the order that was found is adopted, not placed."""
    effects.embedded.add_fault(method="POST", path="^/1/orders$", count=1, drop_reply_after_effect=True)
    order = in_flow(lambda: place_order("echo", {"message": unique}))
    doubt, adopted = listed("ivcap-flows.effect.in-doubt", "ivcap.order.adopted")
    assert doubt["resource"]["prefect.resource.id"] == f"ivcap-flows.effect.{order.key}"
    assert doubt["payload"]["reason"]
    assert (adopted["resource"]["prefect.resource.id"], adopted["payload"]["matched_by"]) == (order.urn, "key")
    assert listed("ivcap.order.placed", count=0) == []


def test_what_failed_and_was_placed_again(in_flow, listed, unique):
    """Placed, failed, resubmitted, failed: one event each, also if a later call gets the failed one again."""

    def body():
        for most in (0, 1):
            order = place_order("fail", {"message": unique}, max_resubmits=most)
            with pytest.raises(OrderFailedError):
                wait_for_orders([order])

    in_flow(body)
    found = listed("ivcap.order.placed", "ivcap.order.resubmitted", "ivcap.order.failed", count=4)
    assert [event["event"].rpartition(".")[2] for event in found] == ["placed", "resubmitted", "failed", "failed"]
    assert [event["payload"]["generation"] for event in found[:2]] == [0, 1]


def test_orphans_are_those_that_no_try_waits_for(in_flow, listed, unique):
    """A try of the flow that Prefect repeats leaves no orphan; the end of the last try does."""

    def body():
        place_order("sleep", {"seconds": 60.0}, discriminator=unique)
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError):
        in_flow(body, retries=1)
    [orphaned] = listed("ivcap.order.orphaned")
    assert orphaned["payload"]["outcome"] == "failed"
    assert orphaned["resource"]["prefect.resource.id"].startswith("urn:ivcap:order:")


def test_the_limit_of_spending(in_flow, listed, unique, monkeypatch):
    """What was not placed is no order, but an event of the run."""
    monkeypatch.setenv("IVCAP_FLOWS_MAX_ORDERS", "0")
    with pytest.raises(SpendLimitError):
        in_flow(lambda: place_order("echo", {"message": unique}))
    [limit] = listed("ivcap-flows.spend.limit")
    told = limit["payload"]
    assert (told["service"], told["limit"], told["placed"]) == ("echo", 0, 0)
    assert limit["resource"]["prefect.resource.id"] == f"ivcap-flows.run.{told['run']}"


def test_a_registered_model_run(in_flow, listed, ended_order, artifact, registry):
    """Once, though it is requested twice."""

    def body():
        data = {registry.template: artifact}
        given = {"inputs": data, "outputs": data, "terms": registry.terms}
        return [register_model_run(ended_order, workflow_template=registry.workflow, **given) for _ in range(2)]

    run, _ = in_flow(body)
    [registered] = listed("provena.model-run.registered")
    assert registered["resource"]["prefect.resource.id"] == f"provena.model-run.{run.urn}"
    assert registered["payload"]["subject"]


def test_a_refused_delivery(run_here, effects, prefect_server):
    """About the run, with the sink and its reason."""
    run_here(lambda: None)
    [run] = effects.journal.runs.recent(1)

    class Refusing:
        name = "refusing"

        async def deliver(self, run, graph):
            return Delivery("dead", f"too large; password={SECRET}")

    drain(effects.journal, [Refusing()])
    chosen = {"resource": {"id": [f"ivcap-flows.run.{run.id}"]}, "event": {"name": ["ivcap-flows.delivery.refused"]}}
    end = time.monotonic() + 60
    while True:
        asked = {"filter": chosen}
        reply = httpx.post(f"{prefect_server['PREFECT_API_URL']}/events/filter", json=asked, timeout=60)
        if found := reply.json()["events"]:
            break
        assert time.monotonic() < end
        time.sleep(0.2)
    assert found[0]["payload"]["sink"] == found[0]["resource"]["ivcap-flows.sink"] == "refusing"
    assert found[0]["payload"]["reason"].startswith("too large") and SECRET not in str(found)


def test_events_that_cannot_be_emitted_fail_nothing(in_script, effects, unique, monkeypatch):
    """The order is placed, and the journal has it."""

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("away")

    monkeypatch.setattr(prefect.events, "emit_event", fails)
    in_script(lambda: wait_for_orders([place_order("echo", {"message": unique})]))
    assert [intent.status for intent in effects.intents("order")] == ["succeeded"]


def test_events_are_dropped_when_too_many_wait(in_script, unique, monkeypatch):
    """A process that ends while the server is away would try each of them for seconds."""
    sent: list[str] = []
    monkeypatch.setattr(prefect.events, "emit_event", lambda name, *_, **__: sent.append(name))
    monkeypatch.setattr(emitted, "_MOST_WAITING", -1)
    in_script(lambda: place_order("echo", {"message": unique}))
    assert sent == []


ALONE = """
from prefect.events.worker import EventsWorker
from ivcap_flows.capture import journal
from ivcap_flows.journal import NewIntent
intents = journal().intents
wanted = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {}, subject="service")
intents.settle(intents.mark_sent(intents.claim(wanted).intent), urn="urn:o", outcome={}, how="sent")
print(len(EventsWorker._instances))
"""


def test_a_process_without_flow_and_server_starts_none(prefect_server):
    """Prefect would otherwise start a server for the events alone."""
    environment = {name: value for name, value in prefect_server.items() if name != "PREFECT_API_URL"}
    command = [sys.executable, "-c", ALONE]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "0\n", ended
