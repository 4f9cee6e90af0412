"""The tasks as Prefect sees them: real tasks with names, options and pickles, each in two forms."""

from __future__ import annotations

import asyncio
import inspect
import json
import time

import cloudpickle
import pytest
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
    Handle,
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
from ivcap_flows.tasks import (
    aattach_aspect,
    adownload_artifact,
    alinked_person,
    amint_dataset,
    aplace_order,
    aregister_item,
    aregister_model_run,
    arequest_job,
    attach_aspect,
    aupdate_aspect,
    aupload_artifact,
    await_for_jobs,
    await_for_orders,
    download_artifact,
    linked_person,
    mint_dataset,
    place_order,
    register_item,
    register_model_run,
    request_job,
    update_aspect,
    upload_artifact,
    wait_for_jobs,
    wait_for_orders,
)

pytestmark = pytest.mark.canary

TASKS = [name for name in tasks.__all__ if isinstance(getattr(tasks, name), Task)]
VERBS = [name for name in TASKS if "a" + name in TASKS]
NAMES = {
    "upload_artifact": "Upload artifact",
    "download_artifact": "Download artifact",
    "get_artifact": "Get artifact",
    "place_order": "Place order",
    "wait_for_orders": "Wait for orders",
    "get_order": "Get order",
    "list_orders": "List orders",
    "order_log": "Read order log",
    "find_service": "Find service",
    "list_services": "List services",
    "register_service": "Register service",
    "list_jobs": "List jobs",
    "job_result": "Read job result",
    "exec_agent": "Run agent",
    "request_job": "Request job",
    "wait_for_jobs": "Wait for jobs",
    "get_job": "Get job",
    "attach_aspect": "Attach aspect",
    "update_aspect": "Update aspect",
    "get_aspect": "Get aspect",
    "list_aspects": "List aspects",
    "retract_aspect": "Retract aspect",
    "create_queue": "Create queue",
    "list_queues": "List queues",
    "enqueue": "Enqueue",
    "dequeue": "Dequeue",
    "delete_queue": "Delete queue",
    "search": "Search",
    "list_secrets": "List secrets",
    "get_secret": "Get secret",
    "set_secret": "Set secret",
    "register_model_run": "Register model run",
    "register_model_runs": "Register model runs",
    "register_item": "Register item",
    "mint_dataset": "Mint dataset",
    "linked_person": "Look up person",
    "add_to_collection": "Add to collection",
    "artifact_for_file": "Artifact for file",
    "get_collection": "Get collection",
    "collection_items": "Collection items",
    "create_collection": "Create collection",
    "explore_lineage": "Explore lineage",
    "fetch_item": "Fetch item",
    "fetch_url": "Fetch URL",
    "lineage_report": "Lineage report",
    "link_model_run_to_study": "Link model run to study",
    "list_artifacts": "List artifacts",
    "download_dataset_files": "Download dataset files",
    "list_collections": "List collections",
    "list_dataset_files": "List dataset files",
    "list_items": "List items",
    "lock_item": "Lock item",
    "read_artifact": "Read artifact",
    "register_dataset": "Register dataset",
    "remove_from_collection": "Remove from collection",
    "retract_collection": "Retract collection",
    "search_registry": "Search registry",
    "unlock_item": "Unlock item",
    "untar_artifact": "Untar artifact",
    "update_dataset": "Update dataset",
    "update_item": "Update item",
    "update_model_run": "Update model run",
    "upload_dataset_files": "Upload dataset files",
    "upload_directory": "Upload directory",
    "version_item": "Version item",
}
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


def test_every_verb_is_there_twice():
    """Each synchronous task has an asynchronous form, and there is no other name."""
    assert set(VERBS) == set(NAMES), "NAMES above has the name of each task in Prefect"
    assert set(TASKS) == {*VERBS, *("a" + verb for verb in VERBS)}


@pytest.mark.parametrize("verb", VERBS)
def test_pairs_share_name_docstring_and_signature(verb):
    """Both forms are Prefect tasks with one name, docstring and signature. Neither retries nor caches."""
    one, other = getattr(tasks, verb), getattr(tasks, "a" + verb)
    for each in (one, other):
        assert type(each) is Task
        assert each.name == NAMES.get(verb)
        assert each.retries == 0
        assert each.cache_policy.compute_key(None, {}, {}) is None
        assert inspect.getdoc(each.fn)
    assert one.fn.__doc__ == other.fn.__doc__
    assert inspect.signature(one.fn).parameters == inspect.signature(other.fn).parameters
    assert (one.fn.__name__, other.fn.__name__) == (verb, "a" + verb)
    assert (one.isasync, other.isasync) == (False, True)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_survives_cloudpickle(name):
    """A task that is pickled to another process is a task of the same name and function."""
    there = cloudpickle.loads(cloudpickle.dumps(getattr(tasks, name)))
    assert (there.name, there.fn.__name__) == (getattr(tasks, name).name, name)
    assert there.with_options(retries=1).retries == 1


