"""The registry's items of all subtypes against the embedded Provena: read, list, change, version, guard."""

from __future__ import annotations

import uuid

import pytest

from ivcap_flows.errors import BadRequestError, ForbiddenError, InputError, NotAuthorizedError, NotFoundError
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
from ivcap_flows.provena.subtypes import CREATABLE, SUBTYPES

WAIT = 15.0


def a_model(name="m"):
    return Model(
        display_name=name,
        name=name,
        description="d",
        documentation_url="https://example.org/d",
        source_url="https://example.org/s",
    )


async def statements(world):
    """What an item of each subtype that the registry writes may state."""
    model_id = world.model
    return {
        Person: Person(display_name="P", email="p@example.org", first_name="P", last_name="Q", ethics_approved=True),
        Organisation: Organisation(display_name="O", name="O", ror="https://ror.org/1"),
        Model: a_model(),
        DatasetTemplate: DatasetTemplate(display_name="T", deferred_resources=[Deferred(key="k", description="d")]),
        WorkflowTemplate: WorkflowTemplate(
            display_name="W", software_id=model_id, input_templates=[TemplateUse(template_id=world.template_out)]
        ),
        Study: Study(display_name="S", title="S", description="d", study_alternative_id="a"),
    }


async def test_all_apis_say_that_they_are_well(embedded_provena, user):
    """Each has the same health check, and the registry tells its version."""
    apis = (user.registry, user.prov, user.jobs, user.datastore, user.auth_api, user.search, user.ids)

    assert {await api.health() for api in apis} == {"Health check successful."}
    assert (await user.registry.about()).tag_name == "embedded"


async def test_each_subtype_is_created_changed_and_read_back(user, world):
    """All that the registry writes: create, update with a field of a newer server, history, revert, list."""
    for kind, info in (await statements(world)).items():
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


async def test_what_other_apis_write_is_read_here_and_refused_on_writing(user, world):
    """Datasets, model runs and activities are read and listed; the registry sends no write for them."""
    source, result = (await world.minted(user))[0], (await world.minted(user))[0]
    row = (await user.jobs.wait(await user.prov.register(world.record(source, result)), WAIT)).checked()
    dataset = await user.registry.fetch(DatasetInfo, source)
    created = await user.jobs.wait(dataset.workflow_links.create_activity_workflow_id, WAIT)

    assert dataset.info.s3.s3_uri == f"s3://{dataset.info.s3.bucket_name}/{dataset.info.s3.path}"
    assert dataset.info.release_status == "NOT_RELEASED"
    assert dataset.versioning_info.version == 1
    run = (await user.registry.fetch_with_access(ModelRun, row.lodged.id)).item
    assert run.info.record.workflow_template_id == world.workflow
    creation = await user.registry.fetch(Creation, created.result["creation_activity_id"])
    assert creation.info.created_item_id == source
    for kind in set(SUBTYPES.values()) - CREATABLE:
        with pytest.raises(InputError):
            await user.registry.seed(kind)
        with pytest.raises(InputError):
            await user.registry.revert(kind, "x", 0, reason="r")
        assert [item async for item in user.registry.list(kind, limit=1)] or kind is Version


async def test_a_seed_is_read_as_such_and_gets_its_content(user):
    """A seed has an id and no content; its first update makes it an item, without a reason."""
    seed = await user.registry.seed("ORGANISATION")
    read = await user.registry.fetch_with_access(Organisation, seed.id)
    listed = [one.id async for one in user.registry.seeds(Organisation)]
    anything = await user.registry.fetch_any(seed.id)
    with pytest.raises(NotFoundError):
        await user.registry.fetch(Organisation, seed.id)
    with pytest.raises(BadRequestError):
        await user.registry.fetch_with_access(Person, seed.id)
    await user.registry.update(Organisation, seed.id, Organisation(display_name="o", name="o"))
    whole = await user.registry.fetch_with_access(Organisation, seed.id)

    assert (read.is_seed, read.locked, read.roles) == (True, False, ["metadata-read", "metadata-write", "admin"])
    assert type(read.item) is type(anything) is Seed
    assert seed.id in listed
    assert whole.is_seed is False
    assert isinstance(whole.item, Item)
    assert whole.item.info.name == "o"
    assert seed.id not in [one.id async for one in user.registry.seeds(Organisation)]


