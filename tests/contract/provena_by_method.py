"""Uses all of Provena as its official Python client does, through the client's own methods.

Runs in an environment of its own with `provenaclient` installed and this project not; the argument is the token of the
embedded platforms' control API, by which the administrator's device is let in. Prints one JSON line: in `calls` how
often each method of the client was called, and for each part what was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import sys
import uuid
from pathlib import Path
from typing import Any

from counting import calls
from provena_calls import Json, administrator, count_interactive, counting_client, ended
from provena_official import collection, plain
from provenaclient import ProvenaClient
from provenaclient.models import AsyncAwaitSettings, RevertMetadata
from ProvenaInterfaces import AsyncJobAPI, AuthAPI, DataStoreAPI, RegistryAPI
from ProvenaInterfaces.ProvenanceAPI import ModelRunRecord, RegisterBatchModelRunRequest
from ProvenaInterfaces.RegistryModels import ItemSubType

QUICK = AsyncAwaitSettings(job_polling_interval=1)


async def common(part: Any, id: str, reason: str = "contract") -> Json:  # noqa: A002 - the platform's own word
    """What can be done to an item of any subtype."""
    settings = await part.get_auth_configuration(id)
    settings.general = ["metadata-read", "metadata-write"]
    await part.modify_auth_configuration(id, settings)
    await part.lock_resource(RegistryAPI.LockChangeRequest(id=id, reason=reason))
    locked = (await part.fetch(id)).locked
    await part.unlock_resource(RegistryAPI.LockChangeRequest(id=id, reason=reason))
    request = RegistryAPI.GeneralListRequest.model_validate(
        {
            "filter_by": {"record_type": "COMPLETE_ONLY"},
            "sort_by": {"sort_type": "DISPLAY_NAME", "ascending": True},
            "page_size": 5,
        }
    )
    listed = []
    while True:
        page = await part.list_items(request)
        listed += [each.id for each in page.items]
        request.pagination_key = page.pagination_key
        if page.pagination_key is None:
            break
    return {
        "id": id,
        "schema": (await part.get_schema()).json_schema,
        "roles": plain(await part.get_auth_roles()),
        "access": (await part.evaluate_auth_access(id)).roles,
        "configuration": plain(await part.get_auth_configuration(id)),
        "locked": locked,
        "locks": plain(await part.get_lock_history(id))["history"],
        "listed": listed,
        "fetched": plain(await part.fetch(id)),
    }


async def edited(part: Any, info: Any, **change: Any) -> Json:
    """What can be done to an item of a subtype that users write themselves."""
    assert (await part.validate_item(info)).status.success
    created = await part.create_item(info)
    id = created.created_item.id  # noqa: A001
    seed = (await part.seed_item()).seeded_item.id
    seen = await part.fetch(seed, seed_allowed=True)
    filled = (await part.seed_item()).seeded_item.id
    await part.update(filled, info, None)
    await part.update(id, info.model_copy(update=change), "changed")
    changed = plain((await part.fetch(id)).item)
    await part.revert_item(RegistryAPI.ItemRevertRequest(id=id, history_id=0, reason="as it was"))
    read = {
        "session": created.register_create_activity_session_id,
        "seed": seed,
        "seed_fetched": plain(seen),
        "filled": filled,
        "changed": {name: changed[name] for name in change},
    }
    if hasattr(part, "version_item"):
        versioned = await part.version_item(RegistryAPI.VersionRequest(id=filled, reason="again"))
        read |= {"version": versioned.new_version_id, "version_session": versioned.version_job_session_id}
    return read | await common(part, id)


async def world(client: ProvenaClient, name: str) -> Json:
    """Items of each subtype that users write, edited."""
    registry, url = client.registry, "https://example.org/model"
    person = {"display_name": name, "email": "ada@example.org", "first_name": "Ada", "last_name": name}
    model = {"display_name": name, "name": name, "description": "d", "documentation_url": url, "source_url": url}
    resource = {"key": "forcing", "description": "f", "usage_type": "FORCING_DATA"}
    template = {"display_name": name, "deferred_resources": [resource]}
    study = {"display_name": name, "title": name, "description": "d", "user_metadata": {"k": "é"}}
    made = await asyncio.gather(
        edited(registry.person, RegistryAPI.PersonDomainInfo(**person, ethics_approved=True), first_name="Adele"),
        edited(registry.organisation, RegistryAPI.OrganisationDomainInfo(display_name=name, name=name), name="Changed"),
        edited(registry.study, RegistryAPI.StudyDomainInfo.model_validate(study), title="Changed"),
        edited(registry.model, RegistryAPI.ModelDomainInfo.model_validate(model), description="Changed"),
        edited(
            registry.dataset_template,
            RegistryAPI.DatasetTemplateDomainInfo.model_validate(template),
            description="Changed",
        ),
    )
    read = dict(zip(("PERSON", "ORGANISATION", "STUDY", "MODEL", "DATASET_TEMPLATE"), made, strict=True))
    workflow = RegistryAPI.ModelRunWorkflowTemplateDomainInfo.model_validate(
        {
            "display_name": name,
            "software_id": read["MODEL"]["id"],
            "input_templates": [{"template_id": read["DATASET_TEMPLATE"]["id"]}],
            "output_templates": [{"template_id": read["DATASET_TEMPLATE"]["filled"]}],
            "annotations": {"required": ["cfg"]},
        }
    )
    part = registry.model_run_workflow
    read["MODEL_RUN_WORKFLOW_TEMPLATE"] = await edited(part, workflow, display_name="Changed")
    return read


async def activities(client: ProvenaClient, of_model: Json, run: str) -> Json:
    """The items that jobs made: of a creation, a version and a run."""
    registry = client.registry
    created = (await ended(client, of_model["session"])).result
    versioned = (await ended(client, of_model["version_session"])).result
    ids = {"CREATE": created["creation_activity_id"], "VERSION": versioned["version_activity_id"], "MODEL_RUN": run}
    parts: Json = {
        "CREATE": registry.create_activity,
        "VERSION": registry.version_acitvity,
        "MODEL_RUN": registry.model_run,
    }
    infos = {
        "CREATE": RegistryAPI.CreateDomainInfo,
        "VERSION": RegistryAPI.VersionDomainInfo,
        "MODEL_RUN": RegistryAPI.ModelRunDomainInfo,
    }
    read = {}
    for subtype, part in parts.items():
        item = (await part.fetch(ids[subtype])).item
        info = infos[subtype].model_validate(item.model_dump())
        read[subtype] = {"valid": plain(await part.validate_item(info))["status"]["success"]}
        read[subtype] |= await common(part, ids[subtype])
    return read


async def datastore(client: ProvenaClient, organisation: str) -> Json:
    store, name = client.datastore, f"dataset {uuid.uuid4().hex[:8]}"
    health = (await store.get_health_check()).message
    minted = await store.mint_dataset(collection(organisation, name))
    id = minted.handle  # noqa: A001
    await store.update_dataset_metadata(id, "renamed", collection(organisation, f"{name} renamed"))
    changed = (await store.fetch_dataset(id)).item.display_name
    await store.revert_dataset_metadata(RevertMetadata(id=id, history_id=0, reason="as it was"))
    asked = DataStoreAPI.CredentialsRequest(dataset_id=id, console_session_required=False)
    presigned = DataStoreAPI.PresignedURLRequest(dataset_id=id, file_path="metadata.json")
    url = (await store.generate_dataset_presigned_url(presigned)).presigned_url
    read_keys = await store.generate_read_access_credentials(asked)
    write_keys = await store.generate_write_access_credentials(asked)
    version = (await store.version_dataset(RegistryAPI.VersionRequest(id=id, reason="more"))).new_version_id

    at_hand = await store.interactive_dataset(version)
    assert (await at_hand.fetch_dataset()).item.id == version
    await at_hand.revert_dataset_metadata(0, "at hand")
    keys = [
        await at_hand.generate_read_access_credentials(False),
        await at_hand.generate_write_access_credentials(False),
    ]
    newest = await at_hand.version("at hand")

    page = RegistryAPI.NoFilterSubtypeListRequest(page_size=2)
    listed = [each.id for each in (await store.list_datasets(page)).items]
    whole = [each.id for each in await store.list_all_datasets()]
    each = [one.id async for one in store.for_all_datasets(RegistryAPI.NoFilterSubtypeListRequest(), total_limit=3)]
    found = await store.search_datasets(name)
    return {
        "health": health,
        "id": id,
        "changed": changed,
        "url": url,
        "keys": sorted({*plain(read_keys.credentials), *plain(write_keys.credentials)}),
        "at_hand": [each.credentials.aws_access_key_id != "" for each in keys],
        "version": version,
        "newest": newest.new_version_id,
        "listed": listed,
        "whole": whole,
        "each": each,
        "found": [each.id for each in found.items],
        "fetched": plain((await store.fetch_dataset(id)).item),
    }


async def prov(client: ProvenaClient, items: Json, name: str) -> Json:
    api = client.prov_api
    template, made = (items["DATASET_TEMPLATE"][end] for end in ("id", "filled"))
    workflow, study = items["MODEL_RUN_WORKFLOW_TEMPLATE"]["id"], items["STUDY"]["id"]
    person = (await client.auth_api.get_link_lookup_username()).person_id
    organisation = items["ORGANISATION"]["id"]
    source, product = [
        (await client.datastore.mint_dataset(collection(organisation, f"{name} {end}"))).handle for end in ("in", "out")
    ]

    def dataset(template: str, id: str) -> Json:  # noqa: A002
        return {
            "dataset_template_id": template,
            "dataset_id": id,
            "dataset_type": "DATA_STORE",
            "resources": {"forcing": "f.nc"},
        }

    def record(n: int) -> ModelRunRecord:
        return ModelRunRecord.model_validate(
            {
                "workflow_template_id": workflow,
                "inputs": [dataset(template, source)],
                "outputs": [dataset(made, product)],
                "annotations": {"cfg": str(n)},
                "display_name": f"{name} {n}",
                "description": "d",
                "study_id": study,
                "associations": {"modeller_id": person},
                "start_time": 100,
                "end_time": 200,
            }
        )

    session = (await api.register_model_run(record(0))).session_id
    batch = (
        await api.register_batch_model_runs(RegisterBatchModelRunRequest(records=[record(1), record(2)]))
    ).session_id
    run = (await ended(client, session)).result["record"]["id"]
    updated = (await api.update_model_run(run, "better", record(3))).session_id
    batch_id = (await ended(client, batch)).result["batch_id"]
    await ended(client, updated)
    await client.job_api.await_job_completion(batch, QUICK)
    await client.job_api.await_successful_job_completion(updated, QUICK)

    wanted = AsyncJobAPI.ListByBatchRequest(batch_id=batch_id)
    children: list[Any] = []
    while len(children) < 2 or any(each.status != "SUCCEEDED" for each in children):
        children = (await client.job_api.list_jobs_in_batch(wanted)).jobs
        await asyncio.sleep(0.1)

    header = await api.generate_csv_template(workflow)
    [columns] = csv.reader(io.StringIO(header))
    cells = {
        "display name": "by csv",
        "description": "d",
        "agent id": person,
        "study id": study,
        "execution start time (YYYY-MM-DD HH:MM:SS+HH:MM)": "2024-01-01 00:00:00+00:00",
        "execution end time (YYYY-MM-DD HH:MM:SS+HH:MM)": "2024-01-02 00:00:00+00:00",
        "annotation: cfg": "4",
        columns[0]: workflow,
    }
    for column in columns:
        if column.startswith("Input dataset id"):
            cells[column] = source
        elif column.startswith("Output dataset id"):
            cells[column] = product
        elif "resource" in column:
            cells[column] = "f.nc"
    file = io.StringIO()
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    writer.writerow(cells)
    converted = await api.convert_model_runs(file.getvalue())
    Path("runs.csv").write_text(file.getvalue(), newline="")
    from_file = await api.convert_model_runs_to_csv_with_file("runs.csv")
    explored = {
        "upstream": await api.explore_upstream(product, depth=4),
        "downstream": await api.explore_downstream(source, depth=4),
        "contributing_datasets": await api.get_contributing_datasets(product, depth=4),
        "effected_datasets": await api.get_effected_datasets(source, depth=4),
        "contributing_agents": await api.get_contributing_agents(product, depth=4),
        "effected_agents": await api.get_effected_agents(source, depth=4),
    }
    return {
        "health": (await api.get_health_check()).message,
        "run": run,
        "source": source,
        "product": product,
        "batch": batch_id,
        "sessions": [session, batch, updated],
        "csv": file.getvalue(),
        "template": header,
        "regenerated": await api.regenerate_csv_from_model_run_batch(batch_id),
        "converted": plain(converted),
        "from_file": plain(from_file),
        "explored": {query: plain(answer)["graph"] for query, answer in explored.items()},
        "workflow": workflow,
    }


async def jobs(client: ProvenaClient, admin: ProvenaClient, done: Json) -> Json:
    api, batch = client.job_api, AsyncJobAPI.ListByBatchRequest(batch_id=done["batch"], limit=1)
    anybody = admin.job_api.admin
    by_batch = AsyncJobAPI.AdminListByBatchRequest(batch_id=done["batch"], limit=1)
    # The client moves on the request that it is given, so each call has its own.
    # Only this user's, as the jobs of others may be reports, which the client's models do not know.
    mine = AsyncJobAPI.AdminListJobsRequest(username_filter="embedded-user", limit=5)
    launch = AsyncJobAPI.AdminLaunchJobRequest(
        job_type="REGISTRY", job_sub_type="REGISTRY_WAKE_UP", job_payload={"reason": "contract"}
    )
    launched = (await anybody.launch_job(launch)).session_id
    return {
        "health": (await api.get_health_check()).message,
        "rows": [plain((await api.fetch_job(session)).job) for session in done["sessions"]],
        "page": [each.session_id for each in (await api.list_jobs(AsyncJobAPI.ListJobsRequest(limit=3))).jobs],
        "all": [each.session_id for each in await api.list_all_jobs(AsyncJobAPI.ListJobsRequest(), limit=25)],
        "each": [each.session_id async for each in api.for_all_jobs(AsyncJobAPI.ListJobsRequest(), limit=25)],
        "children": [plain(each) for each in await api.list_all_jobs_in_batch(batch.model_copy())],
        "each_child": [each.session_id async for each in api.for_all_jobs_in_batch(batch.model_copy())],
        "admin": {
            "launched": launched,
            "row": plain((await anybody.get_job(done["sessions"][0])).job),
            "page": [each.session_id for each in (await anybody.list_jobs(mine.model_copy())).jobs],
            "all": [each.session_id for each in await anybody.list_all_jobs(mine.model_copy(), limit=5)],
            "each": [each.session_id async for each in anybody.for_all_jobs(mine.model_copy(), limit=5)],
            "batch": [each.session_id for each in (await anybody.list_job_batch(by_batch.model_copy())).jobs],
            "whole_batch": [each.session_id for each in await anybody.list_all_jobs_in_batch(by_batch.model_copy())],
            "each_of_batch": [each.session_id async for each in anybody.for_all_jobs_in_batch(by_batch.model_copy())],
        },
    }


async def auth(client: ProvenaClient, admin: ProvenaClient, unlinked: ProvenaClient) -> Json:
    api, manage = client.auth_api, admin.auth_api.admin
    report = (await api.get_user_generate_access_report()).report
    for component in report.components:
        for role in component.component_roles:
            role.access_granted = role.access_granted or role.role_name == "job-service-read"
    await api.post_user_request_change(report, send_email=False)
    pending = plain(await api.get_user_pending_request_history())["items"]
    request = {"username": pending[0]["username"], "request_id": pending[0]["request_id"]}
    await manage.post_add_note(AuthAPI.RequestAddNote(note="looked at", **request))
    seen = {
        "all": plain(await manage.get_all_request_history())["items"],
        "all_pending": plain(await manage.get_all_pending_request_history())["items"],
        "of_user": plain(await manage.get_user_request_history(request["username"]))["items"],
        "pending_of_user": plain(await manage.get_user_pending_request_history(request["username"]))["items"],
    }
    change = AuthAPI.AccessRequestStatusChange(desired_state="DENIED_PENDING_DELETION", **request)
    await manage.post_change_request_state(False, change)
    history = plain(await api.get_user_request_history())["items"]

    group = f"group-{uuid.uuid4().hex[:8]}"
    described = AuthAPI.UserGroupMetadata(id=group, display_name="A group", description="d")
    await manage.post_add_group(described)
    await manage.put_update_group(described.model_copy(update={"description": "Changed"}))
    user = AuthAPI.GroupUser(username=request["username"], email="ada@example.org", first_name="Ada")
    await manage.post_groups_add_member(group, user)
    await manage.post_groups_add_member(group, AuthAPI.GroupUser(username="guest"))
    await manage.delete_remove_member(group, "guest")
    exported = (await manage.get_export_groups()).items
    imported = AuthAPI.GroupsImportRequest(import_mode="ADD_OR_OVERWRITE", trial_mode=True, items=exported)
    by_admin = {
        "groups": plain(await manage.get_list_groups())["groups"],
        "group": plain(await manage.get_describe_group(group))["group"],
        "members": plain(await manage.get_list_members(group))["group"],
        "member": (await manage.get_check_user_membership(request["username"], group)).is_member,
        "imported": plain(await manage.post_import_groups(imported)),
    }
    by_user = {
        "groups": plain(await api.get_list_groups())["groups"],
        "group": plain(await api.get_describe_group(group))["group"],
        "members": plain(await api.get_list_group_members(group))["group"],
        "membership": plain(await api.get_list_membership())["groups"],
    }
    return {
        "health": (await api.get_health_check()).message,
        "report": plain((await api.get_user_generate_access_report()).report),
        "pending": pending,
        "seen": seen,
        "history": history,
        "group": group,
        "by_admin": by_admin,
        "by_user": by_user,
        "link": await link(admin, unlinked),
    }


async def link(admin: ProvenaClient, unlinked: ProvenaClient) -> Json:
    """A person is linked to a user by the user, then by the administrator, and is free in the end."""
    manage, api, name = admin.auth_api.admin, unlinked.auth_api, "embedded-unlinked"
    before = (await api.get_link_lookup_username()).success
    info = RegistryAPI.PersonDomainInfo(
        display_name="Uma", email="uma@example.org", first_name="Uma", last_name="U", ethics_approved=True
    )
    person = (await unlinked.registry.person.create_item(info)).created_item.id
    wanted = AuthAPI.UserLinkUserAssignRequest(person_id=person)
    valid = (await api.post_link_validate(wanted)).status.success
    await api.post_link_assign(wanted)
    linked = (await api.get_link_lookup_username(name)).person_id
    usernames = (await manage.get_link_reverse_lookup_username(person)).usernames
    await manage.delete_clear_link(name)
    await manage.post_link_assign(AuthAPI.AdminLinkUserAssignRequest(username=name, person_id=person))
    by_admin = (await manage.get_link_lookup_username(name)).person_id
    await manage.delete_clear_link(name)
    return {
        "before": before,
        "valid": valid,
        "linked": [linked == person, by_admin == person],
        "usernames": usernames,
        "after": (await api.get_link_lookup_username()).success,
    }


async def general(client: ProvenaClient, study: str, name: str) -> Json:
    """The registry across subtypes, and its search."""
    request = RegistryAPI.GeneralListRequest.model_validate({"filter_by": {"item_subtype": "STUDY"}, "page_size": 50})
    listed = (await client.registry.list_general_registry_items(request)).items
    found = await client.search.search_registry(name, 20, None)
    models = await client.search.search_registry(name, 20, ItemSubType.MODEL)
    return {
        "health": (await client.registry.get_health_check()).message,
        "fetched": (await client.registry.general_fetch_item(study)).item,
        "listed": listed,
        "counted": await client.registry.list_registry_items_with_count(),
        "found": plain(found)["results"],
        "models": plain(models)["results"],
    }


async def use(control: str) -> Json:
    count_interactive()
    client, unlinked = counting_client(), counting_client("PROVENA_OFFLINE_TOKEN_UNLINKED")
    admin = administrator(control)
    name = f"method {uuid.uuid4().hex[:8]}"
    items = await world(client, name)
    stored, runs = await asyncio.gather(
        datastore(client, items["ORGANISATION"]["id"]),
        prov(client, items, name),
    )
    made, listed, accounts, across = await asyncio.gather(
        activities(client, items["MODEL"], runs["run"]),
        jobs(client, admin, runs),
        auth(client, admin, unlinked),
        general(client, items["STUDY"]["id"], name),
    )
    return {
        "name": name,
        "items": items | made,
        "datastore": stored,
        "prov": runs,
        "jobs": listed,
        "auth": accounts,
        "general": across,
    }


def main(control: str) -> int:
    # The client reports its polling, and the login its code, on stdout.
    with contextlib.redirect_stdout(sys.stderr):
        read = asyncio.run(use(control))
    print(json.dumps({"calls": calls, **read}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
