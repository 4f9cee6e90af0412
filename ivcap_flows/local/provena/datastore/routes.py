"""The data-store-api over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ivcap_flows.local.provena.datastore.format import COLLECTION_FORMAT
from ivcap_flows.local.provena.datastore.state import Datasets
from ivcap_flows.local.provena.operation import Call
from ivcap_flows.local.provena.registry.listing import BAD_PAGE, PAGE, subtype_page
from ivcap_flows.local.provena.registry.routes import REVERT, VERSION
from ivcap_flows.local.provena.registry.state import UnsuccessfulError
from ivcap_flows.local.provena.shape import FLAG, ID, TEXT, Object, Whole, given, needed
from ivcap_flows.local.provena.web import Api, Desk, status

__all__ = ["api"]

_HANDLE = Object({"handle_id": needed(ID)})
_CHANGE = Object({"handle_id": needed(ID), "reason": needed(TEXT)})
_REVIEWER = Object({"reviewer_id": needed(ID)})
_CREDENTIALS = Object({"dataset_id": needed(ID), "console_session_required": needed(FLAG)})

_UNLINKED = "The user is linked to no person, or the token has no email address."
_OTHER = "The item is of another type."


def api(desk: Desk, datasets: Datasets) -> Api:
    """Return the data-store-api."""
    site = Api(desk, "data-store-api", "entity-registry")
    site.check_access()
    _registering(site, datasets)
    _reading(site, datasets)
    _releasing(site, datasets)
    return site


def _registering(site: Api, datasets: Datasets) -> None:
    def mint(call: Call) -> dict[str, Any]:
        try:
            entry, session = datasets.mint(call.user, call.body)
        except UnsuccessfulError as error:
            nothing = dict.fromkeys(("handle", "s3_location", "register_create_activity_session_id"))
            return {"status": status(False, str(error))} | nothing
        return {
            "status": status(True, "The dataset was minted."),
            "handle": entry.id,
            "s3_location": entry.item["s3"],
            "register_create_activity_session_id": session,
        }

    def update(call: Call) -> dict[str, Any]:
        entry = datasets.update(call.user, call.query["handle_id"], call.body, call.query["reason"])
        return {
            "status": status(True, "The metadata was replaced."),
            "handle": entry.id,
            "s3_location": entry.item["s3"],
        }

    def revert(call: Call) -> dict[str, Any]:
        datasets.revert(call.user, call.body["id"], call.body["history_id"], call.body["reason"])
        return {"status": status(True, "The metadata was reverted.")}

    def version(call: Call) -> dict[str, Any]:
        entry, session = datasets.version(call.user, call.body["id"], call.body["reason"])
        return {"new_version_id": entry.id, "version_job_session_id": session}

    def validate(call: Call) -> dict[str, Any]:
        try:
            datasets.check(call.body)
        except UnsuccessfulError as error:
            return status(False, str(error))
        return status(True, "The metadata is valid.")

    site.post("/register/mint-dataset", "write", mint, COLLECTION_FORMAT, gives=("status", "handle"), fails=_UNLINKED)
    site.post(
        "/register/update-metadata",
        "write",
        update,
        COLLECTION_FORMAT,
        query=_CHANGE,
        gives=("status", "handle"),
        fails=_OTHER,
    )
    site.on("PUT", "/register/revert-metadata", "write", revert, body=REVERT)
    site.post(
        "/register/version", "write", version, VERSION, gives=("new_version_id", "version_job_session_id"), fails=_OTHER
    )
    site.post("/metadata/validate-metadata", "read", validate, COLLECTION_FORMAT, gives=("success", "details"))
    schema = COLLECTION_FORMAT.schema()
    site.get("/metadata/dataset-schema", "read", lambda call: {"json_schema": schema}, gives=("json_schema",))


def _reading(site: Api, datasets: Datasets) -> None:
    def fetch(call: Call) -> dict[str, Any]:
        entry = datasets.fetch(call.user, call.query["handle_id"])
        return {
            "status": status(True, "Found."),
            "item": entry.item,
            "roles": datasets.registry.roles(call.user, entry),
            "locked": entry.locked,
        }

    def presign(call: Call) -> dict[str, Any]:
        dataset, path = call.body["dataset_id"], call.body["file_path"]
        url = datasets.file_url(call.user, dataset, path, call.body["expires_in"])
        return {"dataset_id": dataset, "file_path": path, "presigned_url": url}

    def credentials(*, write: bool) -> Callable[[Call], dict[str, Any]]:
        def handler(call: Call) -> dict[str, Any]:
            wanted = call.body
            given = datasets.credentials(call.user, wanted["dataset_id"], write=write)
            console = "https://console.example.org/" if wanted["console_session_required"] else None
            return {"status": status(True, "Given."), "credentials": given, "console_session_url": console}

        return handler

    wanted = Object({"dataset_id": needed(ID), "file_path": needed(TEXT), "expires_in": given(Whole(1, 86400), 10800)})
    items = "/registry/items"
    site.get(f"{items}/fetch-dataset", "read", fetch, _HANDLE, gives=("status", "item", "roles", "locked"))
    site.post(
        f"{items}/list",
        "read",
        lambda call: subtype_page(datasets.registry, call.user, call.body, "DATASET"),
        Object(PAGE),
        gives=("status", "items", "pagination_key"),
        fails=BAD_PAGE,
    )
    site.post(f"{items}/generate-presigned-url", "read", presign, wanted, gives=("presigned_url",))
    prefix = "/registry/credentials/generate"
    more = {"gives": ("status", "credentials", "console_session_url"), "refuses": (400, 403)}
    site.post(f"{prefix}-read-access-credentials", "read", credentials(write=False), _CREDENTIALS, **more)
    site.post(f"{prefix}-write-access-credentials", "write", credentials(write=True), _CREDENTIALS, **more)


def _releasing(site: Api, datasets: Datasets) -> None:
    def ask(call: Call) -> dict[str, Any]:
        said = call.body
        datasets.request_release(call.user, said["dataset_id"], said["approver_id"], said["notes"])
        return {name: said[name] for name in ("dataset_id", "approver_id")} | {"details": "The approver was asked."}

    def act(call: Call) -> dict[str, Any]:
        said = call.body
        datasets.act_on_release(call.user, said["dataset_id"], approve=said["approve"], notes=said["notes"])
        return {"dataset_id": said["dataset_id"], "approved": said["approve"], "details": "The decision was kept."}

    request = Object({"dataset_id": needed(ID), "approver_id": needed(ID), "notes": needed(TEXT)})
    action = Object({"dataset_id": needed(ID), "approve": needed(FLAG), "notes": needed(TEXT)})
    reviewers = "/release/sys-reviewers"
    site.post("/release/approval-request", "write", ask, request, gives=("dataset_id", "approver_id", "details"))
    site.on(
        "PUT",
        "/release/action-approval-request",
        "write",
        act,
        body=action,
        gives=("dataset_id", "approved", "details"),
    )
    site.get(f"{reviewers}/list", "write", lambda call: datasets.reviewers(), gives=())
    site.post(
        f"{reviewers}/add",
        "write",
        lambda call: datasets.add_reviewer(call.query["reviewer_id"]),
        query=_REVIEWER,
        roles="sys-admin",
        gives=(),
    )
    site.on(
        "DELETE",
        f"{reviewers}/delete",
        "admin",
        lambda call: datasets.remove_reviewer(call.query["reviewer_id"]),
        query=_REVIEWER,
        roles="sys-admin",
        gives=(),
    )
