"""Tasks for IVCAP agents: services that publish the schema of their requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ivcap_flows.handles import Aspect, Job, Service
from ivcap_flows.identity import OncePer
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike
from ivcap_flows.tasks.jobs import _request_job, _wait_for_jobs
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.waiting import PlannedError, requested_with

__all__ = ["aexec_agent", "exec_agent"]


async def _exec_agent(
    agent: Service | str,
    request: Mapping[str, Any] | BaseModel | None = None,
    *,
    request_aspect: Aspect | str | None = None,
    timeout: float | None = None,
    policy: str | None = None,
    once_per: OncePer = "run",
    discriminator: str | None = None,
    max_resubmits: int = 0,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> Job:
    """Run an agent on a request, once per run unless `once_per` says otherwise, and wait for its job.

    The job contains the result.

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
        once_per=once_per,
        discriminator=discriminator,
        max_resubmits=max_resubmits,
        credentials=credentials,
    )
    with requested_with("exec_agent"):
        [done] = await _wait_for_jobs(
            [job], timeout=timeout, raise_on_failure=raise_on_failure, credentials=credentials
        )
    return done


exec_agent, aexec_agent = task_pair(_exec_agent, "agent {agent}")
