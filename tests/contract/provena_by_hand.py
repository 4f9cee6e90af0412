"""Uses of Provena what its official Python client has no method for, or a broken one: by its lower clients, or by HTTP.

Runs as `provena_by_method.py` does, on what that made: its output is the second argument, and the secret of the
realm's service client the third. In `broken` is what each broken method ended in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
from counting import calls
from provena_by_method import common
from provena_calls import ADMIN, Json, administrator, count_methods, counting_client
from provena_official import collection
from provenaclient import ProvenaClient
from provenaclient.modules.registry import DatasetClient
from ProvenaInterfaces import AsyncJobAPI, AuthAPI, DataStoreAPI, HandleAPI, RegistryAPI
from ProvenaInterfaces.ProvenanceAPI import GenerateReportRequest

SERVICE = "embedded-service"


async def by_http(client: ProvenaClient, api: str, method: str, path: str, **more: Any) -> Any:
    """The body of a reply to the client's user; `api` names the API as its variable does."""
    calls[f"{method} {path}"] += 1
    async with httpx.AsyncClient(timeout=30) as http:
        reply = await http.request(
            method, os.environ[f"PROVENA_{api}_API"] + path, auth=client._auth.get_auth(), **more
        )
    assert reply.status_code == 200, reply.text
    return reply.json()


async def broken(call: Any) -> str:
    """What a method of the official client ends in that cannot work."""
    try:
        await call()
    except Exception as error:
        return type(error).__name__
    return ""


async def datastore(client: ProvenaClient, other: ProvenaClient, admin: ProvenaClient, told: Json) -> Json:
    dataset, organisation = told["datastore"]["id"], told["items"]["ORGANISATION"]["id"]
    format = collection(organisation, "valid")  # noqa: A001 - the platform's own word
    body = json.loads(format.model_dump_json(exclude_none=True))
    valid = await by_http(client, "DATA_STORE", "POST", "/metadata/validate-metadata", json=body)
    schema = await by_http(client, "DATA_STORE", "GET", "/metadata/dataset-schema")

    approver = (await other.auth_api.get_link_lookup_username()).person_id
    request = {"dataset_id": dataset, "approver_id": approver, "notes": "please"}
    action = {"dataset_id": dataset, "approve": True, "notes": "fine"}
    review = client.datastore.review
    failed = {
        "datastore.validate_dataset_metadata": await broken(lambda: client.datastore.validate_dataset_metadata(format)),
        "datastore.review.add_dataset_reviewer": await broken(
            lambda: admin.datastore.review.add_dataset_reviewer(approver)
        ),
        "datastore.review.delete_dataset_reviewer": await broken(
            lambda: admin.datastore.review.delete_dataset_reviewer(approver)
        ),
        "datastore.review.dataset_approval_request": await broken(
            lambda: review.dataset_approval_request(DataStoreAPI.ReleaseApprovalRequest(**request))
        ),
        "datastore.review.action_approval_request": await broken(
            lambda: review.action_approval_request(DataStoreAPI.ActionApprovalRequest(**action))
        ),
    }
    reviewer = {"params": {"reviewer_id": approver}}
    await by_http(admin, "DATA_STORE", "POST", "/release/sys-reviewers/add", **reviewer)
    reviewers = await by_http(client, "DATA_STORE", "GET", "/release/sys-reviewers/list")
    await by_http(client, "DATA_STORE", "POST", "/release/approval-request", json=request)
    waiting = {"filter_by": {"release_reviewer": approver}, "sort_by": {"sort_type": "RELEASE_TIMESTAMP"}}
    listed = await by_http(other, "REGISTRY", "POST", "/registry/entity/dataset/user/releases", json=waiting)
    await by_http(other, "DATA_STORE", "PUT", "/release/action-approval-request", json=action)
    await by_http(admin, "DATA_STORE", "DELETE", "/release/sys-reviewers/delete", **reviewer)
    return {
        "valid": valid["success"],
        "schema": schema["json_schema"],
        "approver": approver,
        "reviewers": reviewers,
        "for_review": [each["id"] for each in listed["dataset_items"]],
        "status": (await client.datastore.fetch_dataset(dataset)).item.release_status.value,
        "broken": failed,
    }


