"""The registry of the embedded Provena, all subtypes: read, list, change, version, guard."""

from __future__ import annotations

import asyncio
import time

import pytest

from ivcap_flows.errors import BadRequestError, NotAuthorizedError, NotFoundError, RegistrationFailedError
from ivcap_flows.provena.models import (
    Creation,
    DatasetInfo,
    DatasetTemplate,
    Deferred,
    Item,
    Model,
    ModelRun,
    Organisation,
    Person,
    Seed,
    Study,
    TemplateUse,
    Version,
    WorkflowTemplate,
)
from ivcap_flows.provena.registry_access import AccessSettings
from ivcap_flows.provena.subtypes import CREATABLE

WAIT = 30.0
URL = "https://example.org/d"
MODEL = Model(display_name="m", name="m", description="d", documentation_url=URL, source_url=URL)


@pytest.fixture
async def model(user):
    """The id of a model that no other test has."""
    return (await user.registry.create(Model, MODEL)).item.id


async def test_each_subtype_is_created_changed_and_read_back(user, world):
    """All that the registry writes: create, update with a field of a newer server, history, revert, list."""
    statements = {
        Person: Person(display_name="P", email="p@example.org", first_name="P", last_name="Q", ethics_approved=True),
        Organisation: Organisation(display_name="O", name="O", ror="https://ror.org/1"),
        Model: MODEL,
        DatasetTemplate: DatasetTemplate(display_name="T", deferred_resources=[Deferred(key="k", description="d")]),
        WorkflowTemplate: WorkflowTemplate(
            display_name="W", software_id=world.model, input_templates=[TemplateUse(template_id=world.template_out)]
        ),
        Study: Study(display_name="S", title="S", description="d", study_alternative_id="a"),
    }
    assert statements.keys() == CREATABLE
    for kind, info in statements.items():
        made = (await user.registry.create(kind, info)).item
        changed = made.info.model_copy(update={"display_name": "changed"})
        await user.registry.update(kind, made.id, changed, reason="because")
        after = await user.registry.fetch(kind, made.id)
        await user.registry.revert(kind, made.id, 0, reason="back")
        back = await user.registry.fetch(kind, made.id)
        assert made.info == info, kind
        assert (after.info, after.history[0].reason) == (changed, "because")
        assert (back.info, len(back.history)) == (info, 3)
        assert back.history[-1].item["display_name"] == info.display_name
        assert made.id in [item.id async for item in user.registry.list(kind)]
        assert await user.registry.validate(kind, info) is None


async def test_what_other_apis_write_is_read_here(user, world, model):
    """Datasets, model runs, and the activities that jobs make of items and their versions."""
    source, result = (await world.minted(user))[0], (await world.minted(user))[0]
    lodged = (await user.jobs.wait(await user.prov.register(world.record(source, result)), WAIT)).checked().lodged
    run = (await user.registry.fetch_with_access(ModelRun, lodged.id)).item
    assert run.info.record.workflow_template_id == world.workflow

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


async def test_a_seed_is_read_as_such_and_gets_its_content(user):
    """A seed has an id and no content; its first update makes it an item, without a reason."""
    seed = await user.registry.seed("ORGANISATION")
    read = await user.registry.fetch_with_access(Organisation, seed.id)
    assert (read.is_seed, read.locked, read.roles) == (True, False, ["metadata-read", "metadata-write", "admin"])
    assert type(read.item) is type(await user.registry.fetch_any(seed.id)) is Seed
    assert seed.id in [one.id async for one in user.registry.seeds(Organisation)]
    with pytest.raises(NotFoundError):
        await user.registry.fetch(Organisation, seed.id)
    with pytest.raises(BadRequestError):
        await user.registry.fetch_with_access(Person, seed.id)

    await user.registry.update(Organisation, seed.id, Organisation(display_name="o", name="o"))
    whole = await user.registry.fetch_with_access(Organisation, seed.id)
    assert whole.is_seed is False and isinstance(whole.item, Item) and whole.item.info.name == "o"
    assert seed.id not in [one.id async for one in user.registry.seeds(Organisation)]


async def test_any_item_is_fetched_and_listed_without_knowing_its_subtype(user, world):
    """The raw form of the general routes becomes the same typed items, seeds among them where wanted."""
    seed = await user.registry.seed(Model)
    typed, plain = (
        await user.registry.fetch(WorkflowTemplate, world.workflow),
        await user.registry.fetch_any(world.workflow),
    )
    assert (plain.id, plain.info, plain.versioning_info) == (typed.id, typed.info, typed.versioning_info)
    assert len(plain.history) == len(typed.history) == 1
    [some] = [item async for item in user.registry.list_any(subtype=Model, seeds=True, limit=1)]
    assert (type(some), some.id) == (Seed, seed.id)
    names = [i.display_name async for i in user.registry.list_any(sort="DISPLAY_NAME", ascending=True, page_size=3)]
    assert names == sorted(names) and len(names) > 6
    with pytest.raises(NotFoundError):
        await user.registry.fetch_any("nothing")


