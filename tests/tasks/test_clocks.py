"""With any wrong clock of the journal, a lost reply is found again and each effect exists once."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from ivcap_flows.identity import short_id
from ivcap_flows.journal.store import Store
from ivcap_flows.provena.models import Model, Organisation
from ivcap_flows.tasks import (
    attach_aspect,
    list_aspects,
    mint_dataset,
    place_order,
    register_item,
    register_model_run,
    request_job,
    version_item,
)
from ivcap_flows.work.duplicates import duplicates_on_ivcap

NOTE = "urn:example:schema:clocks.1"
CLOCKS = {
    "ten minutes ahead": [timedelta(minutes=10)],
    "ten minutes behind": [timedelta(minutes=-10)],
    "three hours ahead": [timedelta(hours=3)],
    "three hours behind": [timedelta(hours=-3)],
    "stepping": [timedelta(hours=3), timedelta(minutes=-10), timedelta(hours=-3), timedelta(minutes=10)],
}


@pytest.fixture(
    params=[
        pytest.param(off, id=name, marks=() if name == "stepping" else pytest.mark.long) for name, off in CLOCKS.items()
    ]
)
def journal_clock(request, monkeypatch):
    """Set the journal's clock off by this. One that steps is off by another amount at each reading."""
    off, now = itertools.cycle(request.param), Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + next(off))


def posts(effects, ending):
    """Return the POST requests that took effect, to a path with this ending."""
    found = [r for r in effects.embedded.requests("POST") if r["path"].endswith(ending)]
    return [r for r in found if r["status"] is not None and r["status"] < 300]


async def listed(records):
    return [record async for record in records]


@pytest.mark.parametrize("late", [0.0, 1.0], ids=["visible at once", "visible late"])
def test_order(journal_clock, in_flow, effects, unique, late):
    """One order exists, and it is the one returned."""
    effects.embedded.add_fault(
        method="POST", path="^/1/orders$", count=1, drop_reply_after_effect=True, late_visibility=late
    )
    order = in_flow(lambda: place_order("echo", {"message": unique}))
    assert effects.count("/1/orders") == 1
    [intent] = effects.intents("order")
    assert (intent.urn, intent.how, intent.matched_by) == (order.urn, "adopted", "key")


@pytest.mark.long
def test_an_order_that_shows_too_late_is_seen(journal_clock, in_flow, effects, on_platform, unique):
    """A second order is placed, which is unavoidable. When the first shows, `doctor` names both."""
    effects.embedded.add_fault(
        method="POST", path="^/1/orders$", count=1, drop_reply_after_effect=True, late_visibility=60
    )
    order = in_flow(lambda: place_order("echo", {"message": unique}))
    effects.embedded.advance_clock(120)
    assert effects.count("/1/orders") == 2

    async def made_twice(client):
        found, _ = await duplicates_on_ivcap(client, effects.journal)
        return found

    [twice] = [each for each in on_platform(made_twice) if short_id(each.key) == short_id(order.key)]
    assert len(twice.urns) == 2 and twice.urns[order.urn] == "this journal"


@pytest.mark.parametrize("keyed", [True, False], ids=["with idempotency records", "without idempotency records"])
def test_job(journal_clock, in_flow, effects, unique, keyed):
    """One job exists. It is found by its content, also if no idempotency record has the intent's time."""
    effects.embedded.add_fault(
        method="POST", path="^/1/services2/[^/]+/jobs$", count=1, drop_reply_after_effect=True, late_visibility=1.0
    )
    if not keyed:
        effects.embedded.add_fault(method="POST", path="^/1/aspects$", status=403)
    job = in_flow(lambda: request_job("echo", {"message": unique}))
    assert len(posts(effects, "/jobs")) == 1
    [intent] = effects.intents("job")
    assert (intent.urn, intent.how, intent.matched_by) == (job.urn, "adopted", "content")


def test_aspect(journal_clock, in_flow, effects, on_platform, unique):
    """One aspect exists, and it is the one returned."""
    entity = f"urn:example:thing:{unique}"
    effects.embedded.add_fault(
        method="POST", path="^/1/aspects$", count=1, drop_reply_after_effect=True, late_visibility=1.0
    )
    aspect = in_flow(lambda: attach_aspect(entity, {"text": "once"}, schema=NOTE))
    found = on_platform(lambda client: listed(client.aspects.list(entity=entity)))
    assert [record.urn for record in found] == [aspect.urn]


def test_an_equal_aspect_of_before_is_not_ours(journal_clock, in_flow, effects, on_platform, unique):
    """An equal aspect that somebody else added long before is not adopted, although the reply to ours was lost."""
    entity = f"urn:example:thing:{unique}"
    document = {"$schema": NOTE, "text": "once"}
    before = on_platform(lambda client: client.aspects.add(entity, NOTE, document))
    effects.embedded.advance_clock(3600)
    effects.embedded.add_fault(method="POST", path="^/1/aspects$", count=1, drop_reply_after_effect=True)

    def body():
        # The platform's time is known by its replies.
        list_aspects(f"{entity}:other")
        return attach_aspect(entity, {"text": "once"}, schema=NOTE)

    aspect = in_flow(body)
    found = on_platform(lambda client: listed(client.aspects.list(entity=entity)))
    assert {record.urn for record in found} == {before, aspect.urn} and before != aspect.urn


def test_registry_item(journal_clock, in_flow, effects, unique):
    """One item exists, found by the key in its metadata."""
    effects.embedded.add_fault(method="POST", path="/organisation/create$", count=1, drop_reply_after_effect=True)
    item = in_flow(lambda: register_item(Organisation(display_name=unique, name=unique)))
    assert len(posts(effects, "/organisation/create")) == 1
    [intent] = effects.intents("registry item")
    assert (intent.urn, intent.how) == (item.urn, "adopted")


def test_item_version(journal_clock, in_flow, effects, unique):
    """One next version exists."""
    model = Model(
        display_name=unique,
        name=unique,
        description="Computes.",
        documentation_url="https://example.org/docs",
        source_url="https://example.org/source",
    )

    def body():
        item = register_item(model)
        effects.embedded.add_fault(method="POST", path="/version$", count=1, drop_reply_after_effect=True)
        return version_item(item, reason="better")

    new = in_flow(body)
    assert len(posts(effects, "/version")) == 1
    [intent] = effects.intents("item version")
    assert (intent.urn, intent.how) == (new.urn, "adopted")


def test_mint(journal_clock, in_flow, effects, artifact, registry):
    """One dataset exists, found by the artifact's URN."""
    effects.embedded.add_fault(
        method="POST", path="/register/mint-dataset$", count=1, drop_reply_after_effect=True, late_visibility=1.0
    )
    dataset = in_flow(lambda: mint_dataset(artifact, terms=registry.terms))
    assert len(posts(effects, "/register/mint-dataset")) == 1
    assert effects.intents("dataset")[0].urn == dataset.urn


def test_model_run(journal_clock, in_flow, effects, ended_order, artifact, registry):
    """One model run exists, found by its key."""
    effects.embedded.add_fault(
        method="POST", path="model_run/register$", count=1, drop_reply_after_effect=True, late_visibility=1.0
    )

    def body():
        data = {registry.template: mint_dataset(artifact, terms=registry.terms)}
        return register_model_run(ended_order, workflow_template=registry.workflow, inputs=data, outputs=data)

    run = in_flow(body)
    assert effects.count("/provena/prov/model_run/register") == 1
    [intent] = effects.intents("model run")
    assert (intent.urn, intent.how, intent.matched_by) == (run.urn, "adopted", "key")
