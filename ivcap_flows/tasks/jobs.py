"""Tasks for IVCAP jobs: request once, wait together, attach by URN."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from ivcap_flows.durable import CLOCKS, Effect, Found, OnDivergence, OnFailure, Progress
from ivcap_flows.durable.waiter import Poller
from ivcap_flows.errors import InputError, JobFailedError, NotFoundError
from ivcap_flows.handles import Handle, Job
from ivcap_flows.identity import Scope, fingerprint
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.ivcap.jobs import JobRecord
from ivcap_flows.ivcap.requests import validate_request
from ivcap_flows.ivcap.services import ServiceRecord
from ivcap_flows.journal import IntentRow
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.waiting import PAGES, PlannedError, note_end, waiting_for

__all__ = ["aattach_job", "arequest_job", "attach_job", "await_for_jobs", "request_job", "wait_for_jobs"]

_LOOKED_AT: Final = 500
"""Jobs of the service that a search for a lost one reads at most, newest first."""


async def _request_job(
    service: str,
    request: Mapping[str, Any] | BaseModel,
    *,
    policy: str | None = None,
    scope: Scope = "run",
    discriminator: str | None = None,
    on_failure: OnFailure = "keep",
    max_resubmits: int = 3,
    on_divergence: OnDivergence = "raise",
    credentials: IvcapCredentialsLike = None,
) -> Job:
    """Request a job of a service, at most once within `scope`, and return without waiting for it.

    `request` is the service's document: a mapping, in which handles stand for their URNs, or a pydantic model (by
    alias). It is checked against the service's request model, all faults at once, before anything is sent. The other
    arguments, and what may be raised, are as of `place_order`.
    """
    call = await IvcapCall.of(credentials)
    call.check(request)
    record = await call.client.services.by_name(service)
    document = _document(request)
    await _validate(call, record, document)

    async def send(intent: IntentRow, progress: Progress) -> Job:
        sent = await call.client.jobs.request(record.urn, document, policy=policy)
        handle = sent.handle(call.platform, request=document, service_name=record.name, key=intent.key)
        return handle.model_copy(update={"service": record.urn, "request": document})

    async def find(intent: IntentRow) -> list[Found[Job]]:
        # A job bears no name or tag of ours: it is known by its request, and by nobody else having claimed it.
        wanted = fingerprint(document)
        found = []
        async for job in _since(call, record.urn, intent):
            if fingerprint(job.request_content) == wanted:
                handle = job.handle(call.platform, service_name=record.name, key=intent.key)
                found.append(Found(handle, job.urn, job.requested_at, matched_by="content"))
        return found

    done = await call.perform(
        Effect(
            noun="job",
            request={"service": record.urn, "request": document, "policy": policy},
            send=send,
            find=find,
            decode=Job.model_validate,
            placeholder=lambda key: Job(
                urn=f"urn:ivcap-flows:planned:{key}",
                platform=call.platform,
                service=record.urn,
                service_name=record.name,
                status="planned",
                request=document,
                key=key,
            ),
            settle=call.client.settle,
            scope=scope,
            discriminator=discriminator,
            subject=record.name or record.urn,
            spends=True,
        ),
        key_aspects=call.keys,
        on_failure=on_failure,
        max_resubmits=max_resubmits,
        on_divergence=on_divergence,
    )
    return done.value


def _document(request: Mapping[str, Any] | BaseModel) -> dict[str, Any]:
    if isinstance(request, BaseModel) and not isinstance(request, Handle):
        return request.model_dump(mode="json", by_alias=True)
    if not isinstance(request, Mapping):
        raise InputError(f"A job's request is a mapping or a pydantic model, not {type(request).__name__}.")
    plain: dict[str, Any] = _plain(request)
    return plain


def _plain(value: Any) -> Any:
    """JSON of a value: handles as their URNs, models by alias; what has no JSON form is left for the check to name."""
    if isinstance(value, Handle):
        return value.urn
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


async def _validate(call: IvcapCall, service: ServiceRecord, document: dict[str, Any]) -> None:
    try:
        schema = await call.client.services.request_schema(service.urn)
    except NotFoundError:
        return  # a service without a published model says itself what it does not take
    validate_request(schema, document, service=service.name or service.urn)


async def _since(call: IvcapCall, service: str, intent: IntentRow) -> AsyncIterator[JobRecord]:
    """The service's jobs requested since the intent, whole; listings do not tell when a job was requested.

    The key aspect tells the intent's time by the platform's own clock.
    """
    asserted = await call.keys.asserted_at(intent.key)
    since = asserted or intent.created_at - CLOCKS
    async for item in call.client.jobs.list(service, limit=_LOOKED_AT):
        job = await call.client.jobs.read(service, item.urn, with_request=True, with_result=False)
        if job.requested_at is not None and job.requested_at < since:
            return
        yield job


async def _wait_for_jobs(
    jobs: Sequence[Job | str],
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> list[Job]:
    """Wait until all jobs have ended, and return them, with results and products, in the order given.

    `timeout` (seconds) and `raise_on_failure` are as of `wait_for_orders`; JobFailedError carries each job's own
    error message.
    """
    call = await IvcapCall.of(credentials)
    call.check(list(jobs))
    PlannedError.refuse(jobs)
    asked = {urn_of(job): job for job in jobs}
    services = {urn: await _service_of(call, job) for urn, job in asked.items()}
    by_service: dict[str, list[str]] = {}
    for urn, service in services.items():
        by_service.setdefault(service, []).append(urn)
    waits = [_poller(call.client, service).wait(urns, timeout=timeout) for service, urns in by_service.items()]
    records = {record.urn: record for group in await asyncio.gather(*waits) for record in group}
    ended = {urn: await _ended(call, records[urn], job) for urn, job in asked.items()}
    done = [ended[urn_of(job)] for job in jobs]
    failed = [job for job in done if not job.succeeded]
    if failed and raise_on_failure:
        lines = [f"{len(failed)} of {len(done)} jobs did not succeed."]
        for job in failed:
            why = job.error_message or "the platform gives no reason"
            lines.append(f"{job.urn} ({job.service_name or job.service}) ended as {job.status}: {why}")
        raise JobFailedError("\n".join(lines), jobs=failed)
    return done


async def _service_of(call: IvcapCall, job: Job | str) -> str:
    if isinstance(job, Job) and job.service:
        return job.service
    return await call.client.jobs.service_of(urn_of(job))


async def _ended(call: IvcapCall, record: JobRecord, before: Job | str) -> Job:
    known = before if isinstance(before, Job) else None
    handle = record.handle(
        call.platform,
        request=known.request if known else None,
        service_name=known.service_name if known else None,
        key=known.key if known else None,
    )
    if handle.service_name is None and handle.service:
        handle = handle.model_copy(update={"service_name": (await call.client.services.read(handle.service)).name})
    await note_end(call.journal, handle)
    return handle


_pollers: WeakKeyDictionary[IvcapClient, dict[str, Poller[JobRecord]]] = WeakKeyDictionary()


def _poller(client: IvcapClient, service: str) -> Poller[JobRecord]:
    pollers = _pollers.setdefault(client, {})
    if service not in pollers:

        async def recent() -> AsyncIterator[tuple[str, str]]:
            async for job in client.jobs.list(service, limit=PAGES * 50):
                yield job.urn, job.status

        async def read(urn: str) -> JobRecord:
            return await client.jobs.read(service, urn, with_request=True)

        pollers[service] = Poller(
            what="jobs", read=read, recent=recent, status=lambda job: job.status, settle=client.settle
        )
    return pollers[service]


async def _attach_job(urn: str, *, credentials: IvcapCredentialsLike = None) -> Job:
    """The handle of a job that exists, by its URN, whoever requested it; wait for it as for one of your own.

    Raises NotFoundError for one that the account cannot see.
    """
    call = await IvcapCall.of(credentials)
    service = await call.client.jobs.service_of(urn_of(urn))
    record = await call.client.jobs.read(service, urn, with_request=True)
    return record.handle(call.platform, service_name=(await call.client.services.read(service)).name)


request_job, arequest_job = task_pair(_request_job, name="Request job", run_name="job of {service}")
wait_for_jobs, await_for_jobs = task_pair(_wait_for_jobs, name="Wait for jobs", run_name=waiting_for("jobs"))
attach_job, aattach_job = task_pair(_attach_job, name="Attach job", run_name="attach {urn}")