async def test_access_is_told_and_set(embedded_provena, user, model):
    """Who closes an item to everybody keeps it; the other user is denied it and does not find it in lists."""
    access = user.registry.access
    settings = await access.configuration(Model, model)
    assert settings.general == ["metadata-read"]
    await access.modify(Model, model, settings.model_copy(update={"general": []}))
    async with embedded_provena.client("PROVENA_OFFLINE_TOKEN_2") as other:
        with pytest.raises(NotAuthorizedError) as caught:
            await other.registry.fetch(Model, model)
        assert caught.value.about == "item"
        assert model not in [item.id async for item in other.registry.list(Model)]
        assert await other.registry.access.evaluate(Model, model) == []
    with pytest.raises(BadRequestError):
        await access.modify(Model, model, AccessSettings(owner="somebody"))
    assert "admin" in await access.evaluate(Model, model)
    assert [role.role_name for role in await access.roles(Model)] == ["metadata-read", "metadata-write", "admin"]


async def test_the_platform_says_what_it_would_refuse(user):
    """Its words come back whether our own checks agree or not, and its schema is the platform's own."""
    unknown = WorkflowTemplate(display_name="w", software_id="nothing")
    twice = DatasetTemplate(display_name="t", deferred_resources=[Deferred(key="k", description="d")] * 2)
    assert "nothing" in await user.registry.validate(WorkflowTemplate, unknown)
    assert "deferred" in (await user.registry.validate(DatasetTemplate, twice)).lower()
    assert "software_id" in (await user.registry.schema(WorkflowTemplate))["properties"]
    assert await user.registry.ui_schema(WorkflowTemplate) != {}


async def test_a_run_is_read_back_and_its_lineage_followed_both_ways(user, world):
    """From a result up to its source and back; the special queries end at datasets and at agents."""
    (source, _), (result, _) = await world.minted(user), await world.minted(user)
    record = world.record(source, result)
    row = (await user.jobs.wait(await user.prov.register(record), WAIT)).checked()
    run, prov = row.lodged.id, user.prov
    assert row.records == [record] and f'"{run}"' in row.lodged.prov_json
    item = await user.registry.fetch(ModelRun, run)
    assert (item.info.record, item.info.record_status, item.owner_username) == (record, "LODGED", await user.username())
    handle = item.handle(await user.platform())
    told = (handle.platform, handle.started_at.timestamp(), handle.modeller, handle.organisation)
    assert told == ("urn:ivcap-flows:embedded:of-this-test", record.start_time, world.person, world.organisation)

    async def links(*asked, **options):
        return {(link.source, link.type, link.target) for link in (await prov.explore(*asked, **options)).links}

    both = {(run, "used", source), (result, "wasGeneratedBy", run)}
    assert await links(result, "upstream", depth=2) >= both
    assert await links(source, "downstream", depth=2) == both
    assert await links(source, "downstream", depth=1) == {(run, "used", source)}
    assert await links(world.person, "upstream") == set()
    down = await prov.explore(source, "downstream", depth=2)
    assert {node.id for node in down.of_subtype("DATASET")} == {source, result}
    for query, of, found in (
        (prov.contributing_datasets, result, {source}),
        (prov.effected_datasets, source, {result}),
        (prov.contributing_agents, result, {world.person, world.organisation}),
        (prov.effected_agents, source, {world.person}),
    ):
        assert found <= {node.id for node in (await query(of)).nodes}


async def test_a_batch_has_a_child_for_each_record(user, world):
    """One bad record fails alone; children are matched by content and raise their own reason."""
    (source, _), (result, _) = await world.minted(user), await world.minted(user)
    good, bad = world.record(source, result), world.record(source, "no-such-dataset")
    submitted = (await user.jobs.wait(await user.prov.register_batch([good, bad]), WAIT)).checked()
    assert submitted.records == [good, bad]
    end, rows = time.monotonic() + WAIT, []
    while len(rows) < 2 or not all(row.done for row in rows):
        assert time.monotonic() < end
        await asyncio.sleep(0.1)
        rows = [row async for row in user.jobs.list_batch(submitted.result_batch_id, page_size=1)]
    ended = {row.record.annotations["cfg"]: row for row in rows}
    assert ended[good.annotations["cfg"]].lodged is not None
    with pytest.raises(RegistrationFailedError, match="no-such-dataset"):
        ended[bad.annotations["cfg"]].checked()


async def test_a_service_account_can_read(embedded_provena, world):
    """Client credentials give a token with a service account's name."""
    async with embedded_provena.robot() as robot:
        assert (await robot.username()).startswith("service-account-")
        assert (await robot.registry.fetch(WorkflowTemplate, world.workflow)).display_name == "wf"
