"""The tasks as Prefect sees them: real tasks with names, options and pickles, each in two forms."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from typing import ClassVar

import cloudpickle
import pytest
from eventually import until
from prefect import Task, flow, unmapped
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.runtime import flow_run

from ivcap_flows import handles, recorded, tasks
from ivcap_flows.errors import InputError
from ivcap_flows.handles import (
    Artifact,
    Aspect,
    Collection,
    Dataset,
    DatasetFile,
    Job,
    LocalFile,
    ModelRun,
    Order,
    Products,
    Queue,
    RegistryItem,
    Service,
)
from ivcap_flows.provena.models import Organisation
from ivcap_flows.tasks.pair import asynchronous_name
from ivcap_flows.tasks.service_request import ServiceRequest

pytestmark = pytest.mark.canary

ALL = {name: getattr(place, name) for place in (tasks, tasks.ivcap, tasks.provena) for name in place.__all__}
TASKS = [name for name, task in ALL.items() if isinstance(task, Task)]
VERBS = [name for name in TASKS if asynchronous_name(name) in TASKS]
ARTIFACT = Artifact(urn="urn:ivcap:artifact:1", platform="p", name="a.csv", sha256="0" * 64)
ORDER = Order(urn="urn:ivcap:order:1", platform="p", service="urn:ivcap:service:1", products=Products([ARTIFACT]))
HANDLES = [
    ARTIFACT,
    ORDER,
    Job(urn="urn:ivcap:job:1", platform="p", service="urn:ivcap:service:1", result={"a": [1]}),
    Aspect(urn="urn:ivcap:aspect:1", platform="p", entity="urn:e:1", schema_urn="urn:s:1", content={"a": 1}),
    RegistryItem(urn="102/1", platform="p", subtype="MODEL"),
    Dataset(urn="102/2", platform="p", access_uri=ARTIFACT.urn),
    DatasetFile(urn="s3://b/a.csv", platform="p", dataset="102/2", path="a.csv", size=1),
    ModelRun(urn="102/3", platform="p", workflow_template="102/4", inputs=("102/2",)),
    LocalFile(path="/a.csv", sha256="0" * 64, size=1),
    Service(urn="urn:ivcap:service:1", platform="p", name="echo"),
    Collection(urn="urn:ivcap:collection:1", platform="p", name="seasons"),
    Queue(urn="urn:ivcap:queue:1", platform="p", name="stations"),
]
NOTE = "$schema", "urn:example:schema:shape.1"


class Echo(ServiceRequest):
    """A request as `ivcap-flows services echo --python` writes it."""

    service: ClassVar[str] = "echo"
    message: str


def test_every_verb_is_there_twice():
    """Both forms are Prefect tasks with one name, docstring and signature. Neither retries nor caches, and each is
    itself after cloudpickle, as in another process."""
    assert set(TASKS) == {*VERBS, *map(asynchronous_name, VERBS)}
    for verb in VERBS:
        one, other = ALL[verb], ALL[asynchronous_name(verb)]
        assert inspect.getdoc(one.fn) and one.fn.__doc__ == other.fn.__doc__, verb
        assert inspect.signature(one.fn).parameters == inspect.signature(other.fn).parameters, verb
        assert (one.isasync, other.isasync) == (False, True), verb
        for name, each in ((verb, one), (asynchronous_name(verb), other)):
            assert type(each) is Task and each.name == verb.replace("_", " ").capitalize(), name
            assert each.retries == 0 and each.cache_policy.compute_key(None, {}, {}) is None, name
            there = cloudpickle.loads(cloudpickle.dumps(each))
            assert (there.name, there.fn.__name__) == (each.name, name)
            assert there.with_options(retries=1).retries == 1


def test_tasks_have_the_tags_of_their_platforms():
    """By these, Prefect limits how many tasks of a platform run at once."""
    assert tasks.place_order.tags == tasks.wait_for_jobs.tags == {"ivcap"}
    assert tasks.provena.linked_person.tags == {"provena"} and "provena" in tasks.register_model_run.tags
    assert {name for name in TASKS if not ALL[name].tags & {"ivcap", "provena"}} == {
        "fetch_url",
        "afetch_url",
    }


def test_handles_survive_pickle_and_json():
    """A handle of each class that tasks return is equal afterwards. Its products are found by name."""
    named = {name for name in handles.__all__ if "urn" in getattr(getattr(handles, name), "model_fields", ())}
    assert {type(handle).__name__ for handle in HANDLES} == named - {"Handle"} | {"LocalFile"}, "see HANDLES above"
    for handle in HANDLES:
        for copy in (
            cloudpickle.loads(cloudpickle.dumps(handle)),
            type(handle).model_validate_json(handle.model_dump_json()),
            type(handle).model_validate(json.loads(json.dumps(handle.model_dump(mode="json")))),
        ):
            assert copy == handle and type(copy) is type(handle)
            assert not isinstance(handle, Order) or copy.products["a.csv"] == ARTIFACT


def test_the_synchronous_tasks_do_the_whole_job(in_flow, source, tmp_path, effects, registry, unique):
    """Upload, order, job, waits, aspects, download, dataset, registration: each task accepts the result of the one
    before. A task run's name says what it does with what, instead of a function's name and a number."""

    def body():
        series = tasks.upload_artifact(source)
        order = tasks.place_order("echo", {"message": series.urn})
        tasks.place_order("echo", {"message": unique}, name="north")
        tasks.place_order(Echo(message=f"{unique} of a class"))
        job = tasks.request_job("echo", {"message": unique})
        [done] = tasks.wait_for_orders([order], timeout=60)
        [ended] = tasks.wait_for_jobs([job], timeout=60)
        note = tasks.attach_aspect(done, dict([NOTE], text="one"))
        changed = tasks.update_aspect(done, dict([NOTE], text="two"))
        file = tasks.download_artifact(series, tmp_path / "back.csv")
        dataset = tasks.mint_dataset(series, terms=registry.terms)
        person = tasks.provena.linked_person()
        run = tasks.register_model_run(
            done,
            workflow_template=registry.workflow,
            inputs={registry.template: dataset},
            outputs={registry.template: series},
            modeller=person,
        )
        item = tasks.register_item(Organisation(display_name=unique, name=unique))
        return flow_run.id, series, done, ended, note, changed, file, dataset, run, item

    run_id, series, done, ended, note, changed, file, dataset, run, item = in_flow(body)
    assert (done.status, done.service_name, done.parameters) == ("succeeded", "echo", {"message": series.urn})
    assert (ended.status, ended.result) == ("succeeded", {"message": unique})
    assert done.started_at is not None and done.finished_at >= done.started_at
    assert note.entity == changed.entity == done.urn and note.urn != changed.urn
    assert changed.content["text"] == "two"
    assert (file.sha256, file.size) == (series.sha256, source.stat().st_size)
    assert (tmp_path / "back.csv").read_bytes() == source.read_bytes()
    assert dataset.access_uri == series.urn
    assert run.inputs == run.outputs == (dataset.urn,)
    assert run.subject == done.urn and run.session_id
    assert item.subtype == "ORGANISATION"
    assert (effects.count("/1/orders"), effects.count("/1/artifacts")) == (3, 1)
    assert effects.count("/provena/prov/model_run/register") == 1
    names = {"order echo", "order north", f"upload {source.name}", "wait for 1 order: echo", "wait for 1 job: echo"}
    names |= {f"attach shape.1 to {done.name}", f"update shape.1 of {done.name}"}
    of_flow = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        # Prefect writes task runs in the background, and their names after them.
        said = until(
            lambda: [run.name for run in client.read_task_runs(flow_run_filter=of_flow)], lambda said: names <= {*said}
        )
        assert said.count("order echo") == 2


def test_submit_map_and_options(in_flow, tmp_path, unique, effects):
    """`.submit` returns a future that the next task accepts, `.map` one for each item, and `.with_options` renames."""
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.csv")
        paths[-1].write_text(f"{unique} {number}")

    def body():
        series = tasks.upload_artifact.map(paths)
        renamed = tasks.place_order.with_options(name="Order an echo", task_run_name="ordered", timeout_seconds=60)
        orders = [renamed.submit("echo", {"message": one.result().urn}) for one in series]
        noted = tasks.attach_aspect.map(series, unmapped({"$schema": "urn:example:schema:mapped.1", "batch": unique}))
        assert renamed.name == "Order an echo"
        return [one.result() for one in orders], noted.result()

    orders, noted = in_flow(body)
    assert len({order.urn for order in orders}) == len({note.urn for note in noted}) == 4
    assert effects.count("/1/orders") == effects.count("/1/artifacts") == 4


async def test_the_asynchronous_tasks_do_the_same(embedded_platform, ivcap_journal, source, unique, effects):
    """They can be awaited together, submitted and mapped."""

    @flow
    @recorded
    async def mapped():
        series = await tasks.aupload_artifact(source)
        order, job = await asyncio.gather(
            tasks.aplace_order("echo", {"message": series.urn}), tasks.arequest_job("echo", {"message": unique})
        )
        one = tasks.aplace_order.submit("echo", {"message": unique})
        more = tasks.aplace_order.map(["echo", "echo"], [{"message": unique + "1"}, {"message": unique + "2"}])
        [done, *_], [ended] = await asyncio.gather(
            tasks.a_wait_for_orders([order, one.result(), *more.result()], timeout=60),
            tasks.a_wait_for_jobs([job], timeout=60),
        )
        return done, ended, await tasks.aattach_aspect(done, dict([NOTE], text="one"))

    done, ended, note = await mapped()
    assert (done.status, ended.result, note.entity) == ("succeeded", {"message": unique}, done.urn)
    assert effects.count("/1/orders") == 4


async def test_a_synchronous_task_of_an_asynchronous_flow_is_refused(embedded_platform, ivcap_journal, unique, effects):
    """Before it spends, with the name of the task to await; in a thread of the flow it blocks nothing. A synchronous
    flow runs on a loop, as in a notebook."""

    @flow
    async def confused(awaited: bool):
        order = tasks.place_order("echo", {"message": unique})
        return await order if awaited else order

    @flow
    async def submits():
        return tasks.place_order.submit("echo", {"message": unique}).result().urn

    @flow
    def of_notebook():
        return tasks.place_order("echo", {"message": unique}).urn

    for awaited in (True, False):
        with pytest.raises(InputError, match="awaits `aplace_order`"):
            await confused(awaited)
    assert effects.count("/1/orders") == 0
    assert await submits() and effects.count("/1/orders") == 1
    assert of_notebook() and effects.count("/1/orders") == 2


@pytest.mark.long
async def test_two_waits_together_do_not_hold_the_loop(embedded_platform, ivcap_journal):
    """Two waits that an asynchronous flow awaits together overlap, and do not hold its loop."""
    gaps = []

    async def tick():
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    @flow
    @recorded
    async def waiting():
        order, job = await asyncio.gather(
            tasks.aplace_order("sleep", {"seconds": 3.0}), tasks.arequest_job("sleep", {"seconds": 3.1})
        )
        ticker = asyncio.create_task(tick())
        begun = time.monotonic()
        await asyncio.gather(tasks.a_wait_for_orders([order], timeout=60), tasks.a_wait_for_jobs([job], timeout=60))
        ticker.cancel()
        return time.monotonic() - begun

    for _ in range(3):  # a busy machine may hold any process now and then
        gaps.clear()
        took = await waiting()
        if max(gaps) < took / 3:
            break
    assert len(gaps) > 20
    assert max(gaps) < took / 3, f"held for {max(gaps):.3f} s of {took:.1f} s"
