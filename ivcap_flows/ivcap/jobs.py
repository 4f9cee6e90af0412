"""Jobs: a service runs with a JSON document (IVCAP OpenAPI 0.48, `/1/services2/{service}/jobs`)."""

from __future__ import annotations

import asyncio
import builtins
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

from ivcap_flows.errors import BadRequestError, NotFoundError, PlatformError, ProtocolError
from ivcap_flows.handles import JobEvent
from ivcap_flows.http.paging import checked_limit, next_link
from ivcap_flows.http.session import Session
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap.artifacts import ArtifactRecord, ProductsRecord
from ivcap_flows.ivcap.aspects import Aspects
from ivcap_flows.ivcap.job_events import follow, is_status
from ivcap_flows.ivcap.job_records import JobOutput, JobRecord, accepted, finished, is_json_type
from ivcap_flows.ivcap.requests import indirect
from ivcap_flows.ivcap.wire import instant, listed, listed_pages, record_of, replied, segment, urn_argument

__all__ = ["Jobs"]

_STATUS_SCHEMAS: Final = ("urn:ivcap:schema:job.2", "urn:ivcap:schema.job.2")
"""Platforms use both spellings."""

_STATUS_PATTERN: Final = "urn:ivcap:schema%job.2"
_REDIRECTS: Final = 3
_TOLD_WITHIN: Final = 10.0
"""Maximum seconds to spend on reading the events of an ended job."""


