"""Tasks for IVCAP jobs and agents: request once, wait together, attach by URN, list, read results of any type."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from ivcap_flows.canonical import canonical_form
from ivcap_flows.durable import Effect, Found, MatchedBy, OnDivergence, OnFailure, Progress, Reusable
from ivcap_flows.durable.reuse import definition_of, look_for_reuse, usable
from ivcap_flows.errors import InputError, JobFailedError, NotFoundError, PlatformError
from ivcap_flows.handles import Aspect, Job, Products, Service
from ivcap_flows.identity import Scope, fingerprint, ivcap_urn
from ivcap_flows.ivcap.job_records import JobOutput, JobRecord
from ivcap_flows.ivcap.requests import indirect, validate_request
from ivcap_flows.ivcap.services import ServiceRecord
from ivcap_flows.journal import IntentRow, NewIntent
from ivcap_flows.loop import all_of
from ivcap_flows.secrets import logger_of
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.poll_sources import JobSource, ask_later, wait_for
from ivcap_flows.tasks.progress import progress_of
from ivcap_flows.tasks.waiting import (
    PlannedError,
    first_of,
    log_tail,
    note_end,
    resubmission,
    service_named,
    waiting_for,
)

__all__ = [
    "aattach_job",
    "ajob_result",
    "alist_jobs",
    "arequest_job",
    "attach_job",
    "await_for_jobs",
    "job_result",
    "list_jobs",
    "request_job",
    "request_of",
    "wait_for_jobs",
]

logger = logger_of("ivcap_flows.waiting")


async def _request_job(
    service: Service | str,
    request: Mapping[str, Any] | BaseModel | None = None,
    *,
    request_aspect: Aspect | str | None = None,
    policy: str | None = None,
    scope: Scope = "run",
    discriminator: str | None = None,
    on_failure: OnFailure = "keep",
    max_resubmits: int = 3,
    on_divergence: OnDivergence = "raise",
    reuse: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> Job:
    """Request a job of a service, at most once within `scope`, and return without waiting for it.

    `service` is a handle, name or URN. `request` is the service's document: a mapping or a pydantic model (by alias).
    Handles in it stand for their URNs, and its sets are sent in one order. Or `request_aspect` names the aspect whose
    content it is. It is checked against the service's request model, all faults at once, before anything is sent;
    InputError names by its path what no JSON value stands for. The other arguments, and what may be raised, are as of
    `place_order`.
    """
    call = await IvcapCall.of(credentials)
    call.check(service, request, request_aspect)
    PlannedError.refuse([service])
    record = await call.client.services.by_name(str(service))
    asked = await _asked(call, record, request, request_aspect)
    version = definition_of(record, await _validate(call, record, asked.document))
    given = {"service": record.urn, "service_version": version, "request": asked.document}

    async def send(intent: IntentRow, progress: Progress) -> Job:
        sent = await call.client.jobs.request(record.urn, asked.sent, policy=policy)
        ask_later(sent.urn, sent.retry_later)
        handle = sent.handle(call.platform, service_name=record.name, key=intent.key)
        return handle.model_copy(update=given)

    async def find(intent: IntentRow) -> list[Found[Job]]:
        # A job bears no name or tag of ours: it is known by its request, and by nobody else having claimed it. Without
        # a time from which on it could be ours, an equal one of any age might be: that is for the user to decide.
        since = await call.since(intent)
        matched_by: MatchedBy = "guess" if since is None else "content"
        wanted = {fingerprint(asked.sent), fingerprint(asked.document)}
        found = []
        async for job in _since(call, record.urn, since):
            if fingerprint(job.request_content) in wanted:
                handle = job.handle(call.platform, service_name=record.name, key=intent.key)
                handle = handle.model_copy(update={"service_version": version})
                found.append(Found(handle, job.urn, job.requested_at, matched_by))
        return found

    async def earlier(wanted: NewIntent) -> Reusable[Job]:
        async def handle(urn: str) -> Found[Job]:
            whole = await call.client.jobs.read(record.urn, urn, with_request=True)
            alike = [asked.sent, asked.document]
            products = await usable(
                call.client, whole, account=call.account, service=record.urn, request=alike, policy=policy
            )
            made = whole.handle(call.platform, service_name=record.name, key=wanted.key)
            handles = Products(product.handle(call.platform) for product in products)
            return Found(made.model_copy(update={**given, "products": handles}), whole.urn, whole.requested_at)

        return await look_for_reuse(call.client, wanted, handle)

    done = await call.perform(
        Effect(
            noun="job",
            request={"service": record.urn, "request": asked.sent, "policy": policy},
            send=send,
            find=find,
            decode=Job.model_validate,
            placeholder=lambda key: Job(
                urn=f"urn:ivcap-flows:planned:{key}",
                platform=call.platform,
                service=record.urn,
                service_name=record.name,
                status="planned",
                request=asked.document,
                key=key,
            ),
            visibility_delay=call.client.visibility_delay,
            scope=scope,
            discriminator=discriminator,
            subject=record.name or record.urn,
            spends=True,
            definition=version,
            reuse=earlier if call.reuses(reuse) else None,
        ),
        idempotency_records=call.keys,
        on_failure=on_failure,
        max_resubmits=max_resubmits,
        on_divergence=on_divergence,
    )
    # What the journal and others keep of it is without secrets.
    return done.value.model_copy(update={"request": asked.document})


@dataclass(frozen=True)
class _Asked:
    """`sent` is what goes out: the document itself, or what names the aspect that holds it."""

    sent: dict[str, Any]
    document: dict[str, Any]


async def _asked(
    call: IvcapCall,
    service: ServiceRecord,
    request: Mapping[str, Any] | BaseModel | None,
    aspect: Aspect | str | None,
) -> _Asked:
    if (request is None) == (aspect is None):
        raise InputError("A job has either a request or a request_aspect.")
    if aspect is None:
        document = request_of(request)
        return _Asked(document, document)
    urn = urn_of(aspect)
    content = (await call.client.aspects.read(urn)).content
    if not isinstance(content, Mapping):
        raise InputError(f"The content of {urn} is no request: it is {type(content).__name__}, not an object.")
    return _Asked(indirect(service.urn, urn), dict(content))


def request_of(request: Mapping[str, Any] | BaseModel | None) -> dict[str, Any]:
    """The document of a request, in its canonical form. Raises InputError for what has none, or is no object."""
    document = canonical_form(request, "request")
    if not isinstance(document, dict):
        raise InputError(f"A job's request is a mapping or a pydantic model, not {type(request).__name__}.")
    return document


async def _validate(call: IvcapCall, service: ServiceRecord, document: dict[str, Any]) -> dict[str, Any] | None:
    """Check a request against the service's model, which is returned."""
    try:
        schema = await call.client.services.request_schema(service.urn)
    except NotFoundError:
        return None  # a service without a published model says itself what it does not take
    validate_request(schema, document, service=service.name or service.urn)
    return schema


