"""Agents: services that say what a request to them looks like."""

import time

import pytest
from pydantic import BaseModel
from starlette.responses import JSONResponse

from ivcap_flows.errors import (
    ForbiddenError,
    InputError,
    NotFoundError,
    ParameterError,
    ProtocolError,
    WaitTimeoutError,
)
from ivcap_flows.ivcap import agents

S, J = "urn:ivcap:service:s", "urn:ivcap:job:j"
TOOL = "urn:sd-core:schema.ai-tool.1"
SCHEMA = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}


def listing(*items):
    return {"items": list(items), "links": [], "at-time": "2026-06-01T00:00:00Z"}


def tool(service=S, key="fn_schema", **more):
    content = {"name": "talker", "description": "Talks.", key: SCHEMA, **more}
    return {"id": "urn:ivcap:aspect:x", "entity": service, "schema": TOOL, "content": content}


async def test_agents_are_listed_once_each(client, scripted):
    """Aspects without a schema are none, two of one service are one; the limit is the total."""
    others = [tool(f"{S}{n}", key) for n, key in enumerate(("fn-schema", "fn_schema"))]
    scripted.on("GET /1/aspects", listing(tool(), tool(), tool(key="nothing"), *others))
    assert [agent.urn async for agent in client.agents.list()] == [S, f"{S}0", f"{S}1"]
    assert [agent.urn async for agent in client.agents.list(limit=2)] == [S, f"{S}0"]
    assert scripted.calls[0].query["schema"] == TOOL


async def test_a_service_that_tells_nothing_is_no_agent(client, scripted):
    """The error names it and the aspect."""
    scripted.on("GET /1/aspects", listing())
    with pytest.raises(NotFoundError, match=f"{S} is no agent"):
        await client.agents.read("s")


async def test_an_agent_is_found_by_its_own_name_too(client, scripted):
    """Where no service is called so."""
    scripted.on("GET /1/services2", listing())
    scripted.on("GET /1/aspects", listing(tool()))
    agent = await client.agents.get("talker")
    assert (agent.urn, agent.description) == (S, "Talks.")
    assert agent.request_model()(message="x").message == "x"
    with pytest.raises(InputError, match="no service named 'other'"):
        await client.agents.get("other")


async def test_a_request_that_does_not_fit_is_not_sent(client, scripted):
    """All its faults are named."""
    scripted.on("GET /1/aspects", listing(tool()))
    with pytest.raises(ParameterError, match="did you mean 'message'"):
        await client.agents.exec(await client.agents.read(S), {"mesage": 1})
    assert not [call for call in scripted.calls if call.route.startswith("POST")]


async def test_a_run_is_waited_for_up_to_a_deadline(client, scripted):
    """The platform's word on when to ask is heeded, the deadline more; the job goes on."""
    scripted.on("GET /1/aspects", listing(tool()))
    scripted.on(f"POST /1/services2/{S}/jobs", JSONResponse({"job-id": J, "location": "x", "retry-later": 30}, 202))
    scripted.on(f"GET /1/services2/{S}/jobs/{J}", {"id": J, "status": "executing", "service": S})
    agent, began = await client.agents.read(S), time.monotonic()
    with pytest.raises(WaitTimeoutError) as late:
        await client.agents.exec(agent, {"message": "x"}, timeout=0.3)
    assert late.value.pending == [J] and time.monotonic() - began < 5


async def test_a_job_that_shows_late_is_waited_for(client, scripted, monkeypatch):
    """Within the visibility delay a job that is not found yet is the accepted one, and not asked for again."""
    monkeypatch.setattr(agents, "SOONEST", 0.01)
    scripted.on("GET /1/aspects", listing(tool()))
    scripted.on(f"POST /1/services2/{S}/jobs", JSONResponse({"job-id": J, "location": "x"}, 202))
    late = JSONResponse({"message": "not found"}, 404)
    scripted.on(f"GET /1/services2/{S}/jobs/{J}", late, late, {"id": J, "status": "succeeded", "service": S})
    assert (await client.agents.exec(await client.agents.read(S), {"message": "x"})).urn == J
    assert len(scripted.to(f"POST /1/services2/{S}/jobs")) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [(JSONResponse({}, 404), NotFoundError), (JSONResponse({}, 403), ForbiddenError), ({"id": 3}, ProtocolError)],
)
async def test_what_is_raised_after_the_request_names_the_job(client, scripted, answer, error):
    """The job goes on, and who asks again by mistake would have another."""
    client.visibility_delay = 0.0
    scripted.on("GET /1/aspects", listing(tool()))
    scripted.on(f"POST /1/services2/{S}/jobs", JSONResponse({"job-id": J, "location": "x"}, 202))
    scripted.on(f"GET /1/services2/{S}/jobs/{J}", answer)
    with pytest.raises(error, match=f"^{J} was requested and goes on") as raised:
        await client.agents.exec(await client.agents.read(S), {"message": "x"})
    assert raised.value.job == J


@pytest.mark.long
async def test_agents_run_on_the_embedded_platform(embedded):
    """By name or URN, with a mapping or a model; one that fails is told by its record."""

    class Message(BaseModel):
        message: str

    done = await embedded.agents.exec("echo", Message(message="hi"), timeout=20)
    assert done.result_content == {"message": "hi"} and done.request_content == {"message": "hi"}
    failed = await embedded.agents.exec((await embedded.agents.get("fail")).urn, {"message": "no"}, timeout=20)
    assert failed.status in ("failed", "error") and "no" in failed.error_message
    assert {"echo", "sleep", "fail"} <= {agent.name async for agent in embedded.agents.list()}
