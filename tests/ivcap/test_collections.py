"""Collections: written as ivcap-client keeps them, read as anybody does, each item once."""

import json
from uuid import uuid4

import pytest
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import InputError, InvalidParameterError, NotFoundError, UnavailableError
from ivcap_flows.ivcap.collections import CollectionRecord

DEFINITION, ITEM = "urn:ivcap:schema:collection.1", "urn:ivcap:schema:collection-item.1"
CLI, IN_COLLECTION = "urn:ivcap:schema:artifact-collection.1", "urn:common:schema:in_collection.1"
C = "urn:ivcap:collection:c"
ADD, LIST = "POST /1/aspects", "GET /1/aspects"


def urns(count):
    return [f"urn:x:item:{uuid4()}" for _ in range(count)]


async def members(client, urn):
    return [item.urn async for item in client.collections.items(urn)]


async def aspects(client, urn, schema):
    return [aspect async for aspect in client.aspects.list(entity=urn, schema=schema)]


async def test_a_collection_is_kept_as_the_official_client_keeps_it(embedded):
    """The same two kinds of aspects, on the collection's URN, with the same fields. An equal definition is not written
    again; another replaces it, and the members stay."""
    made = await embedded.collections.create("Survey", description="all of it")
    [item] = urns(1)
    await embedded.collections.add(made.urn, [item])
    [definition] = await aspects(embedded, made.urn, DEFINITION)
    expected = {"name": "Survey", "description": "all of it", "$schema": DEFINITION, "$entity": made.urn}
    assert expected.items() <= definition.content.items()
    [membership] = await aspects(embedded, made.urn, ITEM)
    assert {"collection": made.urn, "item": item, "$schema": ITEM}.items() <= membership.content.items()
    handle = (await embedded.collections.read(made.urn)).handle("p")
    assert (handle.urn, handle.platform, handle.name, handle.description) == (made.urn, "p", "Survey", "all of it")

    await embedded.collections.create("Survey", description="all of it", urn=made.urn)
    assert [each.urn for each in await aspects(embedded, made.urn, DEFINITION)] == [definition.urn]
    await embedded.collections.create("Renamed", urn=made.urn)
    [after] = await aspects(embedded, made.urn, DEFINITION)
    assert after.urn != definition.urn and (await embedded.collections.read(made.urn)).name == "Renamed"
    assert await members(embedded, made.urn) == [item]


async def test_items_are_members_once_in_their_order_until_they_are_removed(embedded):
    """More than one page; what is a member already is not added again, nor what is named twice. Removing takes also
    the memberships that two made at the same moment; what is no member is no error. In the end all is retracted."""
    collections, items = embedded.collections, urns(60)
    made = await collections.create("many")
    first = await collections.add(made.urn, items[:40])
    assert (first.added, first.present, dict(first.duplicates)) == (tuple(items[:40]), (), {})
    second = await collections.add(made.urn, [*items[30:], items[59]])
    assert (second.added, second.present) == (tuple(items[40:]), tuple(items[30:40]))
    assert await members(embedded, made.urn) == items
    assert len(await aspects(embedded, made.urn, ITEM)) == 60
    assert (await collections.add(made.urn, items[0])).present == (items[0],)

    await embedded.aspects.add(made.urn, ITEM, {"collection": made.urn, "item": items[0]})
    [never] = urns(1)
    for gone in ((items[0],), ()):
        assert await collections.remove(made.urn, [items[0], never]) == gone
        assert await members(embedded, made.urn) == items[1:]
    assert (await collections.add(made.urn, [items[0]])).added == (items[0],)

    await embedded.aspects.add(made.urn, DEFINITION, {"name": "twice"})
    assert await collections.retract(made.urn) == 62
    assert await members(embedded, made.urn) == []
    for attempt in (collections.read, collections.retract):
        with pytest.raises(NotFoundError, match="no collection"):
            await attempt(made.urn)


async def test_collections_are_listed_and_found_by_their_whole_name(embedded):
    """Quotes and backslashes in a name are its own; the limit is the total; those of ivcap-cli come last."""
    name = f'The "best" \\ of {uuid4()}'
    made = await embedded.collections.create(name)
    other = await embedded.collections.create(name + " two")
    cli = f"urn:ivcap:collection:{uuid4()}"
    await embedded.aspects.add(cli, CLI, {"collection": cli, "artifacts": urns(1)})
    assert [each.urn async for each in embedded.collections.list(name=name)] == [made.urn]
    everything = [each async for each in embedded.collections.list()]
    assert {made.urn, other.urn, cli} <= {each.urn for each in everything}
    assert len({each.urn for each in everything}) == len(everything)
    assert everything[-1].convention == "ivcap-cli"
    assert [each.urn async for each in embedded.collections.list(limit=1)] == [everything[0].urn]
    assert [each async for each in embedded.collections.list(limit=0)] == []


async def test_all_three_conventions_are_read(embedded, upload):
    """Items of ivcap-client, of ivcap-cli and of uploads; one that all name is there once, as the first says."""
    urn = f"urn:ivcap:collection:{uuid4()}"
    uploaded = await upload(b"1", name="u", collection=urn)
    assert await embedded.collections.read(urn) == CollectionRecord(urn, convention="upload")
    both, cli, common = urns(3)
    await embedded.aspects.add(urn, CLI, {"collection": urn, "artifacts": [cli, both, 7]})
    assert (await embedded.collections.read(urn)).convention == "ivcap-cli"
    await embedded.aspects.add(common, IN_COLLECTION, {"artifact": common, "collection": urn})
    await embedded.aspects.add(urns(1)[0], IN_COLLECTION, {"collection": urn + "x"})
    await embedded.collections.add(urn, [both])
    found = [item async for item in embedded.collections.items(urn)]
    assert [(item.urn, item.convention) for item in found] == [
        (both, "ivcap-client"),
        (cli, "ivcap-cli"),
        (uploaded.urn, "upload"),
        (common, "upload"),
    ]
    assert all(item.collection == urn and item.aspect.startswith("urn:ivcap:aspect:") for item in found)
    assert await embedded.collections.remove(urn, [cli, uploaded.urn]) == ()


