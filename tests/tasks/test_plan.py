"""A plan of a flow says what it would send and what exists, and sends nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prefect import flow, get_run_logger, task, unmapped
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed

from ivcap_flows import tasks
from ivcap_flows.capture import use_journal
from ivcap_flows.durable import plan
from ivcap_flows.journal import Journal
from ivcap_flows.provena.models import Organisation
from ivcap_flows.tasks.waiting import PlannedError

QUERIES = ("/list", "/token")
"""POST requests that only ask, and logins."""


def writes(effects):
    found = [r for r in effects.embedded.requests() if r["method"] not in ("GET", "HEAD")]
    return [r for r in found if not r["path"].endswith(QUERIES)]


def test_a_plan_sends_nothing(in_script, effects, source, registry, unique, ended_order):
    """Uploads, orders, jobs, aspects, datasets, items and registrations are listed as new. Nothing is written."""

    def body():
        series = tasks.upload_artifact(source)
        order = tasks.place_order("echo", {"message": series.urn})
        tasks.request_job("echo", {"message": unique})
        tasks.attach_aspect(order, {"$schema": "urn:example:schema:plan.1"})
        tasks.update_aspect(series, {"$schema": "urn:example:schema:plan.1"})
        tasks.register_item(Organisation(display_name=unique, name=unique))
        data = {registry.template: tasks.mint_dataset(series, terms=registry.terms)}
        tasks.register_model_run(ended_order, workflow_template=registry.workflow, inputs=data, outputs=data)
        return "the end"

    with plan() as planned:
        assert in_script(body) == "the end"
    nouns = ["upload", "order", "job", "aspect", "aspect update", "registry item", "dataset", "model run"]
    assert [(effect.noun, effect.source) for effect in planned.effects] == [(noun, "new") for noun in nouns]
    assert planned.effects[1].subject == "echo" and planned.effects[1].request["parameters"]
    assert writes(effects) == []
    assert effects.journal.intents.where() == []


def test_a_plan_tells_new_from_what_exists(in_flow, effects, source, artifact, registry, unique, tmp_path):
    """Effects of an earlier run are listed as kept, with their URNs, and those of another journal as adopted.

    A collection that exists is not listed, also if an equal folder would give it.
    """
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_text(f"{unique} elsewhere")

    def by_another():
        return [tasks.upload_artifact(elsewhere).urn, tasks.mint_dataset(artifact, terms=registry.terms).urn]

    def body():
        tasks.create_collection(unique)
        series = tasks.upload_artifact(source)
        return tasks.place_order("echo", {"message": unique}, once_per="flow"), tasks.place_order(
            "echo", {"message": series.urn}
        )

    def planned_body():
        body()
        tasks.create_collection(unique, description="another")
        return by_another()

    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other):
        adopted = in_flow(by_another)
    kept, _ = in_flow(body)
    effects.embedded.forget_requests()
    with plan() as planned:
        assert in_flow(planned_body) == adopted
    assert [(effect.noun, effect.source) for effect in planned.effects] == [
        ("upload", "kept"),
        ("order", "kept"),
        ("order", "new"),
        ("collection", "new"),
        ("upload", "adopted"),
        ("dataset", "adopted"),
    ]
    assert [effect.urn for effect in planned.effects[-2:]] == adopted
    assert planned.effects[1].urn == kept.urn and kept.urn in str(planned)
    assert [effect.noun for effect in planned.new] == ["order", "collection"]
    assert writes(effects) == []


def test_a_plan_counts_equal_requests_once(in_flow, effects, unique):
    """Equal requests count once in a plan, as in a run. A discriminator or scope makes two of them.

    A flow without `@recorded` can be planned as well. Effects of its earlier runs are kept.
    """

    def body():
        for discriminator in ("a", "a", "b"):
            tasks.place_order("echo", {"message": unique}, discriminator=discriminator)
        for _ in range(2):
            tasks.place_order("echo", {"message": unique}, once_per="call")
        return tasks.place_order("echo", {"message": unique}, once_per="flow")

    with plan() as planned:
        in_flow(body, plain=True)
    placed = in_flow(body, plain=True)
    assert len(planned.new) == effects.count("/1/orders") == 5
    with plan() as planned:
        assert in_flow(body, plain=True) == placed
    assert [effect.urn for effect in planned.effects if effect.source == "kept"] == [placed.urn]
    assert len(planned.new) == 4


@pytest.mark.catches("a plan forgets what it makes")
def test_what_is_planned_can_be_read_in_the_plan(in_script, effects, source, unique):
    """A flow defines a collection, fills it, orders into it and attaches what it made: all of it is listed, once."""

    def body():
        collection = tasks.create_collection(unique)
        artifact = tasks.upload_artifact(source)
        tasks.add_to_collection(collection.urn, tasks.get_artifact(artifact.urn))
        put = tasks.upload_artifact(b"more", name="more", collection=collection)
        assert tasks.collection_items(tasks.get_collection(collection.urn)) == [artifact, put]
        order = tasks.place_order("echo", {"message": unique}, collection=tasks.create_collection(unique))
        job = tasks.request_job("echo", {"message": unique})
        assert [tasks.get_order(order.urn).urn, tasks.get_job(job.urn).urn] == [order.urn, job.urn]

    with plan() as planned:
        in_script(body)
    nouns = ["collection", "upload", "collection items", "upload", "order", "job"]
    assert [(effect.noun, effect.source) for effect in planned.effects] == [(noun, "new") for noun in nouns]
    assert writes(effects) == []


def test_a_plan_ends_where_content_is_read_that_is_not_there(in_script, effects, source, unique, tmp_path):
    """Contents and results are not planned. That ends the flow, past its own error handling, and is no failure."""
    reached = []

    def body():
        artifact, order = tasks.upload_artifact(source), tasks.place_order("echo", {"message": unique})
        item = tasks.register_item(Organisation(display_name=unique, name=unique))
        for read in (
            lambda: tasks.read_artifact(artifact),
            lambda: tasks.download_artifact(artifact, tmp_path / "there"),
            lambda: tasks.provena.read_item(item),
            lambda: tasks.register_model_run(order, workflow_template="1/1", inputs={}, outputs={}),
        ):
            with pytest.raises(PlannedError, match="The plan ends here"):
                read()
        try:
            tasks.wait_for_orders([order])
        except Exception:
            reached.append("handler")
        reached.append("after")

    with plan() as planned, pytest.raises(PlannedError, match="The plan ends here"):
        in_script(body)
    assert [(effect.noun, effect.source) for effect in planned.effects] == [
        ("upload", "new"),
        ("order", "new"),
        ("registry item", "new"),
    ]
    assert reached == [] and writes(effects) == []


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
            tasks.place_order("echo", {"message": unique}).status,
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