async def registry(client: ProvenaClient, told: Json) -> Json:
    model, dataset = told["items"]["MODEL"]["id"], told["datastore"]["version"]
    part = DatasetClient(client._auth, client._config, client._registry_client)
    count_methods(part, "DatasetClient.")
    item = (await part.fetch(dataset)).item
    valid = await part.validate_item(RegistryAPI.DatasetDomainInfo.model_validate(item.model_dump()))
    failed = {
        "registry.dataset": "" if hasattr(client.registry, "dataset") else "AttributeError",
        "registry.model.get_lock_status": await broken(lambda: client.registry.model.get_lock_status(model)),
        "registry.get_current_provena_version": await broken(client.registry.get_current_provena_version),
    }
    asked: Json = {"params": {"id": model}}
    return {
        "dataset": await common(part, dataset) | {"valid": valid.status.success},
        "locked": (await by_http(client, "REGISTRY", "GET", "/registry/entity/model/locks/locked", **asked))["locked"],
        "ui_schema": (await by_http(client, "REGISTRY", "GET", "/registry/entity/model/ui_schema"))["ui_schema"],
        "about": await by_http(client, "REGISTRY", "GET", "/registry/general/about/version"),
        "broken": failed,
    }


async def auth(client: ProvenaClient, admin: ProvenaClient, told: Json) -> Json:
    group, user = told["auth"]["group"], "embedded-user"
    failed = {
        "auth_api.get_check_membership": await broken(lambda: client.auth_api.get_check_membership(group)),
        "auth_api.admin.get_list_group_membership": await broken(
            lambda: admin.auth_api.admin.get_list_group_membership(user)
        ),
    }
    member = {"params": {"group_id": group}}
    path = "/groups/admin/list_user_membership"
    groups = (await by_http(admin, "AUTH", "GET", path, params={"username": user}))["groups"]
    is_member = (await by_http(client, "AUTH", "GET", "/groups/user/check_membership", **member))["is_member"]
    spare = f"group-{uuid.uuid4().hex[:8]}"
    await admin.auth_api.admin.post_add_group(AuthAPI.UserGroupMetadata(id=spare, display_name="s", description="s"))
    await admin.auth_api.admin.post_groups_add_member(spare, AuthAPI.GroupUser(username=user))
    wanted = {"group_id": spare, "member_usernames": [user]}
    await by_http(admin, "AUTH", "POST", "/groups/admin/remove_members", json=wanted)
    await by_http(admin, "AUTH", "DELETE", "/groups/admin/remove_group", params={"id": spare})
    left = [each.id for each in (await client.auth_api.get_list_groups()).groups]
    return {
        "groups": [each["id"] for each in groups],
        "is_member": is_member,
        "spare_is_gone": spare not in left,
        "broken": failed,
    }


async def row(client: ProvenaClient, session: str) -> Json:
    """The row of a job that has ended, which may be of a type that the client does not know."""
    while True:
        async with httpx.AsyncClient(timeout=30) as http:
            calls["GET /jobs/user/fetch"] += 1
            reply = await http.get(
                os.environ["PROVENA_JOB_API"] + "/jobs/user/fetch",
                params={"session_id": session},
                auth=client._auth.get_auth(),
            )
        job = reply.json().get("job")
        if job is not None and job["status"] in ("SUCCEEDED", "FAILED"):
            found: Json = job
            return found
        await asyncio.sleep(0.1)


async def prov(client: ProvenaClient, other: ProvenaClient, told: Json) -> Json:
    """A run without a study is linked to one; and reports, which are of another user as they spoil lists of jobs."""
    study, run = told["items"]["STUDY"]["id"], told["prov"]["run"]
    record = json.loads(json.dumps(told["items"]["MODEL_RUN"]["fetched"]["item"]["record"])) | {"study_id": None}
    made = await by_http(client, "PROV", "POST", "/model_run/register", json=record)
    unlinked = (await row(client, made["session_id"]))["result"]["record"]["id"]
    wanted = {"params": {"model_run_id": unlinked, "study_id": study}}
    linked = await by_http(client, "PROV", "POST", "/model_run/edit/link_to_study", **wanted)
    item = (await client.registry.model_run.fetch(unlinked)).item

    request = {"id": run, "item_subtype": "MODEL_RUN", "depth": 1}
    session = (await by_http(other, "PROV", "POST", "/explore/generate/report", json=request))["session_id"]
    report = await row(other, session)
    async with httpx.AsyncClient(timeout=30) as http:
        document = (await http.get(report["result"]["report_url"])).content
    await other.prov_api.generate_report(GenerateReportRequest.model_validate(request), "./")
    [written] = Path().glob("*.docx")
    failed = {
        "prov_api.generate_report": "" if written.read_bytes()[:2] == b"PK" else written.read_text()[:13],
        "job_api.fetch_job of a report": await broken(lambda: other.job_api.fetch_job(session)),
        "job_api.list_jobs with a report": await broken(lambda: other.job_api.list_jobs(AsyncJobAPI.ListJobsRequest())),
    }
    return {
        "run": unlinked,
        "study": [item.record.study_id, study],
        "linking": (await row(client, linked["session_id"]))["status"],
        "report": [report["status"], document[:2].decode()],
        "broken": failed,
    }


