"""Services: found by their name, what they take, and how they are registered."""

import asyncio
import uuid

import pytest
from starlette.responses import JSONResponse

from ivcap_flows.errors import InputError, NotFoundError, UnavailableError

S, ACCOUNT = "urn:ivcap:service:s", "urn:ivcap:account:a"
ROUTE = f"/1/services2/{S}"
LIST, ASPECTS, PUT_ASPECT = "GET /1/services2", "GET /1/aspects", "PUT /1/aspects"
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


def named(*names):
    return [{"id": f"urn:ivcap:service:{n}", "name": name, "controller-schema": "x"} for n, name in enumerate(names)]


def aspect(schema, content, name="x", entity=S):
    return {"id": f"urn:ivcap:aspect:{name}", "entity": entity, "schema": schema, "content": content}


async def test_a_service_is_found_by_its_exact_name(client, scripted):
    """On any page, among names that contain it, and once for all who look at the same time. A platform without our
    filter, or where it finds nothing, is listed whole; odd names are never put into one."""
    for n in range(3):
        scripted.on(f"GET /1/services2/urn:ivcap:service:{n}", {"id": f"urn:ivcap:service:{n}"})
    pages = [scripted.page(*named("echo-2", "my echo"), following="?page=c"), scripted.page(*named("x", "y", "echo"))]
    scripted.on(LIST, *pages)
    found = await asyncio.gather(*(client.services.by_name("echo") for _ in range(5)))
    assert {service.urn for service in found} == {"urn:ivcap:service:2"}
    assert len(scripted.calls) == 3 and scripted.calls[0].query["filter"] == "name~='echo'"

    scripted.calls.clear()
    everything = scripted.page(*named("it's 100% mine", "Echo"))
    refused = JSONResponse({"message": "bad filter"}, 400)
    scripted.on(LIST, lambda call: refused if "filter" in call.query else everything)
    assert (await client.services.by_name("echo")).urn == "urn:ivcap:service:1"
    assert (await client.services.by_name("it's 100% mine")).urn == "urn:ivcap:service:0"
    assert [call.query.get("filter") for call in scripted.to(LIST)] == ["name~='echo'", None, None]


async def test_an_ambiguous_or_unknown_name_lists_the_candidates(client, scripted):
    """Two of one name: their URNs. None: the names that are near. Nothing is guessed."""
    scripted.on(LIST, scripted.page(*named("echo", "echo", "echo-2", "sleep")))
    for name, said in (
        ("echo", "urn:ivcap:service:0, urn:ivcap:service:1"),
        ("ech", "There is no service named 'ech'. Candidates: 'echo', 'echo-2'"),
        (" ", "empty"),
    ):
        with pytest.raises(InputError, match=said):
            await client.services.by_name(name)


async def test_what_a_service_takes(client, scripted):
    """The parameters of its record, as an order gives them."""
    parameters = [{"name": "a", "type": "int"}, {"name": "b", "type": "int", "default": "1"}]
    scripted.on(f"GET {ROUTE}", RECORD | {"parameters": parameters})
    service = await client.services.by_name(S)
    assert [parameter.name for parameter in service.parameters] == ["a", "b"]
    assert client.services.encode_parameters(service, {"a": 1}) == {"a": "1"}


async def test_the_request_schema_is_read_from_aspects(client, scripted):
    """The tool's description, else the service's own document, else an error."""
    schema = DEFINITION["request-schema"]
    scripted.on(ASPECTS, scripted.page(aspect(TOOL, {"fn_schema": schema})))
    assert await client.services.request_schema(S) == schema
    scripted.on(ASPECTS, scripted.page(), scripted.page(aspect(SERVICE, {"request-schema": schema})), scripted.page())
    assert await client.services.request_schema("s") == schema
    with pytest.raises(NotFoundError, match="publishes no request model"):
        await client.services.request_schema(S)


async def test_a_service_is_defined_by_the_api_and_its_request_by_an_aspect(client, scripted):
    """What the API does not know stays out; the id is made of name and account, as the SDKs do; what is so stays."""
    client._account = ACCOUNT
    urn = f"urn:ivcap:service:{uuid.uuid5(uuid.NAMESPACE_DNS, 'adder' + ACCOUNT)}"
    for method in ("PUT", "GET"):
        scripted.on(f"{method} /1/services2/{urn}", RECORD | {"id": urn})
    scripted.on(ASPECTS, scripted.page())
    scripted.on(PUT_ASPECT, {"id": "urn:ivcap:aspect:t"})
    assert (await client.services.register(DEFINITION)).urn == urn

    [sent], [told] = scripted.to(f"PUT /1/services2/{urn}"), scripted.to(PUT_ASPECT)
    assert sent.query == {"force-create": "true"}
    assert sent.body.keys() == {*DEFINITION, "id", "parameters", "policy"} - {"contact"}
    assert (sent.body["id"], sent.body["policy"]) == (urn, "urn:ivcap:policy:ivcap.open.service")
    assert (told.query["entity"], told.query["schema"], told.body["service-id"]) == (urn, TOOL, urn)
    assert told.body["fn_schema"] == DEFINITION["request-schema"]

    scripted.on(ASPECTS, scripted.page(aspect(TOOL, told.body | {"fn_signature": "another"}, entity=urn)))
    await client.services.register(DEFINITION)
    assert len(scripted.to(PUT_ASPECT)) == 1


@pytest.mark.parametrize("status", [403, 404, 405, 501, 503])
async def test_a_platform_that_registers_by_aspects(client, scripted, status):
    """The two aspects that the SDKs write, where the API takes no definitions, but not where it is in trouble."""
    scripted.on(f"PUT {ROUTE}", JSONResponse({"message": "no"}, status))
    scripted.on(f"GET {ROUTE}", RECORD)
    scripted.on(ASPECTS, scripted.page())
    scripted.on(PUT_ASPECT, {"id": "urn:ivcap:aspect:t"})
    if status == 503:
        with pytest.raises(UnavailableError):
            await client.services.register(DEFINITION, id=S)
        assert not scripted.to(PUT_ASPECT)
        return
    await client.services.register(DEFINITION, id="s")
    whole, tool = scripted.to(PUT_ASPECT)
    assert (whole.query["schema"], tool.query["schema"]) == (SERVICE, TOOL)
    assert whole.query["policy"] == "urn:ivcap:policy:ivcap.open.metadata"
    assert whole.body["$id"] == S and whole.body["contact"] == DEFINITION["contact"]


async def test_a_definition_that_lacks_something_is_not_sent(client, scripted):
    """All that it lacks is named."""
    with pytest.raises(InputError, match="lacks description, controller"):
        await client.services.register({"name": "x", "controller-schema": "y"})
    assert scripted.calls == []