async def _since(call: IvcapCall, service: str, since: datetime | None) -> AsyncIterator[JobRecord]:
    """The service's jobs requested since then, by the platform's own clock, whole: listings do not tell the time.

    All are read, however many: one that is passed over would be requested twice.
    """
    async for item in call.client.jobs.list(service):
        job = await call.client.jobs.read(service, item.urn, with_request=True, with_result=False)
        if since is not None and job.requested_at is not None and job.requested_at < since:
            return
        yield job


async def _wait_for_jobs(
    jobs: Sequence[Job | str],
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
    credentials: IvcapCredentialsLike = None,
) -> list[Job]:
    """Wait until all jobs have ended, and return them, with results, products and events, in the order given.

    `timeout` (seconds) and `raise_on_failure` are as of `wait_for_orders`; JobFailedError carries each job's own
    error message and the tail of the log of its order. Events are the service's own, the last hundred of each job,
    where the platform keeps them.
    """
    call = await IvcapCall.of(credentials)
    call.check(list(jobs))
    PlannedError.refuse(jobs)
    asked = {urn_of(job): job for job in jobs}
    services = dict(zip(asked, await all_of(lambda job: _service_of(call, job), asked.values()), strict=True))
    async with progress_of("jobs", asked) as told:
        records = await wait_for(call, JobSource(call.client.jobs), services, timeout=timeout, told=told)
    ended = await all_of(lambda record: _ended(call, record, services[record.urn], asked[record.urn]), records)
    known = {job.urn: job for job in ended}
    done = [known[urn_of(job)] for job in jobs]
    failed = [job for job in done if not job.succeeded]
    if failed and raise_on_failure:
        orders = {record.urn: record.order for record in records}
        lines = [f"{len(failed)} of {len(done)} jobs did not succeed."]
        for job in failed:
            why = job.error_message or "the platform gives no reason"
            lines.append(f"{job.urn} ({job.service_name or job.service}) ended as {job.status}: {why}")
            order = orders[job.urn]
            log = "" if order is None else await log_tail(call, ivcap_urn("order", order))
            lines += [f"  | {line}" for line in log.splitlines()]
        lines.append(resubmission("request_job"))
        raise JobFailedError("\n".join(lines), jobs=failed)
    return done


