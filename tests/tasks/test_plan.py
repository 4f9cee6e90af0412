"""A plan of a flow says what it would send and what exists, and sends nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prefect import flow, get_run_logger, task, unmapped
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed

from ivcap_flows.capture import use_journal
from ivcap_flows.durable import plan
from ivcap_flows.journal import Journal
from ivcap_flows.provena.models import Organisation
from ivcap_flows.tasks import (
    add_to_collection,
    attach_aspect,
    collection_items,
    create_collection,
    download_artifact,
    fetch_item,
    get_artifact,
    get_collection,
    get_job,
    get_order,
    mint_dataset,
    place_order,
    read_artifact,
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
        attach_aspect(order, {"$schema": "urn:example:schema:plan.1"})
        update_aspect(series, {"$schema": "urn:example:schema:plan.1"})
        register_item(Organisation(display_name=unique, name=unique))
        data = {registry.template: mint_dataset(series, terms=registry.terms)}
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
        return place_order("echo", {"message": unique}, once_per="flow"), place_order("echo", {"message": series.urn})

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
            place_order("echo", {"message": unique}, once_per="call")

    with plan() as planned:
        in_flow(body)
    in_flow(body)
    assert len(planned.new) == effects.count("/1/orders") == 4


def test_a_plan_of_a_flow_that_is_not_recorded(embedded_platform, ivcap_journal, effects, unique):
    """A flow without `@recorded` can be planned as well. Effects of its earlier runs are kept."""

    @flow
    def plain():
        return place_order("echo", {"message": unique}, once_per="flow")

    placed = plain()
    with plan() as planned:
        assert plain() == placed
    assert [(effect.source, effect.urn) for effect in planned.effects] == [("kept", placed.urn)]


@pytest.mark.catches("a plan forgets what it makes")
def test_what_is_planned_can_be_read_in_the_plan(in_flow, effects, source, unique):
    """A flow defines a collection, fills it, orders into it and attaches what it made: all of it is listed, once."""

    def body():
        collection = create_collection(unique)
        artifact = upload_artifact(source)
        add_to_collection(collection.urn, get_artifact(artifact.urn))
        put = upload_artifact(b"more", name="more", collection=collection)
        assert collection_items(get_collection(collection.urn)) == [artifact, put]
        order = place_order("echo", {"message": unique}, collection=create_collection(unique))
        job = request_job("echo", {"message": unique})
        assert [get_order(order.urn).urn, get_job(job.urn).urn] == [order.urn, job.urn]

    with plan() as planned:
        in_flow(body)
    nouns = ["collection", "upload", "collection items", "upload", "order", "job"]
    assert [(effect.noun, effect.source) for effect in planned.effects] == [(noun, "new") for noun in nouns]
    assert writes(effects) == []


def test_a_collection_that_exists_is_not_planned(in_flow, effects, source, unique):
    """Nor one that an equal folder would give. The plan lists what would be new."""
    in_flow(lambda: create_collection(unique))
    with plan() as planned:
        in_flow(lambda: [create_collection(unique), create_collection(unique, description="another")])
    assert [effect.noun for effect in planned.effects] == ["collection"]


@pytest.mark.parametrize(
    "reads",
    [
        lambda made, tmp_path: read_artifact(made["artifact"]),
        lambda made, tmp_path: download_artifact(made["artifact"], tmp_path / "there"),
        lambda made, tmp_path: fetch_item(made["item"]),
        lambda made, tmp_path: register_model_run(made["order"], workflow_template="1/1", inputs={}, outputs={}),
    ],
)
def test_a_plan_ends_where_content_is_read_that_is_not_there(in_flow, effects, source, unique, tmp_path, reads):
    """Contents and results are not planned. That is no failure of the flow."""

    def body():
        artifact, order = upload_artifact(source), place_order("echo", {"message": unique})
        item = register_item(Organisation(display_name=unique, name=unique))
        reads({"artifact": artifact, "order": order, "item": item}, tmp_path)

    with plan() as planned, pytest.raises(PlannedError, match="The plan ends here"):
        in_flow(body)
    assert [effect.noun for effect in planned.effects] == ["upload", "order", "registry item"]
    assert writes(effects) == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_plan_runs_what_prefect_would_run(embedded_platform, ivcap_journal, unique, asynchronous):
    """Tasks called, submitted and mapped, futures, states, failures, subflows and loggers: all without an engine."""

    @task
    def add(number: int, more: int = 1) -> int:
        get_run_logger().info("adding")
        return number + more

    @task
    async def aadd(number: int) -> int:
        return number + 1

    @task
    def fails() -> None:
        raise ValueError("of its own")

    @flow
    def inner(number: int) -> int:
        return add(number)

    @flow
    def stated() -> Any:
        return Completed(name="Unchanged", data=[7])

    def values() -> list[Any]:
        future = add.submit(1)
        state = fails(return_state=True)
        failed = fails.submit()
        with pytest.raises(ValueError, match="of its own"):
            failed.result()
        assert state.is_failed() and failed.state.is_failed() and fails.submit(return_state=True).is_failed()
        return [
            future.result(),
            add.submit(future, wait_for=[future]).result(),
            add.map([1, future], unmapped(2)).result(),
            aadd.submit(3).result(),
            add(add(1, return_state=True)),
            inner("4"),
            stated(),
            stated(return_state=True).name,
            place_order("echo", {"message": unique}).status,
        ]

    @flow
    def plain() -> list[Any]:
        return values()

    @flow
    async def aplain() -> list[Any]:
        assert await aadd(1) == 2 and (await aadd(1, return_state=True)).is_completed()
        return await asyncio.to_thread(values)

    wanted = [2, 3, [3, 4], 4, 3, 5, [7], "Unchanged", "planned"]
    with plan() as planned, temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert (asyncio.run(aplain()) if asynchronous else plain()) == wanted
    assert [effect.noun for effect in planned.effects] == ["order"]


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
        return upload_artifact(source).urn, mint_dataset(artifact, terms=registry.terms).urn

    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other):
        made = in_flow(body)
    effects.embedded.forget_requests()
    with plan() as planned:
        assert in_flow(body) == made
    assert [(effect.source, effect.urn) for effect in planned.effects] == [("adopted", urn) for urn in made]
    assert writes(effects) == []