def test_each_kind_of_handle_is_tried():
    """The list above has one of each class that tasks return."""
    named = {name for name in handles.__all__ if "urn" in getattr(getattr(handles, name), "model_fields", ())}
    assert {type(handle).__name__ for handle in HANDLES} == named - {"Handle"} | {"LocalFile"}, "see HANDLES above"


@pytest.mark.parametrize("handle", HANDLES, ids=lambda handle: type(handle).__name__)
def test_handles_survive_pickle_and_json(handle):
    """A handle is equal after cloudpickle and after JSON. Its products are found by name."""
    for copy in (
        cloudpickle.loads(cloudpickle.dumps(handle)),
        type(handle).model_validate_json(handle.model_dump_json()),
        type(handle).model_validate(json.loads(json.dumps(handle.model_dump(mode="json")))),
    ):
        assert copy == handle
        assert type(copy) is type(handle)
    if isinstance(handle, Order):
        assert copy.products["a.csv"] == ARTIFACT


def test_the_synchronous_tasks_do_the_whole_job(in_flow, source, tmp_path, effects, registry, unique):
    """Upload, order, job, waits, aspects, download, dataset, registration: each task accepts the result of the one
    before."""

    def body():
        series = upload_artifact(source)
        order = place_order("echo", {"message": series.urn})
        job = request_job("echo", {"message": unique})
        [done] = wait_for_orders([order], timeout=60)
        [ended] = wait_for_jobs([job], timeout=60)
        note = attach_aspect(done, dict([NOTE], text="one"))
        changed = update_aspect(done, dict([NOTE], text="two"))
        file = download_artifact(series, tmp_path / "back.csv")
        dataset = mint_dataset(series, terms=registry.terms)
        person = linked_person()
        run = register_model_run(
            done,
            workflow_template=registry.workflow,
            inputs={registry.template: dataset},
            outputs={registry.template: series},
            modeller=person,
        )
        item = register_item(Organisation(display_name=unique, name=unique))
        return series, done, ended, note, changed, file, dataset, run, item

    series, done, ended, note, changed, file, dataset, run, item = in_flow(body)
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
    assert effects.count("/1/orders") == effects.count("/1/artifacts") == 1
    assert effects.count("/provena/prov/model_run/register") == 1


@pytest.mark.long
async def test_the_asynchronous_tasks_do_the_whole_job(
    embedded_platform, ivcap_journal, source, tmp_path, registry, unique
):
    """The same in an asynchronous flow, with awaited tasks, several of them together."""

    @flow
    @recorded
    async def job():
        series = await aupload_artifact(source)
        order, request = await asyncio.gather(
            aplace_order("echo", {"message": series.urn}), arequest_job("echo", {"message": unique})
        )
        [done], [ended] = await asyncio.gather(
            await_for_orders([order], timeout=60), await_for_jobs([request], timeout=60)
        )
        note = await aattach_aspect(done, dict([NOTE], text="one"))
        changed = await aupdate_aspect(done, dict([NOTE], text="two"))
        file = await adownload_artifact(series, tmp_path / "back.csv")
        dataset = await amint_dataset(series, terms=registry.terms)
        run = await aregister_model_run(
            done,
            workflow_template=registry.workflow,
            inputs={registry.template: dataset},
            outputs={registry.template: series},
            modeller=await alinked_person(),
        )
        item = await aregister_item(Organisation(display_name=unique, name=unique))
        attached = await asyncio.gather(
            tasks.aget_artifact(series.urn), tasks.aget_order(done.urn), tasks.aget_job(ended.urn)
        )
        return series, done, ended, note, changed, file, dataset, run, item, attached

    series, done, ended, note, changed, file, dataset, run, item, attached = await job()
    assert (done.status, ended.result) == ("succeeded", {"message": unique})
    assert note.urn != changed.urn
    assert file.sha256 == series.sha256
    assert run.inputs == (dataset.urn,)
    assert isinstance(item, Handle)
    assert [each.urn for each in attached] == [series.urn, done.urn, ended.urn]


