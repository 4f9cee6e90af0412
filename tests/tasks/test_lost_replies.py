"""After a lost reply the effect is found again and exists once."""

from __future__ import annotations

import logging

import pytest

from ivcap_flows.identity import INTENT_SCHEMA, key_entity
from ivcap_flows.provena.models import Organisation
from ivcap_flows.tasks import (
    attach_aspect,
    mint_dataset,
    place_order,
    register_item,
    register_model_run,
    request_job,
    update_aspect,
    upload_artifact,
    wait_for_orders,
)

NOTE = "urn:example:schema:lost.1"
REGISTER = "/provena/prov/model_run/register"


async def listed(records):
    return [record async for record in records]


def posts(effects, ending):
    """Return the POST requests that took effect, to a path with this ending."""
    found = [r for r in effects.embedded.requests("POST") if r["path"].endswith(ending)]
    return [r for r in found if r["status"] is not None and r["status"] < 300]


@pytest.mark.parametrize("late", [0.0, 1.0], ids=["visible at once", "visible late"])
def test_order(in_flow, effects, unique, late):
    """One order exists after a lost reply, also if the platform shows it only later, and it is the one returned."""
    effects.embedded.add_fault(
        method="POST", path="^/1/orders$", count=1, drop_reply_after_effect=True, late_visibility=late
    )
    order = in_flow(lambda: place_order("echo", {"message": unique}))
    assert effects.count("/1/orders") == 1
    [intent] = effects.intents("order")
    assert (intent.urn, intent.how, intent.matched_by) == (order.urn, "adopted", "key")


@pytest.mark.parametrize(
    "late", [pytest.param(0.0, id="visible at once"), pytest.param(1.0, id="visible late", marks=pytest.mark.long)]
)
def test_job(in_flow, effects, unique, late):
    """One job exists after a lost reply, found by its content."""
    effects.embedded.add_fault(
        method="POST", path="^/1/services2/[^/]+/jobs$", count=1, drop_reply_after_effect=True, late_visibility=late
    )
    job = in_flow(lambda: request_job("echo", {"message": unique}))
    assert len(posts(effects, "/jobs")) == 1
    [intent] = effects.intents("job")
    assert (intent.urn, intent.how, intent.matched_by) == (job.urn, "adopted", "content")


def test_an_order_that_never_arrived_is_sent(in_flow, effects, unique):
    """An order that never arrived is sent again after the visibility delay."""
    effects.embedded.add_fault(method="POST", path="^/1/orders$", count=1, reset=True)
    order = in_flow(lambda: place_order("echo", {"message": unique}))
    assert effects.count("/1/orders") == 1
    assert effects.intents("order")[0].how == "sent"
    assert effects.intents("order")[0].urn == order.urn


def test_upload_whose_record_is_lost(in_flow, effects, on_platform, source):
    """After a lost reply to its creation, one artifact is ready, and at most a pending record is left."""
    effects.embedded.add_fault(method="POST", path="^/1/artifacts$", count=1, drop_reply_after_effect=True)
    uploaded = in_flow(lambda: upload_artifact(source, name=source.read_text()[-33:-1]))
    found = on_platform(lambda client: listed(client.artifacts.list(limit=20)))
    mine = [(one.urn, one.status) for one in found if one.name == uploaded.name]
    assert [urn for urn, status in mine if status == "ready"] == [uploaded.urn]
    assert len(effects.intents("upload")) == 1


def test_upload_whose_bytes_are_lost_sight_of(in_flow, effects, source):
    """After a lost reply to the bytes, the platform is asked for the offset, and no byte is sent twice."""
    effects.embedded.add_fault(method="PATCH", path="/1/artifacts", count=1, drop_reply_after_effect=True)
    uploaded = in_flow(lambda: upload_artifact(source))
    assert effects.count("/1/artifacts") == 1
    assert sum(r["received"] for r in effects.embedded.requests("PATCH")) == source.stat().st_size == uploaded.size


def test_aspect(in_flow, effects, on_platform, unique):
    """One aspect exists after a lost reply, and it is the one returned."""
    entity = f"urn:example:thing:{unique}"
    effects.embedded.add_fault(method="POST", path="^/1/aspects$", count=1, drop_reply_after_effect=True)
    aspect = in_flow(lambda: attach_aspect(entity, {"text": "once"}, schema=NOTE))
    found = on_platform(lambda client: listed(client.aspects.list(entity=entity)))
    assert [record.urn for record in found] == [aspect.urn]
    assert effects.count("/1/aspects") == 1


