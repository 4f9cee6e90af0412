"""Services: what they take, and how they are registered and withdrawn."""

import asyncio
import uuid

import pytest
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from ivcap_flows.errors import ForbiddenError, InputError, UnavailableError

S, ACCOUNT = "urn:ivcap:service:s", "urn:ivcap:account:a"
ROUTE = f"/1/services2/{S}"
TOOL, SERVICE = "urn:sd-core:schema.ai-tool.1", "urn:ivcap:schema.service.2"
DEFINITION = {
    "name": "adder",
    "description": "Adds.",
    "controller-schema": "urn:ivcap:schema.service.batch.1",
    "controller": {"$schema": "urn:ivcap:schema.service.batch.1", "image": "i", "command": ["c"]},
    "contact": {"name": "n", "email": "e"},
    "request-schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}
RECORD = {"id": S, "name": "adder", "status": "active", "parameters": [], "controller-schema": "x"}


def listing(*items):
    return {"items": list(items), "links": [], "at-time": "2026-06-01T00:00:00Z"}


def aspect(schema, content, name="x"):
    return {"id": f"urn:ivcap:aspect:{name}", "entity": S, "schema": schema, "content": content}


async def test_a_service_is_defined_by_the_api_and_its_request_by_an_aspect(client, scripted):
    """What the API does not know stays out; the id is made of name and account, as the SDKs do; what is so stays."""
    client._account = ACCOUNT
    urn = f"urn:ivcap:service:{uuid.uuid5(uuid.NAMESPACE_DNS, 'adder' + ACCOUNT)}"
    scripted.on(f"PUT /1/services2/{urn}", RECORD | {"id": urn})
    scripted.on(f"GET /1/services2/{urn}", RECORD | {"id": urn})
    scripted.on("GET /1/aspects", listing())
    scripted.on("PUT /1/aspects", {"id": "urn:ivcap:aspect:t"})
    assert (await client.services.register(DEFINITION)).urn == urn

    [sent] = scripted.to(f"PUT /1/services2/{urn}")
    assert sent.query == {"force-create": "true"}
    assert sent.body.keys() == {*DEFINITION, "id", "parameters", "policy"} - {"contact"}
    assert (sent.body["id"], sent.body["policy"]) == (urn, "urn:ivcap:policy:ivcap.open.service")
    [told] = scripted.to("PUT /1/aspects")
    assert (told.query["entity"], told.query["schema"]) == (urn, TOOL)
    assert told.body["fn_schema"] == DEFINITION["request-schema"] and told.body["service-id"] == urn

    scripted.on("GET /1/aspects", listing(aspect(TOOL, told.body | {"fn_signature": "another"}) | {"entity": urn}))
    await client.services.register(DEFINITION)
    assert len(scripted.to("PUT /1/aspects")) == 1


@pytest.mark.parametrize("status", [403, 404, 405, 501])
async def test_a_platform_that_registers_by_aspects(client, scripted, status):
    """The two aspects that the SDKs write, where the API takes no definitions."""
    scripted.on(f"PUT {ROUTE}", JSONResponse({"message": "no"}, status))
    scripted.on(f"GET {ROUTE}", RECORD)
    scripted.on("GET /1/aspects", listing())
    scripted.on("PUT /1/aspects", {"id": "urn:ivcap:aspect:t"})
    await client.services.register(DEFINITION, id="s")
    whole, tool = scripted.to("PUT /1/aspects")
    assert (whole.query["schema"], tool.query["schema"]) == (SERVICE, TOOL)
    assert whole.query["policy"] == "urn:ivcap:policy:ivcap.open.metadata"
    assert whole.body["$id"] == S and whole.body["contact"] == DEFINITION["contact"]


async def test_a_platform_in_trouble_is_not_taken_for_one_without_the_route(client, scripted):
    """Nothing else is written then."""
    scripted.on(f"PUT {ROUTE}", Response(status_code=503))
    with pytest.raises(UnavailableError):
        await client.services.register(DEFINITION, id=S)
    assert not scripted.to("PUT /1/aspects")


async def test_a_definition_that_lacks_something_is_not_sent(client, scripted):
    """All that it lacks is named."""
    with pytest.raises(InputError, match="lacks description, controller"):
        await client.services.register({"name": "x", "controller-schema": "y"})
    assert scripted.calls == []


async def test_a_service_is_withdrawn_with_its_aspects(client, scripted):
    """By the API where it can; a service of another's is refused; one that is gone stays so."""
    scripted.on(f"DELETE {ROUTE}", Response(status_code=204))
    scripted.on("GET /1/aspects", listing(aspect(SERVICE, None, "1")), listing(aspect(TOOL, None, "2")))
    for name in "12":
        scripted.on(f"DELETE /1/aspects/urn:ivcap:aspect:{name}", Response(status_code=204))
    await client.services.withdraw("s")
    assert [call.route.rpartition(":")[2] for call in scripted.calls if call.route.startswith("DELETE")] == list("s12")

    scripted.on("GET /1/aspects", listing())
    scripted.on(f"DELETE {ROUTE}", JSONResponse({"message": "no"}, 404))
    await client.services.withdraw(S)
    scripted.on(f"DELETE {ROUTE}", JSONResponse({"message": "no"}, 403))
    with pytest.raises(ForbiddenError):
        await client.services.withdraw(S)


async def test_what_a_service_takes(client, scripted):
    """Its parameters, those that must be given, and whether it works."""
    parameters = [{"name": "a", "type": "int"}, {"name": "b", "type": "int", "default": "1"}]
    scripted.on(f"GET {ROUTE}", RECORD | {"parameters": parameters})
    assert [p.name for p in await client.services.parameters(S)] == ["a", "b"]
    assert [p.name for p in await client.services.mandatory_parameters(S)] == ["a"]
    assert await client.services.status(S) == "active"


async def test_the_request_model_keeps_the_constraints(client, scripted):
    """A class made of the published schema."""
    scripted.on("GET /1/aspects", listing(aspect(TOOL, {"fn_schema": DEFINITION["request-schema"]})))
    model = await client.services.request_model(S)
    assert model(a=1).model_dump(by_alias=True) == {"a": 1}
    with pytest.raises(ValidationError):
        model(a="1")


async def test_a_service_lives_and_ends_on_the_embedded_platform(embedded):
    """Registered twice it is one, with one request model; withdrawn twice it is gone once, and stays readable."""
    definition = DEFINITION | {"name": f"adder-{uuid.uuid4()}"}
    first, again = [await embedded.services.register(definition) for _ in range(2)]
    assert first.urn == again.urn and first.valid_from == again.valid_from
    tools = [each async for each in embedded.aspects.list(entity=first.urn, schema=TOOL)]
    assert len(tools) == 1 and await embedded.services.request_schema(first.urn) == DEFINITION["request-schema"]
    assert (await embedded.services.by_name(definition["name"])).urn == first.urn
    together = await asyncio.gather(*(embedded.services.by_name(definition["name"]) for _ in range(5)))
    assert all(one is together[0] for one in together)
    assert (await embedded.services.by_name(definition["name"])) is not together[0], "asked anew, it is looked for anew"
    for _ in range(2):
        await embedded.services.withdraw(first.urn)
    assert await embedded.services.status(first.urn) == "inactive"
    with pytest.raises(InputError, match="no service named"):
        await embedded.services.by_name(definition["name"])