def test_tasks_have_the_tags_of_their_platforms():
    """By these, Prefect limits how many tasks of a platform run at once."""
    assert place_order.tags == wait_for_jobs.tags == {"ivcap"}
    assert linked_person.tags == {"provena"} and "provena" in register_model_run.tags
    assert {name for name in TASKS if not getattr(tasks, name).tags & {"ivcap", "provena"}} == {
        "fetch_url",
        "afetch_url",
    }


def test_runs_have_names_that_people_read(in_flow, source):
    """A task run's name says what it does with what, instead of a function's name and a number."""

    def body():
        series = upload_artifact(source)
        order = place_order("echo", {"message": "names " + series.urn})
        place_order("echo", {"message": "named " + series.urn}, name="north")
        wait_for_orders([order], timeout=60)
        return flow_run.id

    names = ["order echo", "order north", f"upload {source.name}", "wait for 1 order: echo"]
    of_flow = FlowRunFilter(id=FlowRunFilterId(any_=[in_flow(body)]))
    with get_client(sync_client=True) as client:
        end = time.monotonic() + 60
        # Prefect writes task runs in the background, and their names after them.
        while sorted(run.name for run in client.read_task_runs(flow_run_filter=of_flow)) != names:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_submit_map_and_options(in_flow, tmp_path, unique, effects):
    """`.submit` returns a future that the next task accepts, `.map` one for each item, and `.with_options` renames."""
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.csv")
        paths[-1].write_text(f"{unique} {number}")

    def body():
        series = upload_artifact.map(paths)
        renamed = place_order.with_options(name="Order an echo", task_run_name="ordered", timeout_seconds=60)
        orders = [renamed.submit("echo", {"message": one.result().urn}) for one in series]
        noted = attach_aspect.map(series, unmapped({"$schema": "urn:example:schema:mapped.1", "batch": unique}))
        assert renamed.name == "Order an echo"
        return [one.result() for one in orders], noted.result()

    orders, noted = in_flow(body)
    assert len({order.urn for order in orders}) == len({note.urn for note in noted}) == 4
    assert effects.count("/1/orders") == effects.count("/1/artifacts") == 4


async def test_async_tasks_submit_and_map(embedded_platform, ivcap_journal, unique, effects):
    """The asynchronous embedded platforms have `.submit` and `.map` as well."""

    @flow
    @recorded
    async def mapped():
        one = aplace_order.submit("echo", {"message": unique})
        more = aplace_order.map(["echo", "echo"], [{"message": unique + "1"}, {"message": unique + "2"}])
        return [one.result(), *more.result()]

    assert len({order.urn for order in await mapped()}) == 3
    assert effects.count("/1/orders") == 3


@pytest.mark.parametrize("awaited", [True, False])
async def test_a_synchronous_task_of_an_asynchronous_flow_is_refused(
    embedded_platform, ivcap_journal, unique, effects, awaited
):
    """Before it spends, with the name of the task to await; in a thread of the flow it blocks nothing."""

    @flow
    async def confused(submitted: bool = False):
        if submitted:
            return place_order.submit("echo", {"message": unique}).result().urn
        order = place_order("echo", {"message": unique})
        return await order if awaited else order

    with pytest.raises(InputError, match="awaits `aplace_order`"):
        await confused()
    assert effects.count("/1/orders") == 0
    assert await confused(submitted=True) and effects.count("/1/orders") == 1


async def test_a_synchronous_flow_runs_on_a_loop(embedded_platform, ivcap_journal, unique, effects):
    """As in a notebook."""

    @flow
    def of_notebook():
        return place_order("echo", {"message": unique}).urn

    assert of_notebook() and effects.count("/1/orders") == 1


@pytest.mark.long
async def test_two_waits_together_do_not_hold_the_loop(embedded_platform, ivcap_journal):
    """Two waits that an asynchronous flow awaits together overlap, and never block its loop for 100 ms."""
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
            aplace_order("sleep", {"seconds": 1.0}), arequest_job("sleep", {"seconds": 1.1})
        )
        ticker = asyncio.create_task(tick())
        begun = time.monotonic()
        await asyncio.gather(await_for_orders([order], timeout=60), await_for_jobs([job], timeout=60))
        ticker.cancel()
        return time.monotonic() - begun

    for _ in range(3):  # a busy machine may hold any process now and then
        gaps.clear()
        took = await waiting()
        if max(gaps) < 0.1:
            break
    assert len(gaps) > 20
    assert max(gaps) < 0.1, f"held for {max(gaps):.3f} s of {took:.1f} s"
