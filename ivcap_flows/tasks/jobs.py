"""Tasks for IVCAP jobs: request once, wait for several, get by URN, list, read results of any type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ivcap_flows.canonical import canonical_form
from ivcap_flows.durable import Effect, Found, MatchedBy, Resume, Reusable
from ivcap_flows.errors import InputError, JobFailedError, NotFoundError, PlatformError
from ivcap_flows.handles import Aspect, Job, Products, Service
from ivcap_flows.identity import OncePer, fingerprint, ivcap_urn
from ivcap_flows.ivcap.job_records import JobOutput, JobRecord, is_json_type
from ivcap_flows.ivcap.requests import indirect, validate_request
from ivcap_flows.ivcap.services import ServiceRecord
from ivcap_flows.journal import IntentRow, NewIntent
from ivcap_flows.loop import all_of
from ivcap_flows.secrets import logger_of
from ivcap_flows.tasks.assets import note_assets, products_of
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.following import following
from ivcap_flows.tasks.missing import missing_inputs
from ivcap_flows.tasks.pair import called, task_pair
from ivcap_flows.tasks.planned import planned
from ivcap_flows.tasks.poll_sources import JobSource, ask_later, wait_for
from ivcap_flows.tasks.progress import progress_of
from ivcap_flows.tasks.service_request import ServiceRequest
from ivcap_flows.tasks.waiting import (
    Ended,
    Patience,
    PlannedError,
    failure,
    first_of,
    log_tail,
    note_end,
    outcome_of,
    service_named,
    wait_of,
    waiting_for,
    what_helps,
    with_reason,
)
from ivcap_flows.work.kinds import JOBS, look_through
from ivcap_flows.work.reuse import definition_of, look_for_reuse

__all__ = [
    "a_wait_for_jobs",
    "aget_job",
    "ajob_result",
    "alist_jobs",
    "arequest_job",
    "get_job",
    "job_result",
    "list_jobs",
    "request_job",
    "request_of",
    "wait_for_jobs",
]

logger = logger_of("ivcap_flows.waiting")


async def _request_job(
    service: Service | ServiceRequest | str,
    request: Mapping[str, Any] | BaseModel | None = None,
    *,
    request_aspect: Aspect | str | None = None,
    policy: str | None = None,
    once_per: OncePer = "run",
    discriminator: str | None = None,
    max_resubmits: int = 0,
    reuse: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> Job:
    """Request a job of a service, once per run unless `once_per` says otherwise, and return without waiting for it.

    `service` is a handle, name or URN, or a ServiceRequest, whose parameters are the request. `request` is the document
    for the service: a mapping or a pydantic model (by alias). Handles in it become their URNs, and sets are sent in a
    fixed order. Instead of `request`, `request_aspect` may name an aspect whose content is the request. Before anything
    is sent, the request is checked against the service's request schema, and all faults are reported at once. Raises
    InputError for a value without a JSON form and names its path. For the other arguments and errors, see
    `place_order`.
    """
    if isinstance(service, ServiceRequest):
        if request is not None or request_aspect is not None:
            raise InputError(f"{type(service).__name__} has the request; give no other.")
        request, service = service.parameters(), service.service
    call = await IvcapCall.of(credentials)
    call.check(service, request, request_aspect)
    PlannedError.refuse([service])
    record = await call.service(str(service))
    asked = await _asked(call, record, request, request_aspect)
    version = definition_of(record, await _validate(call, record, asked.document))
    done = await call.perform(
        JobEffect(
            call=call,
            service=record,
            document=asked.document,
            request={"service": record.urn, "request": asked.sent, "policy": policy},
            visibility_delay=call.client.visibility_delay,
            once_per=once_per,
            discriminator=discriminator,
            subject=record.name or record.urn,
            definition=version,
            reuses=call.reuses(reuse),
            limit=call.limit,
        ),
        idempotency_records=call.records,
        max_resubmits=max_resubmits,
    )
    job = done.value
    result = job.result
    if job.succeeded and result is None and is_json_type(job.result_type):
        # The journal keeps no long result.
        result = await call.client.jobs.result(record.urn, job.urn)
    # A handle from the journal has its secrets redacted, so return the request as given.
    return job.model_copy(update={"request": asked.document, "result": result})


@dataclass(frozen=True, kw_only=True)
class JobEffect(Effect[Job]):
    """Requesting a job of a service. A job has no key: it is found again by an equal request that no other key claims.

    `document` is the request itself; what is sent may only name the aspect that contains it.
    """

    noun: str = "job"
    spends: bool = True
    call: IvcapCall
    service: ServiceRecord
    document: dict[str, Any]

    async def send(self, intent: IntentRow, progress: Resume) -> Job:
        sent = await self.call.client.jobs.request(
            self.service.urn, self.request["request"], policy=self.request["policy"]
        )
        ask_later(sent.urn, sent.retry_later)
        return self._handle(sent, intent.key)

    async def find(self, intent: IntentRow) -> list[Found[Job]]:
        # If it is unknown since when our job can exist, an equal job of any age could be it: the user must decide.
        since = await self.call.since(intent)
        matched_by: MatchedBy = "guess" if since is None else "content"
        wanted = {fingerprint(each) for each in self._alike}
        jobs = await look_through(
            JOBS, self.call.client, intent, since, lambda job: fingerprint(job.request_content) in wanted
        )
        return [Found(self._handle(job, intent.key), job.urn, job.requested_at, matched_by) for job in jobs]

    async def earlier(self, wanted: NewIntent) -> Reusable[Job]:
        def value(job: JobRecord, products: Products) -> Job:
            return self._handle(job, wanted.key).model_copy(update={"products": products})

        return await look_for_reuse(self.call.client, JOBS, wanted, self.request, forms=self._alike, value=value)

    def encode(self, value: Job) -> Any:
        return outcome_of(value)

    def decode(self, outcome: Any) -> Job:
        return Job.model_validate(outcome)

    def placeholder(self, key: str) -> Job:
        return Job(
            urn=f"urn:ivcap-flows:planned:{key}",
            platform=self.call.platform,
            service=self.service.urn,
            service_name=self.service.name,
            status="planned",
            request=self.document,
            key=key,
        )

    @property
    def _alike(self) -> list[dict[str, Any]]:
        """The forms in which the platform may show the request."""
        return [self.request["request"], self.document]

    def _handle(self, job: JobRecord, key: str) -> Job:
        handle = job.handle(self.call.platform, service_name=self.service.name, key=key)
        given = {"service": self.service.urn, "service_version": self.definition, "request": self.document}
        return handle.model_copy(update=given)


@dataclass(frozen=True)
class _Asked:
    """A request. `sent` goes to the platform: the document itself, or a reference to the aspect that contains it."""

    sent: dict[str, Any]
    document: dict[str, Any]


async def _asked(
    call: IvcapCall,
    service: ServiceRecord,
    request: Mapping[str, Any] | BaseModel | None,
    aspect: Aspect | str | None,
) -> _Asked:
    if (request is None) == (aspect is None):
        raise InputError("A job needs either a request or a request_aspect: pass exactly one of them.")
    if aspect is None:
        document = request_of(request)
        return _Asked(document, document)
    urn = urn_of(aspect)
    content = (await call.client.aspects.read(urn)).content
    if not isinstance(content, Mapping):
        raise InputError(f"The content of {urn} cannot be a request: it is {type(content).__name__}, not an object.")
    return _Asked(indirect(service.urn, urn), dict(content))


def request_of(request: Mapping[str, Any] | BaseModel | None) -> dict[str, Any]:
    """Return a request's document in canonical form. Raises InputError if it has none or is not an object."""
    document = canonical_form(request, "request")
    if not isinstance(document, dict):
        raise InputError(f"A job's request must be a mapping or a pydantic model, not {type(request).__name__}.")
    return document


