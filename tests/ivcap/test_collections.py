"""Collections: written as ivcap-client keeps them, read as anybody does, each item once."""

import asyncio
import json
from uuid import uuid4

import pytest
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import InputError, InvalidParameterError, NotFoundError, UnavailableError
from ivcap_flows.ivcap.collections import CollectionRecord

DEFINITION, ITEM = "urn:ivcap:schema:collection.1", "urn:ivcap:schema:collection-item.1"
CLI = "urn:ivcap:schema:artifact-collection.1"
C = "urn:ivcap:collection:c"


def urns(count):
    return [f"urn:x:item:{uuid4()}" for _ in range(count)]


async def members(client, urn):
    return [item.urn async for item in client.collections.items(urn)]


async def aspects(client, urn, schema):
    return [aspect async for aspect in client.aspects.list(entity=urn, schema=schema)]


async def test_a_collection_is_made_as_the_official_client_makes_it(embedded):
    """The same two kinds of aspects, on the collection's URN, with the same fields."""
    made = await embedded.collections.create("Survey", description="all of it")
    [item] = urns(1)
    await embedded.collections.add(made.urn, [item])
    [definition] = await aspects(embedded, made.urn, DEFINITION)
    assert {"name": "Survey", "description": "all of it"}.items() <= definition.content.items()
    assert definition.content["$schema"] == DEFINITION and definition.content["$entity"] == made.urn
    [membership] = await aspects(embedded, made.urn, ITEM)
    assert {"collection": made.urn, "item": item, "$schema": ITEM}.items() <= membership.content.items()
    handle = (await embedded.collections.read(made.urn)).handle("p")
    assert (handle.urn, handle.platform, handle.name, handle.description) == (made.urn, "p", "Survey", "all of it")


async def test_defining_again_changes_only_what_differs(embedded):
    """Equal: nothing is written. Other words: one definition still, and the members stay."""
    made = await embedded.collections.create("Survey")
    items = urns(2)
    await embedded.collections.add(made.urn, items)
    [before] = await aspects(embedded, made.urn, DEFINITION)
    assert (await embedded.collections.create("Survey", urn=made.urn)).urn == made.urn
    assert [each.urn for each in await aspects(embedded, made.urn, DEFINITION)] == [before.urn]
    await embedded.collections.create("Renamed", urn=made.urn)
    [after] = await aspects(embedded, made.urn, DEFINITION)
    assert after.urn != before.urn
    assert (await embedded.collections.read(made.urn)).name == "Renamed"
    assert await members(embedded, made.urn) == items


async def test_items_are_members_once_and_in_their_order(embedded):
    """More than one page; what is a member already is not added again, nor what is named twice."""
    made = await embedded.collections.create("many")
    items = urns(60)
    first = await embedded.collections.add(made.urn, items[:40])
    assert (first.added, first.present, dict(first.duplicates)) == (tuple(items[:40]), (), {})
    second = await embedded.collections.add(made.urn, [*items[30:], items[59]])
    assert (second.added, second.present) == (tuple(items[40:]), tuple(items[30:40]))
    assert await members(embedded, made.urn) == items
    assert await members(embedded, made.urn) == items
    assert len(await aspects(embedded, made.urn, ITEM)) == 60
    assert (await embedded.collections.add(made.urn, items[0])).present == (items[0],)


async def test_items_are_read_lazily(embedded):
    """The first item needs no second page."""
    made = await embedded.collections.create("many")
    items = urns(3)
    await embedded.collections.add(made.urn, items)
    reading = embedded.collections.items(made.urn)
    assert (await anext(reading)).urn == items[0]
    await reading.aclose()


async def test_removing_takes_every_membership_of_an_item(embedded):
    """Also those that two made at the same moment; what is no member is no error."""
    made = await embedded.collections.create("c")
    kept, gone, never = urns(3)
    await embedded.collections.add(made.urn, [kept, gone])
    await embedded.aspects.add(made.urn, ITEM, {"collection": made.urn, "item": gone})
    assert await members(embedded, made.urn) == [kept, gone]
    assert await embedded.collections.remove(made.urn, [gone, never]) == (gone,)
    assert await members(embedded, made.urn) == [kept]
    assert await embedded.collections.remove(made.urn, [gone, never]) == ()
    assert (await embedded.collections.add(made.urn, [gone])).added == (gone,)


async def test_all_of_a_collection_is_retracted(embedded):
    """More items than a page, and both of two definitions; then there is none."""
    made = await embedded.collections.create("c")
    await embedded.collections.add(made.urn, urns(55))
    await embedded.aspects.add(made.urn, DEFINITION, {"name": "twice"})
    assert await embedded.collections.retract(made.urn) == 57
    assert await members(embedded, made.urn) == []
    for attempt in (embedded.collections.read, embedded.collections.retract):
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


async def test_all_three_conventions_are_read(embedded):
    """Items of ivcap-client, of ivcap-cli and of uploads; one that all name is there once, as the first says."""
    urn = f"urn:ivcap:collection:{uuid4()}"
    uploaded = await embedded.artifacts.upload(b"1", name="u", collection=urn)
    assert await embedded.collections.read(urn) == CollectionRecord(urn, convention="upload")
    both, cli, common = urns(3)
    await embedded.aspects.add(urn, CLI, {"collection": urn, "artifacts": [cli, both, 7]})
    assert (await embedded.collections.read(urn)).convention == "ivcap-cli"
    await embedded.aspects.add(common, "urn:common:schema:in_collection.1", {"artifact": common, "collection": urn})
    await embedded.aspects.add(urns(1)[0], "urn:common:schema:in_collection.1", {"collection": urn + "x"})
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