async def test_any_item_is_fetched_and_listed_without_knowing_its_subtype(user, world):
    """The raw form of the general routes becomes the same typed items, seeds among them where wanted."""
    seed = await user.registry.seed(Model)
    typed = await user.registry.fetch(WorkflowTemplate, world.workflow)

    plain = await user.registry.fetch_any(world.workflow)
    some = [item async for item in user.registry.list_any(subtype=Model, seeds=True, limit=1)]
    names = [i.display_name async for i in user.registry.list_any(sort="DISPLAY_NAME", ascending=True, page_size=3)]
    with pytest.raises(NotFoundError):
        await user.registry.fetch_any("nothing")

    assert (plain.id, plain.info, plain.versioning_info) == (typed.id, typed.info, typed.versioning_info)
    assert len(plain.history) == len(typed.history) == 1
    assert [type(item) for item in some] == [Seed]
    assert some[0].id == seed.id
    assert names == sorted(names)
    assert len(names) > 6


async def test_a_list_is_read_only_as_far_as_it_is_used(user):
    """`limit` is the total over pages; none at all asks nothing."""
    names = [uuid.uuid4().hex for _ in range(3)]
    for name in names:
        await user.registry.create(Organisation, Organisation(display_name=name, name=name))

    listed = [item.id async for item in user.registry.list(Organisation, page_size=1, limit=2)]

    assert len(set(listed)) == 2
    assert [item async for item in user.registry.list(Organisation, limit=0)] == []


async def test_an_item_has_one_next_version(user, world):
    """A version copies what the item states; a second one of the same item is refused and the first named."""
    new = await user.registry.version(Model, world.model, reason="better")
    first, second = [await user.registry.fetch(Model, one) for one in (world.model, new.id)]
    job = (await user.jobs.wait(new.session_id, WAIT)).checked()
    activity = await user.registry.fetch(Version, job.result["version_activity_id"])
    with pytest.raises(BadRequestError, match=new.id):
        await user.registry.version(Model, world.model, reason="again")
    with pytest.raises(InputError):
        await user.registry.version(Study, "x", reason="r")

    assert second.info == first.info
    assert first.versioning_info.next_version == new.id
    assert (second.versioning_info.previous_version, second.versioning_info.version) == (world.model, 2)
    assert (activity.info.from_item_id, activity.info.to_item_id) == (world.model, new.id)


async def test_a_locked_item_cannot_be_changed(user, world):
    """The lock is the item's affair, not the token's; its history is oldest first."""
    locks = user.registry.locks
    await locks.lock(Model, world.model, reason="done")
    locked = await locks.locked(Model, world.model)
    with pytest.raises(NotAuthorizedError) as caught:
        await user.registry.update(Model, world.model, a_model(), reason="r")
    with pytest.raises(BadRequestError):
        await locks.lock(Model, world.model, reason="again")
    await locks.unlock(Model, world.model, reason="more to do")

    assert locked is True
    assert caught.value.about == "item"
    events = await locks.history(Model, world.model)
    assert [(event.action_type, event.reason) for event in events] == [("LOCK", "done"), ("UNLOCK", "more to do")]
    assert await locks.locked(Model, world.model) is False


async def test_access_is_told_and_set(embedded_provena, user, world):
    """Who closes an item to everybody keeps it; the other user is denied it and does not find it in lists."""
    access = user.registry.access
    settings = await access.configuration(Model, world.model)
    await access.modify(Model, world.model, settings.model_copy(update={"general": []}))

    async with embedded_provena.client("PROVENA_OFFLINE_TOKEN_2") as other:
        with pytest.raises(NotAuthorizedError) as caught:
            await other.registry.fetch(Model, world.model)
        assert world.model not in [item.id async for item in other.registry.list(Model)]
        assert await other.registry.access.evaluate(Model, world.model) == []
    with pytest.raises(BadRequestError):
        await access.modify(Model, world.model, AccessSettings(owner="somebody"))

    assert settings.general == ["metadata-read"]
    assert caught.value.about == "item"
    assert "admin" in await access.evaluate(Model, world.model)
    assert [role.role_name for role in await access.roles(Model)] == ["metadata-read", "metadata-write", "admin"]


