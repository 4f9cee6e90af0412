"""Agents: services that describe their request as a tool does (ivcap-client agent.py).

An agent is a service with an `ai-tool.1` aspect. To run an agent is to request a job and wait for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from ivcap_flows.canonical import canonical_form
from ivcap_flows.errors import InputError, IvcapFlowsError, NotFoundError, WaitTimeoutError
from ivcap_flows.http.paging import checked_limit
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.http.session import Session
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap.aspects import AspectRecord, Aspects
from ivcap_flows.ivcap.job_records import JobRecord
from ivcap_flows.ivcap.jobs import Jobs
from ivcap_flows.ivcap.request_model import RequestModel, model_of
from ivcap_flows.ivcap.requests import validate_request
from ivcap_flows.ivcap.services import TOOL_SCHEMA, Services, tool_schema_of
from ivcap_flows.ivcap.wire import Text, Wire

__all__ = ["AgentRecord", "Agents"]

SOONEST: Final = 0.5
_LATEST: Final = 10.0
"""Seconds between two reads of a running job, growing from `SOONEST` to `_LATEST`. It starts at the platform's own
value if the platform gave one.
"""


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

    def request_model(self) -> type[RequestModel]:
        """Return a pydantic model of the request."""
        return model_of(self.request_schema)


class Agents:
    """The services that are agents. Methods take the URN of a service, or its bare id.

    `visibility_delay` returns the seconds within which the platform shows a job that it has accepted.
    """

    def __init__(
        self, session: Session, aspects: Aspects, services: Services, jobs: Jobs, visibility_delay: Callable[[], float]
    ) -> None:
        self._session, self._aspects, self._services, self._jobs = session, aspects, services, jobs
        self._visibility_delay = visibility_delay

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
        raise NotFoundError(
            f"The service {entity} is no agent: it has no aspect {TOOL_SCHEMA} with a request schema.",
            platform=self._session.platform,
            method="GET",
            path="/1/aspects",
            status=None,
            detail="no agent",
            sent=True,
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

    async def exec(self, agent: AgentRecord | str, request: Any, *, timeout: float | None = None) -> JobRecord:
        """Run an agent on a request (a mapping or a pydantic model) and wait; return the job's record.

        The job may have ended in any way. `agent` is a record, name or URN. Keyed: the request is sent once. Raises
        ParameterError, before anything is sent, for a request that does not fit, and WaitTimeoutError after `timeout`
        seconds, while the job continues. Every error raised after the platform has accepted the request names the job
        and has its URN as `job`: calling `exec` again would start another job.
        """
        chosen = agent if isinstance(agent, AgentRecord) else await self.get(agent)
        document = canonical_form(request, "request")
        validate_request(chosen.request_schema, document, service=chosen.name or chosen.urn)
        end = None if timeout is None else time.monotonic() + timeout
        job = await self._jobs.request(chosen.urn, document)
        try:
            return await self._ended(chosen, job, end, timeout)
        except IvcapFlowsError as error:
            raise type(error)(
                f"{job.urn} was requested and goes on, but could not be waited for: {error.message}",
                **{**error.data, "job": job.urn},
            ) from error

    async def _ended(self, agent: AgentRecord, job: JobRecord, end: float | None, timeout: float | None) -> JobRecord:
        """Return the record of a job just requested, once it has ended.

        The platform may show the job only after a while.
        """
        soonest = job.retry_later or SOONEST
        pauses, shown_by = Pauses(soonest, max(soonest, _LATEST)), time.monotonic() + self._visibility_delay()
        while True:
            try:
                found = await self._jobs.read(agent.urn, job.urn, with_request=True)
            except NotFoundError:
                if time.monotonic() >= shown_by:
                    raise
            else:
                if found.done:
                    return found
            left = math.inf if end is None else end - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(
                    f"{job.urn} of {agent.name or agent.urn} has not ended after {timeout:g} s.", pending=[job.urn]
                )
            await pauses.sleep(left)


def _agent(aspect: AspectRecord) -> AgentRecord | None:
    content = aspect.content if isinstance(aspect.content, Mapping) else {}
    schema = tool_schema_of(content)
    if schema is None:
        return None
    told = {key: content.get(key) for key in ("name", "description")}
    return AgentRecord.model_validate({**told, "service": aspect.entity, "request_schema": schema})
