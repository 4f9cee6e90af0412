"""`reuse=True` uses an earlier effect that anybody in the account has paid for, if it is good for the same request."""

from __future__ import annotations

import logging
import os

import pytest

from ivcap_flows.capture import use_journal
from ivcap_flows.durable import plan
from ivcap_flows.errors import SpendLimitError
from ivcap_flows.identity import INTENT_SCHEMA, key_entity
from ivcap_flows.journal import Journal
from ivcap_flows.local.register import register
from ivcap_flows.tasks import place_order, request_job, upload_artifact, wait_for_jobs, wait_for_orders


def ordered(unique, **options):
    return wait_for_orders([place_order("echo", {"message": unique}, reuse=True, **options)])[0]


@pytest.fixture
def elsewhere(tmp_path):
    """The journal of another machine."""
    with Journal.open(f"sqlite:///{tmp_path / 'elsewhere.sqlite'}") as journal:
        yield journal


def only(journal):
    [row] = journal.intents.where(noun="order")
    return row


def test_what_another_machine_paid_for_is_used(in_flow, effects, elsewhere, tasks_service, source, monkeypatch):
    """A run with another journal and discriminator gets the same order and products, even with a limit of none.

    Without `reuse` it orders again.
    """

    def body(**options):
        order = place_order(tasks_service, {"series": upload_artifact(source)}, **options)
        return wait_for_orders([order])[0]

    with use_journal(elsewhere):
        first = in_flow(lambda: body(discriminator="there"))
    monkeypatch.setenv("IVCAP_FLOWS_MAX_ORDERS", "0")
    second = in_flow(lambda: body(reuse=True))
    assert (second.urn, second.status, effects.count("/1/orders")) == (first.urn, "succeeded", 1)
    assert [p.urn for p in second.products] == [p.urn for p in first.products] and len(second.products) == 2
    row = only(effects.journal)
    assert (row.how, row.state, row.status, row.spends) == ("reused", "done", "succeeded", False)
    assert row.reuse == f"{first.urn} of the flow tested is used"
    with pytest.raises(SpendLimitError):
        in_flow(body)


def test_the_record_says_that_it_was_reused(in_flow, effects, elsewhere, unique):
    """The task was informed by the reused order and did not start it."""
    with use_journal(elsewhere):
        first = in_flow(lambda: ordered(unique))
    in_flow(lambda: ordered(unique))
    links = [f.record for f in effects.journal.facts.about(first.urn) if f.record.kind == "relation"]
    placed = [r for r in links if r.attributes.get("role") == "reused"]
    assert [(r.type, r.target) for r in placed] == [("wasInformedBy", first.urn)]
    assert not [r for r in links if r.type == "wasStartedBy" and r.source == first.urn]


def test_a_job_is_reused_with_its_result(in_flow, effects, elsewhere, unique):
    """A job is reused for an equal request to the same definition of the service."""

    def body():
        return wait_for_jobs([request_job("echo", {"message": unique}, reuse=True)])[0]

    with use_journal(elsewhere):
        first = in_flow(body)
    second = in_flow(body)
    assert (second.urn, second.result) == (first.urn, first.result) and second.result
    assert [row.how for row in effects.intents("job")] == ["reused"]


@pytest.mark.long
@pytest.mark.parametrize("other", [{"message": "else"}, {"policy": "urn:ivcap:policy:ivcap.open.artifact"}])
def test_what_asks_for_something_else_is_not_used(in_flow, effects, elsewhere, unique, other):
    """An order with another parameter or policy is not reused."""
    message = {"message": unique + other.pop("message", "")}
    with use_journal(elsewhere):
        first = in_flow(lambda: ordered(unique))
    second = in_flow(lambda: wait_for_orders([place_order("echo", message, reuse=True, **other)])[0])
    assert second.urn != first.urn and only(effects.journal).how == "sent"
    assert "no earlier one has an equal request" in only(effects.journal).reuse


