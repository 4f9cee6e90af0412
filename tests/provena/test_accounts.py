"""Roles, groups, person links, anybody's jobs and handles against the embedded Provena."""

from __future__ import annotations

import pytest

from ivcap_flows.errors import BadRequestError, NotAuthorizedError, NotFoundError, UnavailableError
from ivcap_flows.provena.models import Person

WAIT = 15.0


@pytest.fixture
async def admin(embedded_provena):
    async with embedded_provena.client("ADMIN") as made:
        yield made


async def test_roles_are_reported_and_asked_for(user):
    """The report tells what the caller has; asking for more leaves it as it was and shows among the requests."""
    report = await user.auth_api.access_report()
    before = len(await user.auth_api.request_history())
    wanted = report.asking_for("handle-read")
    await user.auth_api.request_change(wanted, send_email=False)
    assert set(report.granted()) == {"entity-registry-read", "entity-registry-write"}
    assert set(wanted.granted()) == {*report.granted(), "handle-read"}
    history, pending = await user.auth_api.request_history(), await user.auth_api.pending_requests()
    assert len(history) == before + 1
    assert history[0].request_id in [request.request_id for request in pending]
    assert history[0].username == await user.username()


async def test_groups_show_their_members_to_members(user, admin):
    """Who is in a group sees who else is; others are denied that, and an unknown group is told as such."""
    name, call, groups = await user.username(), admin.auth_api.call, user.auth_api.groups
    group = {"id": "modellers", "display_name": "Modellers", "description": "who model"}
    await call("POST", "/groups/admin/add_group", repeat="unsafe", json=group)
    assert await groups.is_member("modellers") is False and await groups.mine() == []
    with pytest.raises(NotAuthorizedError) as caught:
        await groups.members("modellers")
    assert caught.value.about == "item"

    params = {"group_id": "modellers"}
    await call("POST", "/groups/admin/add_member", repeat="unsafe", params=params, json={"username": name})
    assert [member.username for member in await groups.members("modellers")] == [name]
    assert await groups.is_member("modellers") is True
    assert [one.id for one in await groups.mine()] == ["modellers"]
    assert (await groups.describe("modellers")).display_name == "Modellers"
    assert "modellers" in [one.id for one in await groups.list()]
    for ask in (groups.describe, groups.members, groups.is_member):
        with pytest.raises(NotFoundError):
            await ask("nothing")


async def test_a_person_link_is_checked_and_made_once(embedded_provena, user):
    """Only one's own person can be linked; afterwards any check says that there is a link."""
    async with embedded_provena.client("PROVENA_OFFLINE_TOKEN_UNLINKED") as unlinked:
        api = unlinked.auth_api
        own = Person(display_name="U", email="u@example.org", first_name="U", last_name="V", ethics_approved=True)
        person = (await unlinked.registry.create(Person, own)).item.id
        assert await api.linked_person() is None
        with pytest.raises(NotAuthorizedError):
            await api.assign_person(await user.auth_api.linked_person())
        assert await api.validate_person(person) is None
        await api.assign_person(person)
        assert await api.linked_person() == person
        assert "already" in await api.validate_person(person)
        with pytest.raises(BadRequestError):
            await api.assign_person(person)


async def test_administrators_see_and_launch_the_jobs_of_all(user, admin):
    """A job for a user in a new batch is found by that user's name and in that batch; users are refused."""
    name, jobs = await user.username(), admin.jobs.admin
    launched = await jobs.launch("REGISTRY", "REGISTRY_WAKE_UP", {"reason": "test"}, username=name, new_batch=True)
    assert (await user.jobs.wait(launched.session_id, WAIT)).username == name
    assert (await jobs.fetch(launched.session_id)).batch_id == launched.batch_id
    assert await jobs.fetch("nothing") is None
    assert [each.session_id async for each in jobs.list_batch(launched.batch_id)] == [launched.session_id]
    assert {each.username async for each in jobs.list(username=name, limit=3)} == {name}
    assert len([each async for each in user.jobs.list(limit=1)]) == 1
    with pytest.raises(NotAuthorizedError) as caught:
        [each async for each in user.jobs.admin.list()]
    assert caught.value.about == "token"


async def test_a_handle_gets_values_and_loses_them(user, admin):
    """Minted, added to, changed and removed; what the service behind refuses is asked once."""
    ids = admin.ids
    minted = await ids.mint("URL", "https://example.org/1")
    await ids.add(minted.id, "DESC", "a page")
    await ids.add_at(minted.id, 7, "URL", "https://example.org/7")
    changed = await ids.modify(minted.id, 1, "https://example.org/2")
    values = [(value.index, value.type, value.value) for value in changed.properties]
    assert values == [(1, "URL", "https://example.org/2"), (2, "DESC", "a page"), (7, "URL", "https://example.org/7")]
    left = await ids.remove(minted.id, 7)
    assert [value.index for value in left.properties] == [1, 2]
    assert await ids.get(minted.id) == left and minted.id in await ids.list()
    for ask in (ids.get("102.100.100/0"), ids.modify(minted.id, 9, "x")):
        with pytest.raises(UnavailableError):
            await ask
    with pytest.raises(NotAuthorizedError):
        await user.ids.mint("URL", "https://example.org")
