"""Jobs: a service run with a JSON document (IVCAP OpenAPI 0.48, `/1/services2/{service}/jobs`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import Field

from ivcap_flows.errors import NotFoundError
from ivcap_flows.handles import TERMINAL, Job
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap.artifacts import ProductsRecord
from ivcap_flows.ivcap.aspects import Aspects
from ivcap_flows.ivcap.wire import Instant, Text, Wire, instant, listed, replied, segment, urn_argument

__all__ = ["JobOutput", "JobRecord", "Jobs", "is_json_type"]

_STATUS_SCHEMAS: Final = ("urn:ivcap:schema:job.2", "urn:ivcap:schema.job.2")
"""Both spellings occur."""

_REDIRECTS: Final = 3


def is_json_type(media_type: str | None) -> bool:
    """Whether a result of this type is inlined as JSON: `application/json` and `application/vnd.ivcap.…`."""
    kind = (media_type or "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.startswith("application/vnd.ivcap.") or kind.endswith("+json")


class JobRecord(Wire):
    """A job as read, requested or listed. After a request most fields are still unknown."""

    id: str
    status: str = "unknown"
    """As of orders."""
    service: Text = None
    order: Text = None
    account: Text = None
    policy: Text = None
    name: Text = None
    tags: list[str] | None = None
    requested_at: Instant = None
    started_at: Instant = None
    finished_at: Instant = None
    error_message: Text = None
    request_content: Any = None
    request_content_type: Text = None
    result_content: Any = None
    result_content_type: Text = None
    result_content_urn: Text = None
    products: ProductsRecord | None = None
    retry_later: float | None = None
    """Seconds after which the platform wants to be asked, told with the reply to the request."""
    links: Any = Field(None, repr=False)

    @property
    def urn(self) -> str:
        return ivcap_urn("job", self.id)

    @property
    def done(self) -> bool:
        """Whether the status is terminal."""
        return self.status in TERMINAL

    def handle(
        self, platform: str, *, request: Any = None, service_name: str | None = None, key: str | None = None
    ) -> Job:
        """The handle of this job; `request` where the caller knows it and the record was read without."""
        return Job(
            urn=self.urn,
            platform=platform,
            service=ivcap_urn("service", self.service) if self.service else "",
            service_name=service_name,
            status=self.status,
            name=self.name,
            requested_at=self.requested_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            products=(self.products or ProductsRecord()).handles(platform),
            request=self.request_content if self.request_content is not None else request,
            result=self.result_content,
            result_type=self.result_content_type,
            error_message=self.error_message,
            key=key,
        )


@dataclass(frozen=True)
class JobOutput:
    """A result as the service wrote it."""

    media_type: str
    content: bytes = field(repr=False)


class Jobs:
    """`/1/services2/{service}/jobs`. Methods take URNs, or bare ids."""

    def __init__(self, session: Session, aspects: Aspects) -> None:
        self._session = session
        self._aspects = aspects

    async def request(self, service_urn: str, document: Any, *, policy: str | None = None) -> JobRecord:
        """Request a job and return at once (`Timeout: 0`); the record has at least `id`, `service` and `status`.

        A 307 within the platform is followed with method and body. Keyed: sent once; the caller finds the job again.
        """
        service = ivcap_urn("service", urn_argument(service_urn, "service"))
        params = {"policy": urn_argument(policy, "policy", "urn:ivcap:policy:")} if policy is not None else None
        path = f"/1/services2/{segment(service)}/jobs"
        for _ in range(_REDIRECTS):
            reply = await self._session.request(
                "POST",
                path,
                params=params,
                headers={"Timeout": "0"},
                json=document,
                repeat="keyed",
                expect=(200, 202, 307),
            )
            if reply.status == 202:
                return _accepted(reply, service, self._session)
            if reply.status == 200:
                return _finished(reply, service)
            location = reply.headers.get("location")
            if not location:
                raise reply.violation("has the status 307 without a Location")
            path, params = self._session.own(location), None
        raise reply.violation(f"redirects more than {_REDIRECTS} times")

    async def read(
        self, service_urn: str, job_urn: str, *, with_request: bool = False, with_result: bool = True
    ) -> JobRecord:
        """Read a job; its documents on demand."""
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
        """The jobs of a service, newest first unless ordered otherwise; items carry no `requested_at`."""
        params = {"filter": filter, "order-by": order_by, "order-desc": order_desc, "at-time": instant(at_time)}
        return listed(JobRecord, self._session, f"/1/services2/{segment(service_urn)}/jobs", params, limit)

    async def service_of(self, job_urn: str) -> str:
        """The URN of a job's service, from the aspect that the platform writes with each status (`job.2`).

        Raises NotFoundError when the platform has none.
        """
        entity = ivcap_urn("job", job_urn)
        for schema in _STATUS_SCHEMAS:
            async for aspect in self._aspects.list(entity=entity, schema=schema, limit=1):
                content = aspect.content if isinstance(aspect.content, Mapping) else {}
                service = content.get("service-id") or content.get("service")
                if isinstance(service, str) and service:
                    return ivcap_urn("service", service)
        raise NotFoundError(
            f"The platform does not say of which service {entity} is a job.",
            platform=self._session.platform,
            method="GET",
            path="/1/aspects",
            status=None,
            detail="no job.2 aspect",
            sent=True,
        )

    async def output(self, service_urn: str, job_urn: str) -> JobOutput | None:
        """The result as the service wrote it, for types that are no JSON; None while there is none."""
        reply = await self._session.request(
            "GET",
            f"/1/services2/{segment(service_urn)}/jobs/{segment(job_urn)}/output",
            repeat="idempotent",
            expect=(200, 204),
        )
        if reply.status == 204:
            return None
        return JobOutput(reply.headers.get("content-type", "application/octet-stream"), reply.body)


class _Accepted(Wire):
    """The body of a 202."""

    job_id: Text = None
    location: Text = None
    retry_later: float | None = None


def _accepted(reply: Reply, service: str, session: Session) -> JobRecord:
    body = replied(_Accepted, reply, session)
    job = body.job_id or unquote(urlsplit(body.location or "").path.rstrip("/").rpartition("/")[2])
    if not job:
        raise reply.violation("names no job")
    return JobRecord(id=ivcap_urn("job", job), service=service, status="pending", retry_later=body.retry_later)


def _finished(reply: Reply, service: str) -> JobRecord:
    """The reply of a job that ended before the platform answered: the result itself, the ids in headers."""
    job = reply.headers.get("ivcap-job-id")
    if not job:
        raise reply.violation("is a result without an IVCAP-Job-Id")
    media_type = reply.headers.get("content-type")
    return JobRecord(
        id=ivcap_urn("job", job),
        service=service,
        order=reply.headers.get("ivcap-order-id"),
        status="succeeded",
        result_content=reply.json() if is_json_type(media_type) and reply.body else None,
        result_content_type=media_type,
    )