@pytest.mark.long
def test_what_failed_or_still_runs_is_not_used(in_flow, effects, elsewhere, unique, caplog):
    """Failed and running work is not reused, and the reason is recorded.

    Running work is also logged, since the second is paid for too.
    """

    def failed():
        return wait_for_orders([place_order("fail", {"message": unique}, reuse=True)], raise_on_failure=False)[0]

    def slow():
        return place_order("sleep", {"seconds": 60 + int(unique[:4], 16) / 1e6}, reuse=True)

    with use_journal(elsewhere):
        bad, running = in_flow(lambda: (failed(), slow()))
    with caplog.at_level(logging.INFO, "ivcap_flows.durable"):
        again, second = in_flow(lambda: (failed(), slow()))
    assert again.urn != bad.urn and second.urn != running.urn
    reasons = [row.reuse for row in effects.intents("order")]
    assert reasons[0] == f"{bad.urn} ended as failed" and reasons[1].startswith(f"{running.urn} is ")
    [warned] = [r for r in caplog.records if r.levelno == logging.WARNING and running.urn in r.getMessage()]
    assert "get_order" in warned.getMessage()


@pytest.mark.long
def test_a_changed_service_is_not_reused(in_flow, effects, elsewhere, tmp_path, unique):
    """Work is reused only for the same service definition, also if that is restored later."""
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "services_of_reuse.py").write_text("def f(request, job):\n    return 1\n")
    definition = {
        "name": f"reuse-{unique[:8]}",
        "entry": "services_of_reuse:f",
        "parameters": [{"name": "x", "type": "int"}],
    }

    def body():
        return wait_for_orders([place_order(definition["name"], {"x": 1}, reuse=True)])[0]

    def defined():
        register(os.environ["IVCAP_URL"], os.environ["IVCAP_JWT"], definition, tmp_path / "services.yaml")

    defined()
    with use_journal(elsewhere):
        first = in_flow(body)
    defined()
    assert in_flow(body).urn == first.urn
    definition["parameters"] = [{"name": "x", "type": "int", "default": "2"}]
    defined()
    assert in_flow(body).urn != first.urn


@pytest.mark.long
def test_products_that_cannot_be_read_are_not_used(in_flow, effects, elsewhere, tasks_service, source):
    """If its products cannot be read, the order is placed again, and the journal says why."""

    def body(**options):
        order = place_order(tasks_service, {"series": upload_artifact(source)}, reuse=True, **options)
        return wait_for_orders([order])[0]

    with use_journal(elsewhere):
        first = in_flow(body)
    gone = first.products[0].urn
    effects.embedded.add_fault(method="GET", path=f"^/1/artifacts/{gone}$", count=1, status=404)
    second = in_flow(body)
    assert second.urn != first.urn
    assert gone in only(effects.journal).reuse and "cannot be read" in only(effects.journal).reuse


@pytest.mark.long
def test_a_forged_aspect_is_not_believed(in_flow, effects, elsewhere, on_platform, unique):
    """An aspect that assigns another order's URN to a request is ignored, since the order itself shows its request."""
    with use_journal(elsewhere):
        other, first = in_flow(lambda: (ordered(unique + "other"), ordered(unique)))

    async def forge(client):
        [record] = [r async for r in client.aspects.list(entity=key_entity(first.key), schema=INTENT_SCHEMA)]
        await client.aspects.update(record.entity, INTENT_SCHEMA, {**record.content, "urn": other.urn})

    on_platform(forge)
    assert in_flow(lambda: ordered(unique)).urn not in (other.urn, first.urn)
    assert "is not what its idempotency record says" in only(effects.journal).reuse


def test_a_plan_says_what_would_be_reused(in_flow, effects, elsewhere, unique):
    """A plan names the URN that would be reused, and writes nothing."""
    with use_journal(elsewhere):
        first = in_flow(lambda: ordered(unique))
    with plan() as planned:
        in_flow(lambda: place_order("echo", {"message": unique}, reuse=True))
    assert [(one.source, one.urn) for one in planned.effects] == [("reused", first.urn)] and planned.new == []
    assert effects.journal.intents.where() == []


def test_a_look_costs_nothing_where_it_is_off(in_flow, effects, unique):
    """Without `reuse` no aspect is searched by content."""
    in_flow(lambda: place_order("echo", {"message": unique}))
    assert not [r for r in effects.embedded.requests("GET", "/1/aspects") if "content-path" in str(r)]
    assert only(effects.journal).reuse is None
