"""The data-store-api over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ivcap_flows.local.provena.datastore.format import CollectionFormat
from ivcap_flows.local.provena.datastore.state import Datasets
from ivcap_flows.local.provena.model import Id, Model, Whole
from ivcap_flows.local.provena.registry.listing import BAD_PAGE, Page, subtype_page
from ivcap_flows.local.provena.registry.routes import Revert, Version
from ivcap_flows.local.provena.registry.state import UnsuccessfulError
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import Api, Desk, fails, status

__all__ = ["api"]

_OTHER_TYPE = fails("The item is of another type.")


class _File(Model):
    dataset_id: Id
    file_path: str
    expires_in: Annotated[Whole, Field(ge=1, le=86400)] = 10800


class _Credentials(Model):
    dataset_id: Id
    console_session_required: bool


class _ReleaseRequest(Model):
    dataset_id: Id
    approver_id: Id
    notes: str


class _ReleaseDecision(Model):
    dataset_id: Id
    approve: bool
    notes: str


def api(desk: Desk, datasets: Datasets) -> Api:
    """Return the data-store-api."""
    site = Api(desk, "data-store-api", "entity-registry")
    site.check_access()
    _registering(site, datasets)
    _metadata(site, datasets)
    _reading(site, datasets)
    _releasing(site, datasets)
    _reviewers(site, datasets)
    return site


def _registering(site: Api, datasets: Datasets) -> None:
    unlinked = fails("The user is linked to no person, or the token has no email address.")

    @site.post("/register/mint-dataset", responses=unlinked)
    def mint(collection: CollectionFormat, user: User = site.write) -> Any:
        try:
            entry, session = datasets.mint(user, collection.model_dump())
        except UnsuccessfulError as error:
            nothing = dict.fromkeys(("handle", "s3_location", "register_create_activity_session_id"))
            return {"status": status(False, str(error))} | nothing
        return {
            "status": status(True, "The dataset was minted."),
            "handle": entry.id,
            "s3_location": entry.item["s3"],
            "register_create_activity_session_id": session,
        }

    @site.post("/register/update-metadata", responses=_OTHER_TYPE)
    def update(handle_id: Id, reason: str, collection: CollectionFormat, user: User = site.write) -> Any:
        entry = datasets.update(user, handle_id, collection.model_dump(), reason)
        return {
            "status": status(True, "The metadata was replaced."),
            "handle": entry.id,
            "s3_location": entry.item["s3"],
        }

    @site.put("/register/revert-metadata")
    def revert(wanted: Revert, user: User = site.write) -> Any:
        datasets.revert(user, wanted.id, wanted.history_id, wanted.reason)
        return {"status": status(True, "The metadata was reverted.")}

    @site.post("/register/version", responses=_OTHER_TYPE)
    def version(wanted: Version, user: User = site.write) -> Any:
        entry, session = datasets.version(user, wanted.id, wanted.reason)
        return {"new_version_id": entry.id, "version_job_session_id": session}


def _metadata(site: Api, datasets: Datasets) -> None:
    @site.post("/metadata/validate-metadata")
    def validate(collection: CollectionFormat, user: User = site.read) -> Any:
        try:
            datasets.check(collection.model_dump())
        except UnsuccessfulError as error:
            return status(False, str(error))
        return status(True, "The metadata is valid.")

    @site.get("/metadata/dataset-schema")
    def schema(user: User = site.read) -> Any:
        return {"json_schema": CollectionFormat.model_json_schema()}


def _reading(site: Api, datasets: Datasets) -> None:
    @site.get("/registry/items/fetch-dataset")
    def fetch(handle_id: Id, user: User = site.read) -> Any:
        entry = datasets.fetch(user, handle_id)
        return {
            "status": status(True, "Found."),
            "item": entry.item,
            "roles": datasets.registry.roles(user, entry),
            "locked": entry.locked,
        }

    @site.post("/registry/items/list", responses=fails(BAD_PAGE))
    def items(wanted: Page, user: User = site.read) -> Any:
        return subtype_page(datasets.registry, user, wanted, "DATASET")

    @site.post("/registry/items/generate-presigned-url")
    def presign(wanted: _File, user: User = site.read) -> Any:
        url = datasets.file_url(user, wanted.dataset_id, wanted.file_path, wanted.expires_in)
        return {"dataset_id": wanted.dataset_id, "file_path": wanted.file_path, "presigned_url": url}

    def credentials(user: User, wanted: _Credentials, *, write: bool) -> dict[str, Any]:
        given = datasets.credentials(user, wanted.dataset_id, write=write)
        console = "https://console.example.org/" if wanted.console_session_required else None
        return {"status": status(True, "Given."), "credentials": given, "console_session_url": console}

    @site.post("/registry/credentials/generate-read-access-credentials")
    def read_credentials(wanted: _Credentials, user: User = site.read) -> Any:
        return credentials(user, wanted, write=False)

    @site.post("/registry/credentials/generate-write-access-credentials")
    def write_credentials(wanted: _Credentials, user: User = site.write) -> Any:
        return credentials(user, wanted, write=True)


def _releasing(site: Api, datasets: Datasets) -> None:
    @site.post("/release/approval-request")
    def ask(wanted: _ReleaseRequest, user: User = site.write) -> Any:
        datasets.request_release(user, wanted.dataset_id, wanted.approver_id, wanted.notes)
        return {
            "dataset_id": wanted.dataset_id,
            "approver_id": wanted.approver_id,
            "details": "The approver was asked.",
        }

    @site.put("/release/action-approval-request")
    def act(wanted: _ReleaseDecision, user: User = site.write) -> Any:
        datasets.act_on_release(user, wanted.dataset_id, approve=wanted.approve, notes=wanted.notes)
        return {"dataset_id": wanted.dataset_id, "approved": wanted.approve, "details": "The decision was kept."}


def _reviewers(site: Api, datasets: Datasets) -> None:
    prefix = "/release/sys-reviewers"
    writer, admin = site.needs("write", "sys-admin"), site.needs("admin", "sys-admin")

    @site.get(f"{prefix}/list")
    def reviewers(user: User = site.write) -> Any:
        return datasets.reviewers()

    @site.post(f"{prefix}/add")
    def add(reviewer_id: Id, user: User = writer) -> Any:
        return datasets.add_reviewer(reviewer_id)

    @site.delete(f"{prefix}/delete")
    def delete(reviewer_id: Id, user: User = admin) -> Any:
        return datasets.remove_reviewer(reviewer_id)