async def test_two_who_add_the_same_item_are_told(embedded):
    """Both add at the same moment; whoever looks last sees both aspects, and the item is a member once."""
    made = await embedded.collections.create("c")
    [item] = urns(1)

    async def add_behind_the_back(urn, schema, content, policy=None):
        await original(urn, schema, content, policy)
        return await original(urn, schema, content, policy)

    original = embedded.aspects.add
    embedded.aspects.add = add_behind_the_back
    try:
        done = await embedded.collections.add(made.urn, [item])
    finally:
        del embedded.aspects.add
    assert done.added == (item,)
    assert len(done.duplicates[item]) == 2
    assert await members(embedded, made.urn) == [item]


async def test_additions_at_once_all_arrive(embedded):
    """Different items from several at the same moment."""
    made = await embedded.collections.create("c")
    items = urns(8)
    await asyncio.gather(*(embedded.collections.add(made.urn, [item]) for item in items))
    assert sorted(await members(embedded, made.urn)) == sorted(items)


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


def page(*contents):
    items = [
        {"id": f"urn:ivcap:aspect:{at}", "entity": C, "schema": ITEM, "content": content}
        for at, content in enumerate(contents)
    ]
    return {"items": items, "links": []}


@pytest.mark.parametrize("status", [400, 422, 500, 503])
async def test_a_platform_without_content_paths_is_read_whole(client, scripted, status):
    """Some answer a content path with 4xx or 5xx: then all items are read, and no duplicate is made."""

    def answer(call):
        if "content-path" in call.query:
            return Response(status_code=status)
        return page({"item": "urn:x:1"}, {"item": "urn:x:2"}, {"item": 3}, ["odd"])

    scripted.on("GET /1/aspects", answer)
    done = await client.collections.add(C, ["urn:x:2"])
    assert (done.added, done.present) == ((), ("urn:x:2",))
    asked = [call for call in scripted.calls if "content-path" in call.query]
    assert asked and scripted.to("POST /1/aspects") == []
    assert (await client.collections.add(C, ["urn:x:1"])).present == ("urn:x:1",)
    assert [call for call in scripted.calls if "content-path" in call.query] == asked


async def test_removing_without_content_paths_takes_only_what_was_named(client, scripted):
    """All items are read, and one of them is retracted."""
    everything = page({"item": "urn:x:1"}, {"item": "urn:x:2"}, {"item": "urn:x:3"})
    scripted.on(
        "GET /1/aspects", lambda call: Response(status_code=400) if "content-path" in call.query else everything
    )
    scripted.on("DELETE /1/aspects/urn:ivcap:aspect:1", Response(status_code=204))
    assert await client.collections.remove(C, ["urn:x:2"]) == ("urn:x:2",)
    assert [call.route for call in scripted.calls if call.route.startswith("DELETE")] == [
        "DELETE /1/aspects/urn:ivcap:aspect:1"
    ]


async def test_a_refused_look_up_is_an_error_rather_than_a_duplicate(client, scripted):
    """When nothing can be read, nothing is written."""
    scripted.on("GET /1/aspects", Response(status_code=422))
    with pytest.raises(InvalidParameterError):
        await client.collections.add(C, ["urn:x:1"])
    assert scripted.to("POST /1/aspects") == []


@pytest.mark.parametrize("stored", [True, False])
async def test_a_lost_reply_is_looked_up(client, scripted, stored):
    """The item is there: done. It is not: the error, and nothing was sent twice."""
    scripted.on("GET /1/aspects", page(), page({"item": "urn:x:1"}) if stored else page())
    scripted.on("POST /1/aspects", Response(status_code=502))
    if stored:
        assert (await client.collections.add(C, ["urn:x:1"])).added == ("urn:x:1",)
    else:
        with pytest.raises(UnavailableError):
            await client.collections.add(C, ["urn:x:1"])
    assert len(scripted.to("POST /1/aspects")) == 1


async def test_items_are_asked_for_together_and_quoted(client, scripted):
    """A URN with quotes stays one string of the content path; a few requests serve many items."""
    odd = 'urn:x:"||true||"'
    scripted.on("GET /1/aspects", page())
    scripted.on("POST /1/aspects", JSONResponse({"id": "urn:ivcap:aspect:new"}))
    items = [odd, *urns(31)]
    await client.collections.add(C, items)
    paths = [call.query["content-path"] for call in scripted.to("GET /1/aspects")]
    assert len(paths) == 4  # two before, two after
    assert f"@ == {json.dumps(odd)} || " in paths[0]
    assert [call.body["item"] for call in scripted.to("POST /1/aspects")] == items


async def test_an_aspect_that_another_retracted_meanwhile_is_gone(client, scripted):
    """Removing what is being removed elsewhere is no error."""
    scripted.on("GET /1/aspects", page({"item": "urn:x:1"}))
    assert await client.collections.remove(C, ["urn:x:1"]) == ("urn:x:1",)
    assert len(scripted.to("DELETE /1/aspects/urn:ivcap:aspect:0")) == 1
