"""Aspects: what is sent for each parameter, how odd replies are read, and the schema that a model declares."""

from datetime import datetime, timedelta, timezone
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from ivcap_flows.errors import ForbiddenError, InputError, NotFoundError, NotUniqueError
from ivcap_flows.ivcap.schemas import schema_of

X = "urn:ivcap:aspect:x"
ADD, LIST, READ, REPLACE = "POST /1/aspects", "GET /1/aspects", f"GET /1/aspects/{X}", "PUT /1/aspects"


def aspect(content, **more):
    return {"id": "x", "entity": "urn:e", "schema": "urn:s", "content": content} | more


async def query_of(scripted, listing):
    scripted.on(LIST, scripted.page())
    assert [each async for each in listing] == []
    return scripted.calls[-1].query


async def test_aspects_are_listed_by_every_parameter(client, scripted):
    """Each goes out under the API's name; one direction is sent for each column."""
    listing = client.aspects.list(
        entity="urn:e",
        schema="urn:s.%",
        content_path="$.n ? (@ > 1)",
        at_time=datetime(2026, 6, 1, tzinfo=timezone(timedelta(hours=10))),
        filter="entity ~= 'urn:%'",
        order_by=["entity", "valid_from"],
        order_direction=("asc", "DESC"),
        include_content=False,
        limit=7,
    )
    assert await query_of(scripted, listing) == {
        "entity": "urn:e",
        "schema": "urn:s.%",
        "content-path": "$.n ? (@ > 1)",
        "at-time": "2026-05-31T14:00:00Z",
        "filter": "entity ~= 'urn:%'",
        "order-by": "entity,valid_from",
        "order-direction": "ASC,DESC",
        "include-content": "false",
        "limit": "7",
    }
    query = await query_of(scripted, client.aspects.list(order_by="entity, valid_to", order_direction="asc"))
    assert (query["order-by"], query["order-direction"]) == ("entity,valid_to", "ASC,ASC")
    assert await query_of(scripted, client.aspects.list()) == {
        "order-by": "valid_from",
        "order-direction": "DESC",
        "include-content": "true",
        "limit": "50",
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"order_direction": "up"}, "order_direction is ASC or DESC"),
        ({"order_direction": ["ASC", "DESC"]}, "order_direction is ASC or DESC"),
        ({"order_by": ["entity", ""]}, "order_direction is ASC or DESC"),
        ({"at_time": datetime(2026, 6, 1)}, "no offset"),
    ],
)
async def test_a_list_that_cannot_be_is_not_asked_for(client, scripted, wrong, said):
    """A server would read a time without offset as another."""
    with pytest.raises(InputError, match=said):
        client.aspects.list(**wrong)
    assert scripted.calls == []


@pytest.mark.parametrize("content", [{"a": []}, [1, "a"], "x", 3, None, True])
async def test_any_json_is_content(client, scripted, content):
    """Content goes out as it is, and comes back as it was."""
    scripted.on(ADD, {"id": "x"})
    scripted.on(LIST, scripted.page(aspect(content)))
    scripted.on(READ, aspect(content))
    assert await client.aspects.add("urn:e", "urn:s", content) == X
    assert (scripted.calls[0].body, scripted.calls[0].query) == (content, {"entity": "urn:e", "schema": "urn:s"})
    assert [each.content async for each in client.aspects.list()] == [content]
    assert (await client.aspects.read(X)).content == content