async def _validate(call: IvcapCall, service: ServiceRecord, document: dict[str, Any]) -> dict[str, Any] | None:
    """Check a request against the service's request schema. Return the schema, or None if none is published."""
    try:
        schema = await call.client.services.request_schema(service.urn)
    except NotFoundError:
        return None  # a service without a published schema checks the request itself
    validate_request(schema, document, service=service.name or service.urn)
    return schema


async def _wait_for_jobs(
    jobs: Sequence[Job | str],
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
    events: bool = False,
    follow: bool = False,
    credentials: IvcapCredentialsLike = None,
) -> list[Job]:
    """Wait until all jobs have ended. Return them in the given order, with results and products.

    For `timeout` (seconds) and `raise_on_failure`, see `wait_for_orders`. With `follow`, the flow's log shows the
    jobs' events, too. JobFailedError contains each job's error
    message and the end of its order's log. With `events`, each job also has the last hundred events that its service
    sent, if the platform stores them, which takes two more requests a job. A job that failed always has them.
    """
    patience = Patience.of(jobs, timeout)
    call = await patience.read(lambda: IvcapCall.of(credentials))
    call.check(jobs)
    PlannedError.refuse(jobs)
    asked = {urn_of(job): job for job in jobs}
    of = await all_of(lambda job: patience.read(lambda: _service_of(call, job)), asked.values())
    services = dict(zip(asked, of, strict=True))
    waits = [wait_of(job, "job", services[urn]) for urn, job in asked.items()]
    async with following(call, waits, asked=follow), progress_of("jobs", asked) as told:
        records = await wait_for(call, JobSource(call.client.jobs), waits, timeout=patience.left, told=told)
    patience.has_ended = True
    ended = await all_of(
        lambda record: _ended(call, patience, record, services[record.urn], asked[record.urn], events=events), records
    )
    failed = [each for each in ended if not each.work.succeeded]
    if failed and raise_on_failure:
        lines = [*failure(failed, len(ended), "job", logs=True), *await what_helps(call, failed, "request_job")]
        raise JobFailedError("\n".join(lines), jobs=[each.work for each in failed])
    note_assets(
        [version for each in ended for version in products_of(each.work, new=each.is_news)],
        inputs={urn for each in ended for urn in each.work.inputs},
    )
    if failed:
        lines = failure(failed, len(ended), "job", logs=False)
        logger.warning("\n".join([*lines, *await missing_inputs(call, [each.work for each in failed])]))
    known = {each.work.urn: each.work for each in ended}
    return [known[urn_of(job)] for job in jobs]


