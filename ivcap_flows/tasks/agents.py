"""Tasks for IVCAP agents: services that publish the schema of their requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ivcap_flows.durable import OnDivergence, OnFailure
from ivcap_flows.handles import Aspect, Job, Service
from ivcap_flows.identity import Scope
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike
from ivcap_flows.tasks.jobs import _request_job, _wait_for_jobs
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.waiting import PlannedError

__all__ = ["aexec_agent", "exec_agent"]


async def _exec_agent(
    agent: Service | str,
    request: Mapping[str, Any] | BaseModel | None = None,
    *,
    request_aspect: Aspect | str | None = None,
    timeout: float | None = None,
    policy: str | None = None,
    scope: Scope = "run",
    discriminator: str | None = None,
    on_failure: OnFailure = "keep",
    max_resubmits: int = 3,
    on_divergence: OnDivergence = "warn",
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> Job:
    """Run an agent on a request, at most once within `scope`, and wait for its job, which contains the result.

    `agent` is the handle, name or URN of the agent's service, or the agent's name as a tool. For the other arguments
    and the errors, see `request_job` and `wait_for_jobs`. A run that is restarted after a time-out or a crash waits for
    the same job.
    """
    call = await IvcapCall.of(credentials)
    call.check(agent)
    PlannedError.refuse([agent])
    found = await call.client.agents.get(str(agent))
    job = await _request_job(
        found.urn,
        request,
        request_aspect=request_aspect,
        policy=policy,
        scope=scope,
        discriminator=discriminator,
        on_failure=on_failure,
        max_resubmits=max_resubmits,
        on_divergence=on_divergence,
        credentials=credentials,
    )
    [done] = await _wait_for_jobs([job], timeout=timeout, raise_on_failure=raise_on_failure, credentials=credentials)
    return done


exec_agent, aexec_agent = task_pair(_exec_agent, name="Run agent", run_name="agent {agent}")