class Jobs:
    """`/1/services2/{service}/jobs`. Methods take URNs or bare ids."""

    def __init__(self, session: Session, aspects: Aspects) -> None:
        self._session = session
        self._aspects = aspects
        self._tells_events = True

    async def request(
        self,
        service_urn: str,
        document: Any = None,
        *,
        aspect: str | None = None,
        policy: str | None = None,
        hold: int = 0,
    ) -> JobRecord:
        """Request a job; the record has at least `id`, `service` and `status`.

        The request is the document, or the content of the aspect with the URN `aspect`. The platform replies at once,
        or when the job ends, if that happens within `hold` seconds. If the job fails within that time, BadRequestError
        or UnavailableError is raised with the job's message. A 307 within the platform is followed with the same method
        and body. Keyed: the request is sent once; the caller finds the job again.
        """
        service = ivcap_urn("service", urn_argument(service_urn, "service"))
        params = {"policy": urn_argument(policy, "policy", "urn:ivcap:policy:")} if policy is not None else None
        path = f"/1/services2/{segment(service)}/jobs"
        if aspect is not None:
            document = indirect(service, urn_argument(aspect, "aspect"))
        for _ in range(_REDIRECTS):
            reply = await self._session.request(
                "POST",
                path,
                params=params,
                headers={"Timeout": str(hold)},
                json=document,
                repeat="keyed",
                expect=(200, 202, 307),
                timeout=hold + 30.0,
            )
            if reply.status == 202:
                return accepted(reply, service, self._session)
            if reply.status == 200:
                return finished(reply, service)
            location = reply.headers.get("location")
            if not location:
                raise reply.violation("has the status 307 without a Location")
            path, params = self._session.own(location), None
        raise reply.violation(f"redirects more than {_REDIRECTS} times")

    async def read(
        self, service_urn: str, job_urn: str, *, with_request: bool = False, with_result: bool = True
    ) -> JobRecord:
        """Read a job; its request and result documents on demand."""
        reply = await self._session.request(
            "GET",
            f"/1/services2/{segment(service_urn)}/jobs/{segment(job_urn)}",
            params={"with-request-content": with_request, "with-result-content": with_result},
            repeat="idempotent",
        )
        return replied(JobRecord, reply, self._session)

    def list(
        self,
        service_urn: str,
        *,
        limit: int | None = None,
        filter: str | None = None,  # noqa: A002 - the API's word
        order_by: str | None = None,
        order_desc: bool | None = None,
        at_time: datetime | None = None,
    ) -> AsyncIterator[JobRecord]:
        """Yield the jobs of a service, newest first by default; the records have no `requested_at`."""
        params = {"filter": filter, "order-by": order_by, "order-desc": order_desc, "at-time": instant(at_time)}
        return listed(JobRecord, self._session, f"/1/services2/{segment(service_urn)}/jobs", params, limit)

    def pages(self, service_urn: str) -> AsyncGenerator[builtins.list[JobRecord], None]:
        """Yield the jobs of a service, newest first, page by page.

        Each page is one request, sent when the page is needed.
        """
        return listed_pages(JobRecord, self._session, f"/1/services2/{segment(service_urn)}/jobs", {})

    async def list_all(self, *, status: str | None = None, limit: int | None = None) -> AsyncIterator[JobRecord]:
        """Yield the account's jobs across all services, the most recently requested first.

        They are read from the aspects that the platform keeps of its jobs, in the order that `ivcap job list` asks for.
        The records have `id`, `service`, `service_name`, `status` and `requested_at`. `status` selects jobs with that
        status; `limit` is the total.
        """
        if checked_limit(limit) == 0:
            return
        path = None if status is None else f"$.status ? (@ == {json.dumps(status)})"
        seen: set[str] = set()
        # One pattern matches both spellings. It also matches other schemas, which are skipped.
        async for aspect in self._aspects.list(schema=_STATUS_PATTERN, content_path=path, order_by="requested-at"):
            content = aspect.content if isinstance(aspect.content, Mapping) else {}
            if aspect.schema_urn not in _STATUS_SCHEMAS or aspect.entity in seen:
                continue
            if status is not None and content.get("status") != status:
                continue
            seen.add(aspect.entity)
            known = {"id": aspect.entity, "service": content.get("service-id") or content.get("service")}
            shown = ("service-name", "status", "requested-at", "started-at", "finished-at")
            given = {name: content[name] for name in shown if content.get(name)}
            yield record_of(JobRecord, known | given, session=self._session, path="/1/aspects")
            if len(seen) == limit:
                return

    async def products(self, job: JobRecord) -> AsyncIterator[ArtifactRecord]:
        """Yield the products of a job record, over all pages. Raises ProtocolError if a page is named twice."""
        page, followed = job.products, set()
        while page is not None:
            for product in page.items or ():
                yield product
            href = next_link({"links": page.links})
            if href is None:
                return
            if href in followed:
                raise ProtocolError(
                    f"The products of {job.urn} have no last page: {self._session.platform} names one again.",
                    platform=self._session.platform,
                    method="GET",
                    path=href.partition("?")[0],
                    status=200,
                    detail="a page is named twice",
                    sent=True,
                )
            followed.add(href)
            reply = await self._session.request("GET", self._session.own(href), repeat="idempotent")
            body = reply.json()
            inner = body.get("products", body) if isinstance(body, Mapping) else body
            page = record_of(ProductsRecord, inner, session=self._session, path=reply.path)

    async def find(self, job_urn: str, *, with_result: bool = True) -> JobRecord:
        """Read a job, with its request, by its id alone. Raises NotFoundError if the account cannot see the job."""
        return await self.read(await self.service_of(job_urn), job_urn, with_request=True, with_result=with_result)

    async def service_of(self, job_urn: str) -> str:
        """Return the URN of a job's service, from the aspect that the platform writes with each status (`job.2`).

        Raises NotFoundError if there is no such aspect.
        """
        entity = ivcap_urn("job", job_urn)
        for schema in _STATUS_SCHEMAS:
            async for aspect in self._aspects.list(entity=entity, schema=schema, limit=1):
                content = aspect.content if isinstance(aspect.content, Mapping) else {}
                service = content.get("service-id") or content.get("service")
                if isinstance(service, str) and service:
                    return ivcap_urn("service", service)
        raise self._aspects.absent(f"The platform does not say of which service {entity} is a job.", "no job.2 aspect")

    async def output(self, service_urn: str, job_urn: str) -> JobOutput | None:
        """Read the result as the service wrote it, for types other than JSON; None while there is no result."""
        reply = await self._session.request(
            "GET",
            f"/1/services2/{segment(service_urn)}/jobs/{segment(job_urn)}/output",
            repeat="idempotent",
            expect=(200, 204),
            raw=True,
        )
        if reply.status == 204:
            return None
        return JobOutput(reply.headers.get("content-type", "application/octet-stream"), reply.body)

    async def result(self, service_urn: str, job_urn: str) -> Any:
        """Read the result of a job that succeeded: a JSON value, or a JobOutput for any other type.

        Looks in the record, then at `output`, then behind the URN in the record. None while there is no result. Raises
        PlatformError if the platform has a result but does not return it.
        """
        job = await self.read(service_urn, job_urn)
        if job.result_content is not None or not job.done or job.result_content_type is None:
            return job.result_content
        refused: PlatformError | None = None
        try:
            output = await self.output(service_urn, job_urn)
        except PlatformError as error:  # some deployments have no `output` route and name a URN for the result instead
            output, refused = None, error
        if output is None and job.result_content_urn is not None:
            if job.result_content_urn.startswith("urn:ivcap:aspect:"):
                return (await self._aspects.read(job.result_content_urn)).content
            output = await self._artifact(job.result_content_urn)
        elif refused is not None:
            raise refused
        if output is not None and is_json_type(output.media_type) and output.content:
            return json.loads(output.content)
        return output

    async def _artifact(self, urn: str) -> JobOutput:
        """Read a result that is stored in an artifact. The whole content is read into memory, as for every result."""
        reply = await self._session.request("GET", f"/1/artifacts/{segment(urn)}", repeat="idempotent")
        record = replied(ArtifactRecord, reply, self._session)
        if record.data_href is None:
            raise reply.violation("names no data-href")
        content = await self._session.request("GET", self._session.own(record.data_href), repeat="idempotent", raw=True)
        return JobOutput(record.mime_type or "application/octet-stream", content.body)

    async def events(
        self, service_urn: str, job_urn: str, *, last_id: str | None = None, wait: int = 30
    ) -> AsyncGenerator[JobEvent, None]:
        """Yield each event of a job once, as it arrives, until the job ends; start after the event `last_id`.

        Broken streams are opened again after the last event. `wait` is the number of seconds that the platform may hold
        a request. On a platform without events the iterator ends at once: read the job instead. Raises NotFoundError if
        the account cannot see the job.
        """
        try:
            async for event in self._follow(service_urn, job_urn, last_id, wait):
                yield event
        except _NoRoute:
            return
        except NotFoundError:
            # Either the platform has no events, or there is no such job; the latter remains an error.
            await self.read(service_urn, job_urn, with_result=False)

    async def told(self, service_urn: str, job_urn: str, *, limit: int = 100) -> builtins.list[JobEvent]:
        """Return the last events of an ended job that come from the service itself, oldest first.

        Stops after ten seconds and returns the events read so far. Empty if the platform has no events for this job.
        After a platform has replied that it has no events at all (405, 501), it is not asked again.
        """
        told: deque[JobEvent] = deque(maxlen=limit)

        async def read() -> None:
            async with aclosing(self._follow(service_urn, job_urn, None, 1, over=True)) as events:
                async for event in events:
                    if not is_status(event):
                        told.append(event)

        if self._tells_events:
            try:
                await asyncio.wait_for(read(), _TOLD_WITHIN)
            except _NoRoute:
                self._tells_events = False
            except (NotFoundError, asyncio.TimeoutError):
                pass
        return list(told)

    async def _follow(
        self, service_urn: str, job_urn: str, last_id: str | None, wait: int, *, over: bool = False
    ) -> AsyncGenerator[JobEvent, None]:
        path = f"/1/services2/{segment(service_urn)}/jobs/{segment(job_urn)}/events"

        async def is_over() -> bool:
            return (await self.read(service_urn, job_urn, with_result=False)).done

        try:
            async with aclosing(follow(self._session, path, is_over, last_id=last_id, wait=wait, over=over)) as events:
                async for event in events:
                    yield event
        except BadRequestError as error:
            if error.data.get("status") in (405, 501):
                raise _NoRoute from error
            raise


class _NoRoute(Exception):  # noqa: N818 - it never leaves this module
    """The platform has no events."""