async def _service_of(call: IvcapCall, job: Job | str) -> str:
    if isinstance(job, Job) and job.service:
        return job.service
    return await call.client.jobs.service_of(urn_of(job))


async def _ended(
    call: IvcapCall, patience: Patience, record: JobRecord, service: str, before: Job | str, *, events: bool
) -> Ended[Job]:
    """Write a job's end to the journal. Return its handle, with all its products or the reason of its failure."""
    known = before if isinstance(before, Job) else None
    handle = record.handle(
        call.platform,
        request=known.request if known else None,
        service_name=known.service_name if known else None,
        key=known.key if known else None,
    )
    handle._how = known.how if known else None

    async def whole() -> Job:
        named = await service_named(call, handle)
        products = [product.handle(call.platform) async for product in call.client.jobs.products(record)]
        return named.model_copy(update={"products": Products(products)})

    ended, log = await patience.read(whole), ""
    if events or not ended.succeeded:
        try:
            ended = ended.model_copy(update={"events": tuple(await call.client.jobs.told(service, record.urn))})
        except PlatformError as error:
            logger.warning("The events of %s cannot be read: %s", record.urn, error.message)
    if not ended.succeeded and record.order is not None:
        log = await log_tail(call, ivcap_urn("order", record.order))
        ended = with_reason(ended, log)
    return Ended(ended, await note_end(call.journal, ended), log)


async def _get_job(urn: str, *, credentials: IvcapCredentialsLike = None) -> Job:
    """Return the handle of an existing job, whoever requested it. You can wait for it as for your own jobs.

    Raises NotFoundError if the account cannot see it.
    """
    call = await IvcapCall.of(credentials)
    if (job := planned(urn_of(urn), Job)) is not None:
        return job
    record = await call.client.jobs.find(urn_of(urn))
    return await service_named(call, record.handle(call.platform))


async def _list_jobs(
    service: Service | str | None = None,
    *,
    status: str | None = None,
    limit: int | None = None,
    credentials: IvcapCredentialsLike = None,
) -> list[Job]:
    """List the jobs of a service, or of all services, newest first: all jobs, or the first `limit`.

    `service` is a handle, name or URN. `status` selects the jobs with that status. The handles have neither requests
    nor results; `get_job` reads a job completely.
    """
    call = await IvcapCall.of(credentials)
    call.check(service)
    name: str | None = None
    if service is None:
        records = call.client.jobs.list_all(status=status, limit=limit)
    else:
        record = await call.service(str(service))
        name = record.name
        records = call.client.jobs.list(record.urn, limit=limit if status is None else None)
    return await first_of(
        records, lambda each: each.handle(call.platform, service_name=name), status=status, limit=limit
    )


async def _job_result(job: Job | str, *, credentials: IvcapCredentialsLike = None) -> Any:
    """Return the result of a job that succeeded: a JSON value, a text for `text/…`, bytes for any other type.

    The handle that `wait_for_jobs` returns also contains a JSON result. Raises InputError for a job that has not ended
    or has no result, and JobFailedError for one that did not succeed.
    """
    call = await IvcapCall.of(credentials)
    call.check(job)
    PlannedError.refuse([job])
    urn = urn_of(job)
    service = await _service_of(call, job)
    record = await call.client.jobs.read(service, urn)
    if not record.done:
        raise InputError(f"{urn} has no result yet: it is {record.status}. Wait for it with wait_for_jobs.")
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


def _job_run(parameters: dict[str, Any]) -> str:
    return f"job of {called(parameters['service'])}"


request_job, arequest_job = task_pair(_request_job, _job_run)
wait_for_jobs, a_wait_for_jobs = task_pair(_wait_for_jobs, waiting_for("jobs"))
get_job, aget_job = task_pair(_get_job, "get {urn}")
list_jobs, alist_jobs = task_pair(_list_jobs)
job_result, ajob_result = task_pair(_job_result, "result of {job}")
