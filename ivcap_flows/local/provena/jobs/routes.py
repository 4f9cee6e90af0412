"""The job-api over HTTP."""

from __future__ import annotations

from typing import Any

from ivcap_flows.local.provena.jobs.state import MESSAGE_LIMIT, SUB_TYPES, Jobs
from ivcap_flows.local.provena.operation import Call
from ivcap_flows.local.provena.shape import DICT, FLAG, ID, TEXT, WHOLE, Choice, Object, given, maybe, needed
from ivcap_flows.local.provena.web import Api, Desk, denied, invalid

__all__ = ["api"]

_SESSION = Object({"session_id": needed(ID)})
_PAGE = {"pagination_key": maybe(DICT), "limit": given(WHOLE, 10)}
_BATCH = _PAGE | {"batch_id": needed(ID)}
_FILTER = {"username_filter": maybe(TEXT)}


def _one_batch(body: dict[str, Any]) -> str | None:
    both = body["request_batch_id"] and body["add_to_batch"] is not None
    return "A new batch and an existing one cannot both be asked for." if both else None


_LAUNCH = Object(
    {
        "username": maybe(TEXT),
        "request_batch_id": given(FLAG, False),
        "add_to_batch": maybe(TEXT),
        "job_type": needed(Choice("PROV_LODGE", "REGISTRY", "EMAIL", "REPORT")),
        "job_sub_type": needed(Choice(*SUB_TYPES)),
        "job_payload": needed(DICT),
    },
    rules=(_one_batch,),
)


def api(desk: Desk, jobs: Jobs) -> Api:
    """Return the job-api; its user routes need a valid token, its admin routes the job-service roles."""
    site = Api(desk, "job-api", "job-service")
    site.check_access()

    def fetch(call: Call) -> dict[str, Any]:
        job = jobs.fetch(call.query["session_id"])
        if job is None:
            raise invalid("Item was not found.")
        if job["username"] != call.user.username:
            raise denied("The job belongs to another user.")
        return {"job": job}

    def own(call: Call) -> dict[str, Any]:
        return jobs.page({"username": call.user.username}, call.body["limit"], call.body["pagination_key"])

    def own_batch(call: Call) -> dict[str, Any]:
        page = jobs.page({"batch_id": call.body["batch_id"]}, call.body["limit"], call.body["pagination_key"])
        if any(job["username"] != call.user.username for job in page["jobs"]):
            raise denied("A job of the batch belongs to another user.")
        return page

    def retry(call: Call) -> dict[str, Any]:
        raise invalid("Jobs cannot be retried: this is not implemented.")

    def fetch_any(call: Call) -> dict[str, Any]:
        job = jobs.fetch(call.query["session_id"])
        if job is None:
            raise invalid("Item was not found.")
        return {"job": job}

    def any_user(call: Call) -> dict[str, Any]:
        return jobs.page(_filtered(call), call.body["limit"], call.body["pagination_key"])

    def any_batch(call: Call) -> dict[str, Any]:
        where = {"batch_id": call.body["batch_id"]} | _filtered(call)
        return jobs.page(where, call.body["limit"], call.body["pagination_key"])

    def launch(call: Call) -> dict[str, Any]:
        wanted = call.body
        job_type, keys = SUB_TYPES[wanted["job_sub_type"]]
        if job_type != wanted["job_type"]:
            raise invalid(f"{wanted['job_sub_type']} is no sub type of {wanted['job_type']}.")
        if missing := sorted(keys - wanted["job_payload"].keys()):
            raise invalid(f"The payload lacks {', '.join(missing)}.")
        batch = wanted["add_to_batch"] or (site.desk.store.new_id() if wanted["request_batch_id"] else None)
        username = wanted["username"] or call.user.username
        session = jobs.dispatch(username, wanted["job_sub_type"], wanted["job_payload"], batch)
        return {"session_id": session, "batch_id": batch}

    job, page = (
        ("job",),
        {"gives": ("jobs", "pagination_key"), "fails": "The limit is below 1, or the key is malformed."},
    )
    site.get("/jobs/user/fetch", "general", fetch, _SESSION, gives=job)
    site.post("/jobs/user/list", "general", own, Object(_PAGE), **page)
    site.post("/jobs/user/list_batch", "general", own_batch, Object(_BATCH), **page)
    site.post("/jobs/user/retry", "general", retry, query=_SESSION, hidden=True)
    site.post(
        "/jobs/admin/launch",
        "write",
        launch,
        _LAUNCH,
        gives=("session_id", "batch_id"),
        fails=f"The message has {MESSAGE_LIMIT} bytes or more.",
    )
    site.get("/jobs/admin/fetch", "read", fetch_any, _SESSION, gives=job)
    site.post("/jobs/admin/list", "read", any_user, Object(_PAGE | _FILTER), **page)
    site.post("/jobs/admin/list_batch", "read", any_batch, Object(_BATCH | _FILTER), **page)
    return site


def _filtered(call: Call) -> dict[str, str]:
    username = call.body["username_filter"]
    return {"username": username} if username is not None else {}