@pytest.mark.catches("update only adds")
@pytest.mark.parametrize("status", [403, 404])
async def test_where_a_platform_only_adds_an_update_retracts_what_it_replaces(client, scripted, status):
    """The new aspect is added first, so one is always active. Of several active ones none is touched."""
    scripted.on(REPLACE, Response(status_code=status))
    scripted.on(ADD, {"id": "new"})
    scripted.on(LIST, scripted.page(aspect(1)))
    scripted.on(f"DELETE /1/aspects/{X}", Response(status_code=204))
    assert await client.aspects.update("urn:e", "urn:s", {"a": 1}) == "urn:ivcap:aspect:new"
    assert [call.route for call in scripted.calls] == [REPLACE, LIST, ADD, f"DELETE /1/aspects/{X}"]
    scripted.calls.clear()
    scripted.on(LIST, scripted.page(aspect(1), aspect(2, id="y")))
    with pytest.raises(NotUniqueError, match="2 active aspects"):
        await client.aspects.update("urn:e", "urn:s", {"a": 1})
    assert [call.route for call in scripted.calls] == [REPLACE, LIST]


async def test_an_update_that_is_refused_is_an_error(client, scripted):
    """Where aspects can only be added and that is refused too, and where several are active."""
    scripted.on(LIST, scripted.page())
    scripted.on(ADD, Response(status_code=403))
    for status, error in ((403, ForbiddenError), (424, NotUniqueError)):
        scripted.on(REPLACE, Response(status_code=status))
        with pytest.raises(error):
            await client.aspects.update("urn:e", "urn:s", {"a": 1})
    assert len(scripted.to(ADD)) == 1


async def test_a_retraction_again_changes_nothing(client, scripted):
    """A platform may hide from the second what the first one retracted; what is active or unknown is an error."""
    scripted.on(READ, aspect(1, **{"valid-to": "2026-06-01T00:00:00Z"}), aspect(1))
    await client.aspects.retract(X)
    for urn in (X, "urn:ivcap:aspect:unknown"):
        with pytest.raises(NotFoundError):
            await client.aspects.retract(urn)


URN = "urn:example:schema:note.1"


class ByDefault(BaseModel):
    schema_: str = Field(URN, alias="$schema")
    text: str = "x"


class ByLiteral(BaseModel):
    schema_: Literal["urn:example:schema:note.1"] = Field(serialization_alias="$schema")


class AsTheSdk(BaseModel):
    jschema: str = URN


class ById(BaseModel):
    model_config = ConfigDict(json_schema_extra={"$id": URN, "$schema": "https://json-schema.org/draft/2020-12/schema"})


class BySchema(BaseModel):
    model_config = ConfigDict(json_schema_extra={"$schema": URN})


class Both(ByDefault):
    model_config = ConfigDict(json_schema_extra={"$id": URN})


@pytest.mark.parametrize("declared", [ByDefault, ByLiteral, AsTheSdk, ById, ById(), BySchema, Both, {"$schema": URN}])
def test_a_model_declares_its_schema(declared):
    """By a field's default or Literal, by the SDK's field, or beside the JSON Schema; the same twice is once. Of an
    instance, what will be sent counts."""
    assert schema_of(declared) == URN
    assert schema_of(ByDefault(**{"$schema": "urn:other:1"})) == "urn:other:1"


class Nothing(BaseModel):
    text: str = "x"


class Open(BaseModel):
    schema_: str = Field(alias="$schema")


class Wrong(BaseModel):
    jschema: str = "note.1"


class Several(ByDefault):
    model_config = ConfigDict(json_schema_extra={"$id": "urn:other:1"})


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (Nothing, "The Nothing declares no aspect schema"),
        (Nothing(), "The Nothing declares no aspect schema"),
        (Open, "declares no aspect schema"),
        ({"text": "x"}, "The dict declares no aspect schema"),
        (Wrong, "'note.1', which is no URN"),
        ({"$schema": "https://example.org/x"}, "which is no URN"),
        ({"$schema": 1}, "which is no URN"),
        (Several, "several aspect schemas: .*Leave one"),
    ],
)
def test_a_missing_or_wrong_declaration_names_the_way_out(declared, said):
    """What to write into the model, or what to pass."""
    with pytest.raises(InputError, match=said) as error:
        schema_of(declared)
    assert declared is Several or ("schema='urn:…'" in str(error.value) and "json_schema_extra" in str(error.value))