async def test_the_platform_says_what_it_would_refuse(user):
    """Its words come back whether our own checks agree or not, and its schema is the platform's own."""
    unknown = WorkflowTemplate(display_name="w", software_id="nothing")
    twice = DatasetTemplate(display_name="t", deferred_resources=[Deferred(key="k", description="d")] * 2)

    assert "nothing" in await user.registry.validate(WorkflowTemplate, unknown)
    assert "deferred" in (await user.registry.validate(DatasetTemplate, twice)).lower()
    assert "software_id" in (await user.registry.schema(WorkflowTemplate))["properties"]
    assert await user.registry.ui_schema(WorkflowTemplate) != {}


async def test_an_update_keeps_what_a_newer_server_added(scripted, client):
    """A field that only the platform knows goes back to it, since an update replaces all; a create refuses it."""
    path = "/registry/registry/agent/organisation"
    item = {"id": "O", "item_subtype": "ORGANISATION", "display_name": "o", "name": "o", "planet": "Earth"}
    scripted.on(f"GET {path}/fetch", {"status": {"success": True, "details": ""}, "item": item})
    scripted.on(f"PUT {path}/update", {"status": {"success": True, "details": ""}})

    read = await client.registry.fetch(Organisation, "O")
    await client.registry.update(Organisation, "O", read.info, reason="r")
    with pytest.raises(InputError, match="planet"):
        await client.registry.create(Organisation, read.info)

    [sent] = scripted.sent(f"PUT {path}/update")
    assert sent.body == {"display_name": "o", "name": "o", "planet": "Earth"}
    assert sent.query == {"id": "O", "reason": "r"}


async def test_a_list_that_goes_in_a_circle_ends(scripted, client):
    """The same key twice would never end."""
    item = {"id": "O", "item_subtype": "ORGANISATION", "display_name": "o", "name": "o"}
    page = {"items": [item], "pagination_key": {"id": "O"}}
    scripted.on("POST /registry/registry/agent/organisation/list", page)

    with pytest.raises(Exception, match="read before"):
        [item async for item in client.registry.list(Organisation)]

    assert len(scripted.seen) == 2


async def test_releases_are_listed_for_the_reviewer_alone(embedded_provena, user, world):
    """A sort is always sent, without which the server fails; another's are forbidden."""
    other_person = None
    async with embedded_provena.client("PROVENA_OFFLINE_TOKEN_2") as other:
        other_person = await other.auth_api.linked_person()

    assert [item async for item in user.registry.releases(world.person)] == []
    # The registry has one index only for what a reviewer has, and refuses the sort that other lists have.
    assert [item async for item in user.registry.list_any(reviewer=world.person)] == []
    some = user.registry.list_any(reviewer=world.person, subtype=Model, limit=1)
    assert [item.item_subtype async for item in some] == ["MODEL"]
    with pytest.raises(ForbiddenError):
        [item async for item in user.registry.releases(other_person)]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.registry.fetch(Model, ""),
        lambda client: client.registry.fetch_any(" "),
        lambda client: client.registry.locks.lock(Model, "", reason="r"),
        lambda client: client.registry.version(Model, "", reason="r"),
        lambda client: client.datastore.fetch_dataset(""),
        lambda client: client.datastore.read_credentials(""),
        lambda client: client.datastore.releases.request("102.100.100/1", "", notes="n"),
        lambda client: client.jobs.fetch(""),
        lambda client: client.prov.explore("", "upstream"),
        lambda client: client.prov.link_to_study("102.100.100/1", ""),
        lambda client: client.auth_api.assign_person(""),
        lambda client: client.registry.create(Study, Study(display_name="", title="t", description="d")),
        lambda client: client.registry.update(Study, "1", Study(display_name=" ", title="t", description="d")),
    ],
)
async def test_what_provena_crashes_at_is_not_sent(scripted, client, ask):
    """An empty id or name is the caller's fault: a 500 would look like a server that is down."""
    with pytest.raises(InputError, match="empty"):
        await ask(client)
    assert not [seen for seen in scripted.seen if "/protocol/" not in seen.path]


async def test_an_empty_field_of_an_item_is_sent(scripted, client):
    """Only names and ids may not be empty."""
    study = {"id": "S", "item_subtype": "STUDY", "display_name": "s", "title": "t", "description": "d"}
    scripted.on("POST /registry/registry/activity/study/create", {"created_item": study})
    await client.registry.create(Study, Study(display_name="s", title="t", description="d", study_alternative_id=""))
    assert scripted.sent("POST /registry/registry/activity/study/create")[0].body["study_alternative_id"] == ""
