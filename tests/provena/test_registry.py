"""The registry of the embedded Provena, all subtypes: read, list, change, version, guard."""

from __future__ import annotations

import pytest

from ivcap_flows.errors import BadRequestError, NotFoundError
from ivcap_flows.provena.models import (
    Creation,
    DatasetInfo,
    DatasetTemplate,
    Deferred,
    Model,
    ModelRun,
    ModelRunRecord,
    Organisation,
    Person,
    Seed,
    Study,
    TemplateUse,
    Version,
    WorkflowTemplate,
)
from ivcap_flows.provena.subtypes import CREATABLE

WAIT = 30.0
URL = "https://example.org/d"
MODEL = Model(display_name="m", name="m", description="d", documentation_url=URL, source_url=URL)


@pytest.fixture
async def model(user):
    """The id of a model that no other test has."""
    return (await user.registry.create(Model, MODEL)).item.id


async def test_each_subtype_is_created_changed_and_read_back(user, run_items):
    """All that the registry writes: create, update, history, list."""
    statements = {
        Person: Person(display_name="P", email="p@example.org", first_name="P", last_name="Q", ethics_approved=True),
        Organisation: Organisation(display_name="O", name="O", ror="https://ror.org/1"),
        Model: MODEL,
        DatasetTemplate: DatasetTemplate(display_name="T", deferred_resources=[Deferred(key="k", description="d")]),
        WorkflowTemplate: WorkflowTemplate(
            display_name="W", software_id=run_items.model, input_templates=[TemplateUse(template_id=run_items.template)]
        ),
        Study: Study(display_name="S", title="S", description="d", study_alternative_id="a"),
    }
    assert statements.keys() == CREATABLE
    for kind, info in statements.items():
        made = (await user.registry.create(kind, info)).item
        changed = made.info.model_copy(update={"display_name": "changed"})
        await user.registry.update(kind, made.id, changed, reason="because")
        after = await user.registry.fetch(kind, made.id)
        assert made.info == info, kind
        assert (after.info, after.history[0].reason) == (changed, "because")
        assert [entry.item["display_name"] for entry in after.history] == ["changed", info.display_name]
        assert made.id in [item.id async for item in user.registry.list(kind)]


def run_of(run_items, source, result) -> ModelRunRecord:
    """The record of a run that took one dataset and made the other."""
    return ModelRunRecord(**run_items.record(0, datasets=(source, result)))


async def test_what_other_apis_write_is_read_here(user, run_items, model):
    """Datasets, model runs, and the activities that jobs make of items and their versions."""
    source, result = await run_items.mint(user), await run_items.mint(user)
    lodged = (await user.jobs.wait(await user.prov.register(run_of(run_items, source, result)), WAIT)).checked().lodged
    run = await user.registry.fetch(ModelRun, lodged.id)
    assert run.info.record.workflow_template_id == run_items.workflow

    dataset = await user.registry.fetch(DatasetInfo, source)
    assert dataset.info.s3.s3_uri == f"s3://{dataset.info.s3.bucket_name}/{dataset.info.s3.path}"
    assert (dataset.info.release_status, dataset.versioning_info.version) == ("NOT_RELEASED", 1)
    job = await user.jobs.wait(dataset.workflow_links.create_activity_workflow_id, WAIT)
    creation = await user.registry.fetch(Creation, job.result["creation_activity_id"])
    assert creation.info.created_item_id == source

    new = await user.registry.version(Model, model, reason="better")
    job = (await user.jobs.wait(new.session_id, WAIT)).checked()
    activity = await user.registry.fetch(Version, job.result["version_activity_id"])
    assert (activity.info.from_item_id, activity.info.to_item_id) == (model, new.id)
    with pytest.raises(BadRequestError, match=new.id):
        await user.registry.version(Model, model, reason="again")
    for kind in (ModelRun, DatasetInfo, Creation, Version):
        assert [item async for item in user.registry.list(kind, limit=1)]


async def test_any_item_is_fetched_without_knowing_its_subtype(user, run_items):
    """The raw form of the general route becomes the same typed item, or a seed, which has no content to fetch."""
    typed, plain = (
        await user.registry.fetch(WorkflowTemplate, run_items.workflow),
        await user.registry.fetch_any(run_items.workflow),
    )
    assert (plain.id, plain.info, plain.versioning_info) == (typed.id, typed.info, typed.versioning_info)
    assert len(plain.history) == len(typed.history) == 1
    path = "/registry/agent/organisation/seed"
    seed = (await user.registry.call("POST", path, repeat="unsafe"))["seeded_item"]["id"]
    assert type(await user.registry.fetch_any(seed)) is Seed
    with pytest.raises(NotFoundError):
        await user.registry.fetch(Organisation, seed)
    await user.registry.update(Organisation, seed, Organisation(display_name="o", name="o"))
    assert (await user.registry.fetch(Organisation, seed)).info.name == "o"
    with pytest.raises(NotFoundError):
        await user.registry.fetch_any("nothing")


async def test_a_run_is_read_back_and_its_lineage_followed_both_ways(user, run_items):
    """From a result up to its source and back; the special queries end at datasets and at agents."""
    source, result = await run_items.mint(user), await run_items.mint(user)
    record = run_of(run_items, source, result)
    row = (await user.jobs.wait(await user.prov.register(record), WAIT)).checked()
    run, prov = row.lodged.id, user.prov
    assert row.record == record and f'"{run}"' in row.lodged.prov_json
    item = await user.registry.fetch(ModelRun, run)
    assert (item.info.record, item.info.record_status, item.owner_username) == (record, "LODGED", await user.username())
    handle = item.handle(await user.platform())
    told = (handle.platform, handle.started_at.timestamp(), handle.modeller, handle.organisation)
    stated = (record.start_time, run_items.person, run_items.organisation)
    assert told == ("urn:ivcap-flows:embedded:of-this-test", *stated)

    async def links(*asked, **options):
        return {(link.source, link.type, link.target) for link in (await prov.explore(*asked, **options)).links}

    both = {(run, "used", source), (result, "wasGeneratedBy", run)}
    assert await links(result, "upstream", depth=2) >= both
    assert await links(source, "downstream", depth=2) == both
    assert await links(source, "downstream", depth=1) == {(run, "used", source)}
    assert await links(run_items.person, "upstream") == set()
    down = await prov.explore(source, "downstream", depth=2)
    assert {node.id for node in down.nodes if node.subtype == "DATASET"} == {source, result}
    for query, of, found in (
        (prov.contributing_datasets, result, {source}),
        (prov.effected_datasets, source, {result}),
        (prov.contributing_agents, result, {run_items.person, run_items.organisation}),
        (prov.effected_agents, source, {run_items.person}),
    ):
        assert found <= {node.id for node in (await query(of)).nodes}


async def test_a_service_account_can_read(embedded_provena, run_items):
    """Client credentials give a token with a service account's name."""
    async with embedded_provena.robot() as robot:
        assert (await robot.username()).startswith("service-account-")
        assert (await robot.registry.fetch(WorkflowTemplate, run_items.workflow)).display_name == "Work"