async def _service_of(call: IvcapCall, job: Job | str) -> str:
    if isinstance(job, Job) and job.service:
        return job.service
    return await call.client.jobs.service_of(urn_of(job))


async def _ended(call: IvcapCall, record: JobRecord, service: str, before: Job | str) -> Job:
    """The handle of an ended job with its events; the journal learns how it ended."""
    known = before if isinstance(before, Job) else None
    handle = record.handle(
        call.platform,
        request=known.request if known else None,
        service_name=known.service_name if known else None,
        key=known.key if known else None,
    )
    handle = await service_named(call, handle)
    try:
        events = await call.client.jobs.told(service, record.urn)
    except PlatformError as error:
        logger.warning("The events of %s cannot be read: %s", record.urn, error.message)
        events = []
    products = [product.handle(call.platform) async for product in call.client.jobs.products(record)]
    handle = handle.model_copy(update={"products": Products(products), "events": tuple(events)})
    await note_end(call.journal, handle)
    return handle


async def _attach_job(urn: str, *, credentials: IvcapCredentialsLike = None) -> Job:
    """The handle of a job that exists, by its URN alone, whoever requested it; wait for it as for one of your own.

    Raises NotFoundError for one that the account cannot see.
    """
    call = await IvcapCall.of(credentials)
    record = await call.client.jobs.find(urn_of(urn))
    return await service_named(call, record.handle(call.platform))


async def _list_jobs(
    service: Service | str | None = None,
    *,
    status: str | None = None,
    limit: int | None = None,
    credentials: IvcapCredentialsLike = None,
) -> list[Job]:
    """The jobs of a service, or of all services, newest first: all of them, or the first `limit`. Nothing is cut
    silently.

    `service` is a handle, name or URN; `status` leaves out all others. A listing has neither requests nor results:
    `attach_job` reads a job whole.
    """
    call = await IvcapCall.of(credentials)
    call.check(service)
    name: str | None = None
    if service is None:
        records = call.client.jobs.list_all(status=status, limit=limit)
    else:
        record = await call.client.services.by_name(str(service))
        name = record.name
        records = call.client.jobs.list(record.urn, limit=limit if status is None else None)
    return await first_of(
        records, lambda each: each.handle(call.platform, service_name=name), status=status, limit=limit
    )


async def _job_result(job: Job | str, *, credentials: IvcapCredentialsLike = None) -> Any:
    """The result of a job that succeeded, of whatever type: a JSON value, a text for `text/…`, bytes for all others.

    A JSON result is in the handle that `wait_for_jobs` returns, too. Raises InputError for a job that has not ended or
    has no result, and JobFailedError for one that did not succeed.
    """
    call = await IvcapCall.of(credentials)
    call.check(job)
    PlannedError.refuse([job])
    urn = urn_of(job)
    service = await _service_of(call, job)
    record = await call.client.jobs.read(service, urn)
    if not record.done:
        raise InputError(f"{urn} has no result yet: it is {record.status}. Wait for it by wait_for_jobs.")
    if record.status != "succeeded":
        handle = record.handle(call.platform)
        why = record.error_message or "the platform gives no reason"
        raise JobFailedError(f"{urn} has no result: it ended as {record.status}: {why}", jobs=[handle])
    result = await call.client.jobs.result(service, urn)
    if result is None and record.result_content_type is None:
        raise InputError(f"{urn} succeeded without a result.")
    if not isinstance(result, JobOutput):
        return result
    return result.text if result.media_type.startswith("text/") else result.content


request_job, arequest_job = task_pair(_request_job, name="Request job", run_name="job of {service}")
wait_for_jobs, await_for_jobs = task_pair(_wait_for_jobs, name="Wait for jobs", run_name=waiting_for("jobs"))
attach_job, aattach_job = task_pair(_attach_job, name="Attach job", run_name="attach {urn}")
list_jobs, alist_jobs = task_pair(_list_jobs, name="List jobs", run_name="list jobs")
job_result, ajob_result = task_pair(_job_result, name="Read job result", run_name="result of {job}")