@pytest.mark.parametrize("value", ["", "no urn", "urn:with space", "item"])
async def test_what_is_no_urn_is_refused_before_anything_is_sent(client, scripted, value):
    """As a collection and as an item; one bad item spoils none of the others."""
    for attempt in (
        lambda: client.collections.add(C, ["urn:x:1", value]),
        lambda: client.collections.remove(C, value),
        lambda: client.collections.add(value, "urn:x:1"),
        lambda: client.collections.read(value),
        lambda: client.collections.retract(value),
        lambda: client.collections.create("x", urn=value or " "),
    ):
        with pytest.raises(InputError):
            await attempt()
    assert scripted.calls == []


def memberships(scripted, *items):
    """A page of memberships; what is no text is the whole content."""
    contents = [{"item": item} if isinstance(item, str) else item for item in items]
    return scripted.page(
        *(
            {"id": f"urn:ivcap:aspect:{at}", "entity": C, "schema": ITEM, "content": content}
            for at, content in enumerate(contents)
        )
    )


@pytest.mark.parametrize("status", [400, 422, 503])
async def test_a_platform_without_content_paths_is_read_whole(client, scripted, status):
    """Some answer a content path with 4xx or 5xx: then all items are read. No duplicate is made, and only what was
    named is removed."""
    everything = memberships(scripted, "urn:x:1", "urn:x:2", {"item": 3}, ["odd"])
    scripted.on(LIST, lambda call: Response(status_code=status) if "content-path" in call.query else everything)
    done = await client.collections.add(C, ["urn:x:2"])
    assert (done.added, done.present) == ((), ("urn:x:2",))
    asked = [call for call in scripted.calls if "content-path" in call.query]
    assert asked and scripted.to(ADD) == []
    assert (await client.collections.add(C, ["urn:x:1"])).present == ("urn:x:1",)
    scripted.on("DELETE /1/aspects/urn:ivcap:aspect:1", Response(status_code=204))
    assert await client.collections.remove(C, ["urn:x:2"]) == ("urn:x:2",)
    assert len([call for call in scripted.calls if call.route.startswith("DELETE")]) == 1
    assert [call for call in scripted.calls if "content-path" in call.query] == asked


async def test_a_refused_look_up_is_an_error_rather_than_a_duplicate(client, scripted):
    """When nothing can be read, nothing is written."""
    scripted.on(LIST, Response(status_code=422))
    with pytest.raises(InvalidParameterError):
        await client.collections.add(C, ["urn:x:1"])
    assert scripted.to(ADD) == []


@pytest.mark.parametrize("stored", [True, False])
async def test_a_lost_reply_is_looked_up(client, scripted, stored):
    """The item is there: done. It is not: the error, and nothing was sent twice."""
    scripted.on(LIST, memberships(scripted), memberships(scripted, *["urn:x:1"] * stored))
    scripted.on(ADD, Response(status_code=502))
    if stored:
        assert (await client.collections.add(C, ["urn:x:1"])).added == ("urn:x:1",)
    else:
        with pytest.raises(UnavailableError):
            await client.collections.add(C, ["urn:x:1"])
    assert len(scripted.to(ADD)) == 1


@pytest.mark.catches("one membership an item")
async def test_an_item_that_two_add_at_once_is_reported_and_removed_whole(client, scripted, caplog):
    """Whoever looks last, after its own addition, sees both aspects. A removal retracts both; that another has
    retracted one of them meanwhile is no error."""
    twice = memberships(scripted, "urn:x:1", "urn:x:1")
    scripted.on(LIST, memberships(scripted), twice)
    scripted.on(ADD, {"id": "urn:ivcap:aspect:0"})
    done = await client.collections.add(C, ["urn:x:1"])
    assert [call.route for call in scripted.calls] == [LIST, ADD, LIST]
    assert (done.added, len(done.duplicates["urn:x:1"])) == (("urn:x:1",), 2)
    assert f"urn:x:1 was added to {C} by another" in caplog.text
    assert await client.collections.remove(C, ["urn:x:1"]) == ("urn:x:1",)
    assert [len(scripted.to(f"DELETE /1/aspects/urn:ivcap:aspect:{at}")) for at in (0, 1)] == [1, 1]


async def test_items_are_asked_for_together_and_quoted(client, scripted):
    """A URN with quotes stays one string of the content path; a few requests serve many items."""
    odd = 'urn:x:"||true||"'
    scripted.on(LIST, memberships(scripted))
    scripted.on(ADD, JSONResponse({"id": "urn:ivcap:aspect:new"}))
    items = [odd, *urns(31)]
    await client.collections.add(C, items)
    paths = [call.query["content-path"] for call in scripted.to(LIST)]
    assert len(paths) == 4  # two before, two after
    assert f"@ == {json.dumps(odd)} || " in paths[0]
    assert [call.body["item"] for call in scripted.to(ADD)] == items