def test_changed_aspect(in_flow, effects, on_platform, unique):
    """One active aspect exists after a lost reply to a replacement, and the change is not taken for somebody else's."""
    entity = f"urn:example:thing:{unique}"

    def body():
        attach_aspect(entity, {"text": "old"}, schema=NOTE)
        effects.embedded.add_fault(method="PUT", path="^/1/aspects$", count=1, drop_reply_after_effect=True)
        return update_aspect(entity, {"text": "new"}, schema=NOTE)

    aspect = in_flow(body)
    found = on_platform(lambda client: listed(client.aspects.list(entity=entity)))
    assert [(record.urn, record.content["text"]) for record in found] == [(aspect.urn, "new")]
    assert effects.count("/1/aspects", "PUT") == 1


@pytest.mark.parametrize("method", ["POST", "PUT"], ids=["intent", "outcome"])
def test_key_aspect(in_flow, effects, on_platform, unique, method):
    """After a lost reply to an idempotency record, before or after the order, one order and one record exist."""

    def body():
        effects.embedded.add_fault(method=method, path="^/1/aspects$", count=1, drop_reply_after_effect=True)
        return place_order("echo", {"message": unique})

    order = in_flow(body)
    assert effects.count("/1/orders") == 1
    assert any(r["dropped"] for r in effects.embedded.requests(method, "/1/aspects"))
    found = on_platform(lambda client: listed(client.aspects.list(entity=key_entity(order.key), schema=INTENT_SCHEMA)))
    assert [record.content["urn"] for record in found] == [order.urn]


def test_mint(in_flow, effects, artifact, registry):
    """One dataset exists after a lost reply, found by the artifact's URN."""
    effects.embedded.add_fault(method="POST", path="/register/mint-dataset$", count=1, drop_reply_after_effect=True)
    dataset = in_flow(lambda: mint_dataset(artifact, terms=registry.terms))
    assert len(posts(effects, "/register/mint-dataset")) == 1
    assert effects.intents("dataset")[0].urn == dataset.urn


def test_registry_item(in_flow, effects, unique):
    """One item exists after a lost reply, found by the key in its metadata."""
    effects.embedded.add_fault(method="POST", path="/organisation/create$", count=1, drop_reply_after_effect=True)
    item = in_flow(lambda: register_item(Organisation(display_name=unique, name=unique)))
    assert len(posts(effects, "/organisation/create")) == 1
    [intent] = effects.intents("registry item")
    assert (intent.urn, intent.how) == (item.urn, "adopted")


@pytest.mark.parametrize(
    "late", [pytest.param(0.0, id="visible at once"), pytest.param(1.0, id="visible late", marks=pytest.mark.long)]
)
def test_model_run(in_flow, effects, ended_order, artifact, registry, late):
    """One model run exists after a lost reply, also if its job shows only later. It is found by its key."""
    effects.embedded.add_fault(
        method="POST", path=f"^{REGISTER}$", count=1, drop_reply_after_effect=True, late_visibility=late
    )

    def body():
        data = {registry.template: mint_dataset(artifact, terms=registry.terms)}
        return register_model_run(ended_order, workflow_template=registry.workflow, inputs=data, outputs=data)

    run = in_flow(body)
    assert effects.count(REGISTER) == 1
    [intent] = effects.intents("model run")
    assert (intent.urn, intent.how, intent.matched_by) == (run.urn, "adopted", "key")


def test_an_order_that_shows_late_is_waited_for(in_flow, effects, unique):
    """An order that is hidden for a second is waited for, and not reported as missing."""
    effects.embedded.add_fault(method="POST", path="^/1/orders$", count=1, late_visibility=1.0)
    [done] = in_flow(lambda: wait_for_orders([place_order("echo", {"message": unique})], timeout=60))
    assert done.succeeded
    assert 404 in {r["status"] for r in effects.embedded.requests("GET", f"/1/orders/{done.urn}")}


@pytest.mark.long
def test_a_wait_outlasts_a_platform_that_is_away(in_flow, effects, caplog):
    """A wait survives an outage of the platform, which is logged once."""

    def body():
        order = place_order("sleep", {"seconds": 0.3})
        effects.embedded.add_fault(method="GET", path="^/1/orders/", count=22, status=503)
        return wait_for_orders([order], timeout=60)

    with caplog.at_level(logging.WARNING, "ivcap_flows.waiting"):
        [done] = in_flow(body)
    assert done.succeeded
    said = [record.getMessage() for record in caplog.records if "ivcap_flows/durable/poll" in record.pathname]
    assert len(said) == 2 and said[0].startswith("Still waiting for 1 order") and "answers again" in said[1]
