"""Records of jobs: the job itself, its result as written, and the replies to a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import Field

from ivcap_flows.handles import TERMINAL, Job
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap.artifacts import ProductsRecord
from ivcap_flows.ivcap.wire import Instant, Text, Wire, replied
from ivcap_flows.media_types import essence

__all__ = ["JobOutput", "JobRecord", "accepted", "finished", "is_json_type"]


def is_json_type(media_type: str | None) -> bool:
    """Return whether a result of this type is JSON: `application/json`, `application/vnd.ivcap.…` or `…+json`.

    The platform inlines such results.
    """
    kind = essence(media_type or "")
    return kind == "application/json" or kind.startswith("application/vnd.ivcap.") or kind.endswith("+json")


class JobRecord(Wire):
    """A job as read, requested or listed. After a request most fields are still unknown."""

    id: str
    status: str = "unknown"
    """The words are those of orders."""
    service: Text = None
    service_name: Text = None
    """Set only in listings across services."""
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
    """Seconds to wait before the next request, as the platform wished in its reply to the job's request."""
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
        """Return the handle of this job. `request` is used if the record was read without its request."""
        return Job(
            urn=self.urn,
            platform=platform,
            service=ivcap_urn("service", self.service) if self.service else "",
            service_name=service_name or self.service_name,
            status=self.status,
            name=self.name,
            account=self.account,
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

    @property
    def text(self) -> str:
        """The content as text, in the charset of the media type, or UTF-8 if it names none."""
        message = Message()
        message["content-type"] = self.media_type
        charset = message.get_content_charset("utf-8")
        try:
            return self.content.decode(charset, errors="replace")
        except LookupError:
            return self.content.decode("utf-8", errors="replace")


class _Accepted(Wire):
    """The body of a 202."""

    job_id: Text = None
    location: Text = None
    retry_later: float | None = None


def accepted(reply: Reply, service: str, session: Session) -> JobRecord:
    """Read the reply for a job that still runs."""
    body = replied(_Accepted, reply, session)
    job = body.job_id or unquote(urlsplit(body.location or "").path.rstrip("/").rpartition("/")[2])
    if not job:
        raise reply.violation("names no job")
    return JobRecord(id=ivcap_urn("job", job), service=service, status="pending", retry_later=body.retry_later)


def finished(reply: Reply, service: str) -> JobRecord:
    """Read the reply for a job that has already ended: the body is the result, the headers carry the ids."""
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
