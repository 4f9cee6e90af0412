"""Agents: services that describe their request as a tool does (ivcap-client agent.py).

An agent is a service with an `ai-tool.1` aspect. To run an agent is to request a job of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from ivcap_flows.errors import InputError
from ivcap_flows.http.paging import checked_limit
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap.aspects import AspectRecord, Aspects
from ivcap_flows.ivcap.services import TOOL_SCHEMA, Services, tool_schema_of
from ivcap_flows.ivcap.wire import Text, Wire

__all__ = ["AgentRecord", "Agents"]


class AgentRecord(Wire):
    """An agent. `request_schema` is the JSON Schema of its request."""

    service: str
    name: Text = None
    description: Text = None
    request_schema: dict[str, Any]

    @property
    def urn(self) -> str:
        """The URN of the agent's service."""
        return ivcap_urn("service", self.service)


class Agents:
    """The services that are agents. Methods take the URN of a service, or its bare id."""

    def __init__(self, aspects: Aspects, services: Services) -> None:
        self._aspects, self._services = aspects, services

    async def list(self, *, limit: int | None = None) -> AsyncIterator[AgentRecord]:
        """Yield each agent once; `limit` is the total."""
        checked_limit(limit)
        seen: set[str] = set()
        async for aspect in self._aspects.list(schema=TOOL_SCHEMA):
            if limit is not None and len(seen) >= limit:
                return
            agent = _agent(aspect)
            if agent is not None and agent.urn not in seen:
                seen.add(agent.urn)
                yield agent

    async def read(self, urn: str) -> AgentRecord:
        """Read the agent of a service. Raises NotFoundError if the service describes no request."""
        entity = ivcap_urn("service", urn)
        async for aspect in self._aspects.list(entity=entity, schema=TOOL_SCHEMA, limit=1):
            if (agent := _agent(aspect)) is not None:
                return agent
        raise self._aspects.absent(
            f"The service {entity} is no agent: it has no aspect {TOOL_SCHEMA} with a request schema.", "no agent"
        )

    async def get(self, name: str) -> AgentRecord:
        """Read the agent with this name (of its service, or of the tool) or with this URN.

        Raises InputError if no agent or several have the name, and NotFoundError for a service that is not an agent.
        """
        try:
            return await self.read((await self._services.by_name(name)).urn)
        except InputError:
            found = [agent async for agent in self.list() if agent.name == name]
            if len(found) != 1:
                raise
            return found[0]


def _agent(aspect: AspectRecord) -> AgentRecord | None:
    content = aspect.content if isinstance(aspect.content, Mapping) else {}
    schema = tool_schema_of(content)
    if schema is None:
        return None
    told = {key: content.get(key) for key in ("name", "description")}
    return AgentRecord.model_validate({**told, "service": aspect.entity, "request_schema": schema})
