"""What happens to effects and runs is emitted as events, which a real Prefect server lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import prefect.events
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from ivcap_flows.errors import OrderFailedError, SpendLimitError
from ivcap_flows.in_prefect import events
from ivcap_flows.sinks import Delivery, drain
from ivcap_flows.tasks import place_order, register_model_run, request_job, wait_for_jobs, wait_for_orders

SECRET = "hunter2-and-more-of-it"


@pytest.fixture
def listed(prefect_events) -> Callable[..., list[dict[str, Any]]]:
    """Return the events of this package about a resource, or with a related one, once so many are listed."""

    def about(count: int, **chosen: str) -> list[dict[str, Any]]:
        ids = {kind: {"id": [id_]} for kind, id_ in chosen.items()}
        return prefect_events(count, event={"prefix": ["ivcap", "provena"]}, **ids)

    return about


@pytest.fixture
def of_run(listed, effects) -> Callable[[int], list[dict[str, Any]]]:
    """Return `of_run(count)`: so many events of the newest run."""
    return lambda count: listed(count, related=f"prefect.flow-run.{effects.flow_run()}")


def test_what_happens_to_effects_is_emitted_once(in_flow, effects, of_run, unique, ended_order, artifact, registry):
    """Placed, succeeded, failed, placed again: one event each, with the service, the key and the run, but nothing of
    the parameters; also if a later call gets or waits for the same. A lost reply is a doubt about the effect, and the
    order that was found is adopted, not placed."""

    def body():
        message = {"message": f"{unique} {SECRET}"}
        order, job = place_order("echo", message, name="as I call it"), request_job("echo", message)
        for _ in range(2):
            wait_for_orders([order])
            wait_for_jobs([job])
        effects.embedded.add_fault(method="POST", path="^/1/orders$", count=1, drop_reply_after_effect=True)
        found = place_order("echo", {"message": unique})
        failing = []
        for most in (0, 1):
            failing.append(place_order("fail", {"message": unique}, max_resubmits=most))
            with pytest.raises(OrderFailedError):
                wait_for_orders(failing[-1:])
        data = {registry.template: artifact}
        given = {"inputs": data, "outputs": data, "terms": registry.terms}
        runs = [register_model_run(ended_order, workflow_template=registry.workflow, **given) for _ in range(2)]
        return order, job, found, failing, runs[0]

    order, job, found, (first, second), model_run = in_flow(body)
    said = of_run(11)
    assert [(each["event"], each["resource"]["prefect.resource.id"]) for each in said] == [
        ("ivcap.order.placed", order.urn),
        ("ivcap.job.placed", job.urn),
        ("ivcap.order.succeeded", order.urn),
        ("ivcap.job.succeeded", job.urn),
        ("ivcap-flows.effect.in-doubt", f"ivcap-flows.effect.{found.key}"),
        ("ivcap.order.adopted", found.urn),
        ("ivcap.order.placed", first.urn),
        ("ivcap.order.failed", first.urn),
        ("ivcap.order.resubmitted", second.urn),
        ("ivcap.order.failed", second.urn),
        ("provena.model-run.registered", f"provena.model-run.{model_run.urn}"),
    ]
    payloads = [each["payload"] for each in said]
    [run] = effects.journal.runs.recent(1)
    assert payloads[0] == {
        "key": order.key,
        "service": "echo",
        "scope": f"run:{run.id}",
        "generation": 0,
        "run": run.id,
        "platform": order.platform,
    }
    resource = said[0]["resource"]
    assert (resource["prefect.resource.name"], resource["ivcap.service"]) == ("as I call it", "echo")
    assert payloads[2]["status"] == "succeeded" and payloads[4]["reason"] and payloads[5]["matched_by"] == "key"
    assert [payloads[place]["generation"] for place in (6, 8)] == [0, 1] and payloads[10]["subject"]
    assert SECRET not in str(said)


def test_orphans_are_those_that_no_try_waits_for(in_flow, of_run, unique, monkeypatch):
    """A try of the flow that Prefect repeats leaves no orphan; the end of the last try does. What the limit of spending
    forbids is no order, but an event of the run."""
    monkeypatch.setenv("IVCAP_FLOWS_MAX_ORDERS", "1")

    def body():
        place_order("sleep", {"seconds": 60.0}, discriminator=unique)
        place_order("echo", {"message": unique})

    with pytest.raises(SpendLimitError):
        in_flow(body, retries=1)
    said = of_run(4)
    assert [each["event"] for each in said] == [
        "ivcap.order.placed",
        "ivcap-flows.spend.limit",
        "ivcap-flows.spend.limit",
        "ivcap.order.orphaned",
    ]
    placed, limit, _, orphaned = said
    assert orphaned["payload"]["outcome"] == "failed" and orphaned["resource"] == placed["resource"]
    told = limit["payload"]
    assert (told["service"], told["limit"], told["placed"]) == ("echo", 1, 1)
    assert limit["resource"]["prefect.resource.id"] == f"ivcap-flows.run.{told['run']}"


def test_a_refused_delivery(in_script, effects, listed):
    """About the run, with the sink and its reason."""

    class Refusing:
        name = "refusing"

        async def deliver(self, run, graph):
            return Delivery("dead", f"too large; password={SECRET}")

    in_script(lambda: place_order("echo", {"message": "delivered"}))
    drain(effects.journal, [Refusing()])
    [found] = listed(1, resource=f"ivcap-flows.run.{effects.journal.runs.recent(1)[0].id}")
    assert found["event"] == "ivcap-flows.delivery.refused"
    assert found["payload"]["sink"] == found["resource"]["ivcap-flows.sink"] == "refusing"
    assert found["payload"]["reason"].startswith("too large") and SECRET not in str(found)


def test_events_that_cannot_be_emitted_fail_nothing(in_script, effects, unique, monkeypatch):
    """The order is placed, and the journal has it."""

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("away")

    monkeypatch.setattr(prefect.events, "emit_event", fails)
    in_script(lambda: wait_for_orders([place_order("echo", {"message": unique})]))
    assert [intent.status for intent in effects.intents("order")] == ["succeeded"]


@pytest.mark.parametrize(
    ("most_waiting", "settings", "are_emitted"),
    [
        pytest.param(1_000, {}, True, id="as usual"),
        # A process that ends while the server is away would try each of them for seconds.
        pytest.param(-1, {}, False, id="too many wait"),
        # Prefect would start a server for the events alone.
        pytest.param(1_000, {PREFECT_API_URL: None}, False, id="without flow and server"),
    ],
)
def test_events_are_dropped_where_they_would_do_harm(
    in_script, unique, monkeypatch, most_waiting, settings, are_emitted
):
    emitted: list[str] = []
    monkeypatch.setattr(prefect.events, "emit_event", lambda name, *_, **__: emitted.append(name))
    monkeypatch.setattr(events, "MOST_WAITING", most_waiting)
    with temporary_settings(settings):
        in_script(lambda: place_order("echo", {"message": unique}))
    assert emitted == ["ivcap.order.placed"] * are_emitted
