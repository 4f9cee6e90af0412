"""A plan of a flow says what it would send and what exists, and sends nothing."""

from __future__ import annotations

import pytest
from prefect import flow

from ivcap_flows.capture import use_journal
from ivcap_flows.durable import plan
from ivcap_flows.journal import Journal
from ivcap_flows.provena.models import Organisation
from ivcap_flows.tasks import (
    add_aspect,
    mint_dataset,
    place_order,
    register_item,
    register_model_run,
    request_job,
    update_aspect,
    upload_artifact,
    wait_for_orders,
)
from ivcap_flows.tasks.waiting import PlannedError

QUERIES = ("/list", "/token")
"""POST requests that only ask, and logins."""


def writes(effects):
    found = [r for r in effects.embedded.requests() if r["method"] not in ("GET", "HEAD")]
    return [r for r in found if not r["path"].endswith(QUERIES)]


def test_a_plan_sends_nothing(in_flow, effects, source, registry, unique, ended_order):
    """Uploads, orders, jobs, aspects, datasets, items and registrations are listed as new. Nothing is written."""

    def body():
        series = upload_artifact(source)
        order = place_order("echo", {"message": series.urn})
        request_job("echo", {"message": unique})
        add_aspect(order, {"$schema": "urn:example:schema:plan.1"})
        update_aspect(series, {"$schema": "urn:example:schema:plan.1"})
        register_item(Organisation(display_name=unique, name=unique))
        data = {registry.template: mint_dataset(series, datasets=registry.defaults)}
        register_model_run(ended_order, workflow_template=registry.workflow, inputs=data, outputs=data)
        return "the end"

    with plan() as planned:
        assert in_flow(body) == "the end"
    nouns = ["upload", "order", "job", "aspect", "aspect update", "registry item", "dataset", "model run"]
    assert [(effect.noun, effect.source) for effect in planned.effects] == [(noun, "new") for noun in nouns]
    assert planned.effects[1].subject == "echo" and planned.effects[1].request["parameters"]
    assert writes(effects) == []
    assert effects.journal.intents.where() == []


def test_a_plan_tells_new_from_kept(in_flow, effects, source, unique):
    """Effects of an earlier run are listed as kept, with their URNs, and the others as new."""

    def body():
        series = upload_artifact(source)
        return place_order("echo", {"message": unique}, scope="flow"), place_order("echo", {"message": series.urn})

    kept, _ = in_flow(body)
    effects.embedded.forget_requests()
    with plan() as planned:
        in_flow(body)
    assert [(effect.noun, effect.source) for effect in planned.effects] == [
        ("upload", "kept"),
        ("order", "kept"),
        ("order", "new"),
    ]
    assert planned.effects[1].urn == kept.urn and kept.urn in str(planned)
    assert [effect.noun for effect in planned.new] == ["order"]
    assert writes(effects) == []


def test_a_plan_counts_equal_requests_once(in_flow, effects, unique):
    """Equal requests count once in a plan, as in a run. A discriminator or scope makes two of them."""

    def body():
        for discriminator in ("a", "a", "b"):
            place_order("echo", {"message": unique}, discriminator=discriminator)
        for _ in range(2):
            place_order("echo", {"message": unique}, scope="call")

    with plan() as planned:
        in_flow(body)
    in_flow(body)
    assert len(planned.new) == effects.count("/1/orders") == 4


def test_a_plan_of_a_flow_that_is_not_recorded(embedded_platform, ivcap_journal, effects, unique):
    """A flow without `@recorded` can be planned as well. Effects of its earlier runs are kept."""

    @flow
    def plain():
        return place_order("echo", {"message": unique}, scope="flow")

    placed = plain()
    with plan() as planned:
        assert plain() == placed
    assert [(effect.source, effect.urn) for effect in planned.effects] == [("kept", placed.urn)]


def test_a_plan_ends_where_the_flow_would_wait(in_flow, effects, unique):
    """A wait for something that was not sent ends the flow, past its own error handling.

    The plan so far is returned.
    """
    reached = []

    def body():
        order = place_order("echo", {"message": unique})
        try:
            wait_for_orders([order])
        except Exception:
            reached.append("handler")
        reached.append("after")

    with plan() as planned, pytest.raises(PlannedError):
        in_flow(body)
    assert [effect.source for effect in planned.effects] == ["new"]
    assert reached == [] and writes(effects) == []


def test_a_plan_finds_what_exists_without_this_journal(in_flow, effects, source, artifact, registry, tmp_path):
    """An upload or dataset of another journal's run is not planned as new."""

    def body():
        return upload_artifact(source).urn, mint_dataset(artifact, datasets=registry.defaults).urn

    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other):
        made = in_flow(body)
    effects.embedded.forget_requests()
    with plan() as planned:
        assert in_flow(body) == made
    assert [(effect.source, effect.urn) for effect in planned.effects] == [("adopted", urn) for urn in made]
    assert writes(effects) == []