async def ids(admin: ProvenaClient) -> Json:
    mint = HandleAPI.MintRequest(value_type="DESC", value="first")
    failed = {"id_api.mint": await broken(lambda: admin.id_api.mint(mint))}
    api = admin._id_client
    count_methods(api, "IdServiceClient.")
    id = (await api.mint(mint)).id  # noqa: A001 - the platform's own word
    await api.add_value(HandleAPI.AddValueRequest(id=id, value_type="URL", value="https://example.org/"))
    await api.add_value_by_index(HandleAPI.AddValueIndexRequest(id=id, index=7, value_type="DESC", value="seventh"))
    change = {"id": id, "index": 1, "value": "changed"}
    failed["_id_client.modify_by_index"] = await broken(
        lambda: api.modify_by_index(HandleAPI.ModifyRequest.model_validate(change))
    )
    await by_http(admin, "HANDLE", "PUT", "/handle/modify_by_index", json=change)
    await api.remove_by_index(HandleAPI.RemoveRequest(id=id, index=7))
    return {
        "id": id,
        "handle": await by_http(admin, "HANDLE", "GET", "/handle/get", params={"id": id}),
        "listed": (await api.list()).ids,
        "broken": failed,
    }


async def login(client: ProvenaClient, control: str, secret: str) -> Json:
    """The grants that the client has no class for, or asks for under a name that the realm does not know."""
    oidc = f"{os.environ['PROVENA_KEYCLOAK']}/realms/{os.environ['PROVENA_REALM']}/protocol/openid-connect"
    async with httpx.AsyncClient(timeout=30) as http:
        calls["POST client_credentials"] += 1
        grant = {"grant_type": "client_credentials", "client_id": SERVICE, "client_secret": secret}
        service = (await http.post(f"{oidc}/token", data=grant)).json()
        calls["POST device for an offline token"] += 1
        asked = {"client_id": "automated-access", "scope": "offline_access roles"}
        device = (await http.post(f"{oidc}/auth/device", data=asked)).json()
        body = {"user_code": device["user_code"], "account": ADMIN}
        control_url = httpx.URL(oidc).join("/_embedded/login")
        await http.post(control_url, json=body, headers={"X-Embedded-Control": control})
        grant = {
            "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
            "device_code": device["device_code"],
            "client_id": "automated-access",
        }
        offline = (await http.post(f"{oidc}/token", data=grant)).json()
    whoami = await by_http(client, "REGISTRY", "GET", "/check-access/check-general-access")
    return {
        "service": sorted(service.keys() & {"access_token", "token_type"}),
        "offline": offline.get("refresh_expires_in"),
        "user": whoami["username"],
    }


async def use(control: str, told: Json, secret: str) -> Json:
    client, other = counting_client(), counting_client("PROVENA_OFFLINE_TOKEN_2")
    admin = administrator(control)
    parts = {
        "datastore": datastore(client, other, admin, told),
        "registry": registry(client, told),
        "auth": auth(client, admin, told),
        "prov": prov(client, other, told),
        "ids": ids(admin),
        "login": login(client, control, secret),
    }
    return dict(zip(parts, await asyncio.gather(*parts.values()), strict=True))


def main(control: str, told: Path, secret: str) -> int:
    # The client reports its polling, and the login its code, on stdout.
    with contextlib.redirect_stdout(sys.stderr):
        read = asyncio.run(use(control, json.loads(told.read_text()), secret))
    print(json.dumps({"calls": calls, **read}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
