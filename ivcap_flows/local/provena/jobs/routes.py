"""The job-api over HTTP."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from ivcap_flows.local.provena.jobs.state import MESSAGE_LIMIT, SUB_TYPES, Jobs
from ivcap_flows.local.provena.model import AnyDict, Id, Model, RootError, Whole
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import Api, Desk, denied, fails, invalid

__all__ = ["api"]


class _Page(Model):
    pagination_key: AnyDict | None = None
    limit: Whole = 10


class _BatchPage(_Page):
    batch_id: Id


class _AnyPage(_Page):
    username_filter: str | None = None

    @property
    def where(self) -> dict[str, str]:
        """The column values of the wanted rows."""
        return {} if self.username_filter is None else {"username": self.username_filter}


class _AnyBatchPage(_AnyPage):
    batch_id: Id


class _Launch(Model):
    username: str | None = None
    request_batch_id: bool = False
    add_to_batch: str | None = None
    job_type: Literal["PROV_LODGE", "REGISTRY", "EMAIL", "REPORT"]
    job_sub_type: Literal[tuple(SUB_TYPES)]  # type: ignore[valid-type]
    job_payload: AnyDict

    @model_validator(mode="after")
    def _one_batch(self) -> _Launch:
        if self.request_batch_id and self.add_to_batch is not None:
            raise RootError("A new batch and an existing one cannot both be asked for.")
        return self


def api(desk: Desk, jobs: Jobs) -> Api:
    """Return the job-api; its user routes need a valid token, its admin routes the job-service roles."""
    site = Api(desk, "job-api", "job-service")
    site.check_access()
    bad_page = fails("The limit is below 1, or the key is malformed.")

    def found(session_id: str) -> dict[str, Any]:
        job = jobs.fetch(session_id)
        if job is None:
            raise invalid("Item was not found.")
        return job

    @site.get("/jobs/user/fetch")
    def fetch(session_id: Id, user: User = site.general) -> Any:
        job = found(session_id)
        if job["username"] != user.username:
            raise denied("The job belongs to another user.")
        return {"job": job}

    @site.post("/jobs/user/list", responses=bad_page)
    def own(wanted: _Page, user: User = site.general) -> Any:
        return jobs.page({"username": user.username}, wanted.limit, wanted.pagination_key)

    @site.post("/jobs/user/list_batch", responses=bad_page)
    def own_batch(wanted: _BatchPage, user: User = site.general) -> Any:
        page = jobs.page({"batch_id": wanted.batch_id}, wanted.limit, wanted.pagination_key)
        if any(job["username"] != user.username for job in page["jobs"]):
            raise denied("A job of the batch belongs to another user.")
        return page

    @site.post("/jobs/admin/launch", responses=fails(f"The message has {MESSAGE_LIMIT} bytes or more."))
    def launch(wanted: _Launch, user: User = site.write) -> Any:
        job_type, keys = SUB_TYPES[wanted.job_sub_type]
        if job_type != wanted.job_type:
            raise invalid(f"{wanted.job_sub_type} is no sub type of {wanted.job_type}.")
        if missing := sorted(keys - wanted.job_payload.keys()):
            raise invalid(f"The payload lacks {', '.join(missing)}.")
        batch = wanted.add_to_batch or (desk.store.new_id() if wanted.request_batch_id else None)
        username = wanted.username or user.username
        session = jobs.dispatch(username, wanted.job_sub_type, wanted.job_payload, batch)
        return {"session_id": session, "batch_id": batch}

    @site.get("/jobs/admin/fetch")
    def fetch_any(session_id: Id, user: User = site.read) -> Any:
        return {"job": found(session_id)}

    @site.post("/jobs/admin/list", responses=bad_page)
    def every(wanted: _AnyPage, user: User = site.read) -> Any:
        return jobs.page(wanted.where, wanted.limit, wanted.pagination_key)

    @site.post("/jobs/admin/list_batch", responses=bad_page)
    def any_batch(wanted: _AnyBatchPage, user: User = site.read) -> Any:
        return jobs.page({"batch_id": wanted.batch_id} | wanted.where, wanted.limit, wanted.pagination_key)

    return site
