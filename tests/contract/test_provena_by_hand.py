"""All that users of Provena do works on the embedded one by the official Python client, and ours reads the same.

`BY_METHOD` and `BY_HAND` together are all of it: what the official client has a method for, and what it cannot do, with
the call that stands in and why. Both are held against counted calls, and each broken method against what it ends in.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ivcap_flows.local.provena.platform import service_credentials
from ivcap_flows.loop import run
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.models import Item

pytestmark = [pytest.mark.contract, pytest.mark.long]

WRITTEN = {
    "ORGANISATION": "organisation",
    "PERSON": "person",
    "MODEL": "model",
    "MODEL_RUN_WORKFLOW_TEMPLATE": "model_run_workflow",
    "DATASET_TEMPLATE": "dataset_template",
    "STUDY": "study",
}
"""Subtype that users write -> the official client's module."""

MADE = {"MODEL_RUN": "model_run", "CREATE": "create_activity", "VERSION": "version_acitvity"}
"""Subtype that jobs make -> the official client's module, as it spells it."""

OF_ALL = {
    "fetch": "fetch",
    "list, filtered, sorted, in pages": "list_items",
    "validate": "validate_item",
    "schema": "get_schema",
    "access: evaluate": "evaluate_auth_access",
    "access: configuration": "get_auth_configuration",
    "access: modify": "modify_auth_configuration",
    "access: roles": "get_auth_roles",
    "lock": "lock_resource",
    "unlock": "unlock_resource",
    "lock history": "get_lock_history",
}
OF_WRITTEN = {"create": "create_item", "seed": "seed_item", "update": "update", "revert": "revert_item"}
VERSIONED = ("MODEL", "MODEL_RUN_WORKFLOW_TEMPLATE", "DATASET_TEMPLATE")

BY_METHOD = {
    "login: device code": "DeviceFlow.get_auth",
    "datastore: health": "datastore.get_health_check",
    "datastore: mint": "datastore.mint_dataset",
    "datastore: fetch": "datastore.fetch_dataset",
    "datastore: update metadata": "datastore.update_dataset_metadata",
    "datastore: revert metadata": "datastore.revert_dataset_metadata",
    "datastore: version": "datastore.version_dataset",
    "datastore: list a page": "datastore.list_datasets",
    "datastore: list all": "datastore.list_all_datasets",
    "datastore: for all": "datastore.for_all_datasets",
    "datastore: presigned URL": "datastore.generate_dataset_presigned_url",
    "datastore: read credentials": "datastore.generate_read_access_credentials",
    "datastore: write credentials": "datastore.generate_write_access_credentials",
    "datastore: search": "datastore.search_datasets",
    "datastore: a dataset at hand": "datastore.interactive_dataset",
    "datastore: fetch of a dataset at hand": "InteractiveDataset.fetch_dataset",
    "datastore: revert of a dataset at hand": "InteractiveDataset.revert_dataset_metadata",
    "datastore: version of a dataset at hand": "InteractiveDataset.version",
    "datastore: read credentials of a dataset at hand": "InteractiveDataset.generate_read_access_credentials",
    "datastore: write credentials of a dataset at hand": "InteractiveDataset.generate_write_access_credentials",
    "search: with a filter by subtype": "search.search_registry",
    "auth: health": "auth_api.get_health_check",
    "auth: access report": "auth_api.get_user_generate_access_report",
    "auth: request a change": "auth_api.post_user_request_change",
    "auth: request history": "auth_api.get_user_request_history",
    "auth: pending requests": "auth_api.get_user_pending_request_history",
    "auth: groups": "auth_api.get_list_groups",
    "auth: describe a group": "auth_api.get_describe_group",
    "auth: members of a group": "auth_api.get_list_group_members",
    "auth: membership": "auth_api.get_list_membership",
    "auth: look up a person link": "auth_api.get_link_lookup_username",
    "auth: assign a person link": "auth_api.post_link_assign",
    "auth: validate a person link": "auth_api.post_link_validate",
    "auth: administer requests": "auth_api.admin.get_all_request_history",
    "auth: administer pending requests": "auth_api.admin.get_all_pending_request_history",
    "auth: administer a user's requests": "auth_api.admin.get_user_request_history",
    "auth: administer a user's pending requests": "auth_api.admin.get_user_pending_request_history",
    "auth: administer notes": "auth_api.admin.post_add_note",
    "auth: administer states of requests": "auth_api.admin.post_change_request_state",
    "auth: administer groups, list": "auth_api.admin.get_list_groups",
    "auth: administer groups, describe": "auth_api.admin.get_describe_group",
    "auth: administer groups, members": "auth_api.admin.get_list_members",
    "auth: administer groups, check": "auth_api.admin.get_check_user_membership",
    "auth: administer groups, add": "auth_api.admin.post_add_group",
    "auth: administer groups, update": "auth_api.admin.put_update_group",
    "auth: administer groups, add a member": "auth_api.admin.post_groups_add_member",
    "auth: administer groups, remove a member": "auth_api.admin.delete_remove_member",
    "auth: administer groups, export": "auth_api.admin.get_export_groups",
    "auth: administer groups, import": "auth_api.admin.post_import_groups",
    "auth: administer links, look up": "auth_api.admin.get_link_lookup_username",
    "auth: administer links, reverse": "auth_api.admin.get_link_reverse_lookup_username",
    "auth: administer links, assign": "auth_api.admin.post_link_assign",
    "auth: administer links, clear": "auth_api.admin.delete_clear_link",
    "prov: health": "prov_api.get_health_check",
    "prov: register": "prov_api.register_model_run",
    "prov: register a batch": "prov_api.register_batch_model_runs",
    "prov: update": "prov_api.update_model_run",
    "prov: explore up": "prov_api.explore_upstream",
    "prov: explore down": "prov_api.explore_downstream",
    "prov: contributing datasets": "prov_api.get_contributing_datasets",
    "prov: effected datasets": "prov_api.get_effected_datasets",
    "prov: contributing agents": "prov_api.get_contributing_agents",
    "prov: effected agents": "prov_api.get_effected_agents",
    "prov: CSV template": "prov_api.generate_csv_template",
    "prov: convert CSV": "prov_api.convert_model_runs",
    "prov: convert a CSV file": "prov_api.convert_model_runs_to_csv_with_file",
    "prov: regenerate CSV": "prov_api.regenerate_csv_from_model_run_batch",
    "registry: health": "registry.get_health_check",
    "registry: fetch of any subtype": "registry.general_fetch_item",
    "registry: list across subtypes": "registry.list_general_registry_items",
    "registry: count": "registry.list_registry_items_with_count",
    "jobs: health": "job_api.get_health_check",
    "jobs: fetch": "job_api.fetch_job",
    "jobs: list a page": "job_api.list_jobs",
    "jobs: list all": "job_api.list_all_jobs",
    "jobs: for all": "job_api.for_all_jobs",
    "jobs: list a batch": "job_api.list_jobs_in_batch",
    "jobs: list all of a batch": "job_api.list_all_jobs_in_batch",
    "jobs: for all of a batch": "job_api.for_all_jobs_in_batch",
    "jobs: wait": "job_api.await_job_completion",
    "jobs: wait for success": "job_api.await_successful_job_completion",
    "jobs: administer, launch": "job_api.admin.launch_job",
    "jobs: administer, fetch": "job_api.admin.get_job",
    "jobs: administer, list": "job_api.admin.list_jobs",
    "jobs: administer, list all": "job_api.admin.list_all_jobs",
    "jobs: administer, for all": "job_api.admin.for_all_jobs",
    "jobs: administer, list a batch": "job_api.admin.list_job_batch",
    "jobs: administer, list all of a batch": "job_api.admin.list_all_jobs_in_batch",
    "jobs: administer, for all of a batch": "job_api.admin.for_all_jobs_in_batch",
}
"""Use of the platform -> the official client's method."""

for _subtype, _part in (WRITTEN | MADE).items():
    _uses = OF_ALL | (OF_WRITTEN if _subtype in WRITTEN else {})
    _uses |= {"version": "version_item"} if _subtype in VERSIONED else {}
    BY_METHOD |= {f"registry: {_subtype}: {use}": f"registry.{_part}.{method}" for use, method in _uses.items()}

ELSEWHERE = "its review module asks the auth API, which has no such route"
ID_SERVICE = "IDService keeps its lower client under one name and calls another, so no method of it works"

BY_HAND = {
    "login: client credentials": ("POST client_credentials", "no class for it"),
    "login: get an offline token": (
        "POST device for an offline token",
        "DeviceFlow sends `scopes`, not `scope`, empty",
    ),
    "login: who am I": ("GET /check-access/check-general-access", "no method"),
    "datastore: validate": ("POST /metadata/validate-metadata", "looks for a status in an answer that is one"),
    "datastore: schema": ("GET /metadata/dataset-schema", "no method"),
    "datastore: add a reviewer": ("POST /release/sys-reviewers/add", ELSEWHERE),
    "datastore: remove a reviewer": ("DELETE /release/sys-reviewers/delete", ELSEWHERE),
    "datastore: reviewers": ("GET /release/sys-reviewers/list", "no method"),
    "datastore: ask for a release": ("POST /release/approval-request", ELSEWHERE),
    "datastore: decide on a release": ("PUT /release/action-approval-request", ELSEWHERE),
    "datastore: list for review": ("POST /registry/entity/dataset/user/releases", "no method"),
    "registry: status of a lock": ("GET /registry/entity/model/locks/locked", "get_lock_status asks for the history"),
    "registry: UI schema": ("GET /registry/entity/model/ui_schema", "no method"),
    "registry: version of Provena": ("GET /registry/general/about/version", "takes it for the new version of an item"),
    "auth: check membership": ("GET /groups/user/check_membership", "sends `id`, not `group_id`"),
    "auth: administer groups, membership": (
        "GET /groups/admin/list_user_membership",
        "asks for the members of a group",
    ),
    "auth: administer groups, remove": ("DELETE /groups/admin/remove_group", "no method"),
    "auth: administer groups, remove members": ("POST /groups/admin/remove_members", "no method"),
    "prov: link to study": ("POST /model_run/edit/link_to_study", "no method"),
    "prov: report": ("POST /explore/generate/report", "writes the session's id into a file and calls it a document"),
    "jobs: fetch of a report": ("GET /jobs/user/fetch", "its models know no report, nor a page with one"),
    "ids: mint": ("IdServiceClient.mint", ID_SERVICE),
    "ids: add": ("IdServiceClient.add_value", ID_SERVICE),
    "ids: add by index": ("IdServiceClient.add_value_by_index", ID_SERVICE),
    "ids: list": ("IdServiceClient.list", ID_SERVICE),
    "ids: remove": ("IdServiceClient.remove_by_index", ID_SERVICE),
    "ids: modify": ("PUT /handle/modify_by_index", "the lower client sends POST"),
    "ids: get": ("GET /handle/get", "no method"),
}
"""Use of the platform -> the call that stands in for a method, and why there is none to use."""

BY_HAND |= {
    f"registry: DATASET: {use}": (f"DatasetClient.{method}", "Registry makes no DatasetClient, so one is made here")
    for use, method in OF_ALL.items()
}


@pytest.fixture(scope="module")
def ours(our_provena: ProvenaClient) -> ProvenaClient:
    """Our client of the same user."""
    return our_provena


@pytest.fixture(scope="module")
def control(served: Any) -> str:
    found: str = json.loads((served.directory / "server.json").read_text())["control"]
    return found


@pytest.fixture(scope="module")
def told(official: Any, control: str) -> dict[str, Any]:
    """What the official client did and read by its methods."""
    found: dict[str, Any] = official("provenaclient", "provena_by_method.py", control)
    return found


@pytest.fixture(scope="module")
def by_hand(official: Any, served: Any, control: str, told: Any, tmp_path_factory: Any) -> dict[str, Any]:
    """What was done where the official client has no method."""
    file = tmp_path_factory.mktemp("told") / "told.json"
    file.write_text(json.dumps(told))
    _, secret = service_credentials(served.directory)
    found: dict[str, Any] = official("provenaclient", "provena_by_hand.py", control, file, secret)
    return found


def bare(value: Any) -> Any:
    """Without nulls."""
    if isinstance(value, dict):
        return {name: bare(part) for name, part in value.items() if part is not None}
    return [bare(part) for part in value] if isinstance(value, list) else value


def plain(record: Any) -> Any:
    """A record of ours as it is on the wire; what an item states lies beside its envelope."""
    found = bare(record.model_dump(mode="json"))
    return found | found.pop("info") if isinstance(record, Item) else found


async def gather(records: AsyncIterator[Any]) -> list[Any]:
    return [record async for record in records]


def test_each_use_of_provena_was_made(told, by_hand, record_property):
    """Every method that users have was called, and every call that stands in for one that is missing or broken."""
    calls = {**told["calls"]}
    for name, count in by_hand["calls"].items():
        calls[name] = calls.get(name, 0) + count
    record_property("official provenaclient", calls)
    unused = [use for use, name in BY_METHOD.items() if not calls.get(name)]
    unused += [use for use, (name, _) in BY_HAND.items() if not calls.get(name)]
    assert unused == []
    assert not set(BY_METHOD) & set(BY_HAND)


def test_what_is_called_broken_is(by_hand):
    """Each method for which another call stands in fails, or writes what is no document."""
    broken = {name: end for part in by_hand.values() for name, end in part.get("broken", {}).items()}
    assert len(broken) > 10
    assert [name for name, end in broken.items() if not end] == []


@pytest.mark.parametrize("subtype", [*WRITTEN, *MADE, "DATASET"])
def test_a_subtype_is_read_alike(told, by_hand, ours, subtype):
    """Item and access, lock and history, schema and order of the list."""
    theirs = by_hand["registry"]["dataset"] if subtype == "DATASET" else told["items"][subtype]
    registry, id = ours.registry, theirs["id"]  # noqa: A001 - the platform's own word
    fetched = run(registry.fetch_with_access(subtype, id))
    assert plain(fetched.item) == bare(theirs["fetched"]["item"])
    assert sorted(fetched.roles) == sorted(theirs["fetched"]["roles"])
    assert (theirs["locked"], fetched.locked) == (True, False)
    assert run(registry.schema(subtype)) == theirs["schema"]
    assert sorted(run(registry.access.evaluate(subtype, id))) == sorted(theirs["access"])
    assert plain(run(registry.access.configuration(subtype, id))) == theirs["configuration"]
    assert theirs["configuration"]["general"] == ["metadata-read", "metadata-write"]
    assert [plain(role) for role in run(registry.access.roles(subtype))] == theirs["roles"]["roles"]
    assert [plain(event) for event in run(registry.locks.history(subtype, id))] == theirs["locks"]
    assert [event["action_type"] for event in theirs["locks"]] == ["LOCK", "UNLOCK"]
    listed = [item.id for item in run(gather(registry.list(subtype, sort="DISPLAY_NAME", ascending=True)))]
    assert [item for item in listed if item in theirs["listed"]] == theirs["listed"]
    assert id in theirs["listed"]


@pytest.mark.parametrize("subtype", WRITTEN)
def test_what_users_write_changes_alike(told, ours, subtype):
    """A seed waits for its content, an update shows and is reverted, a new version is made of what has versions."""
    theirs = told["items"][subtype]
    seed = run(ours.registry.fetch_with_access(subtype, theirs["seed"]))
    assert seed.is_seed
    assert plain(seed.item) == bare(theirs["seed_fetched"]["item"])
    assert theirs["seed_fetched"]["item_is_seed"]
    item = plain(run(ours.registry.fetch(subtype, theirs["id"])))
    assert all(item.get(name) != value for name, value in theirs["changed"].items())
    assert len(item["history"]) == 3
    assert ("version" in theirs) == (subtype in VERSIONED)
    if subtype in VERSIONED:
        newer = run(ours.registry.fetch(subtype, theirs["version"]))
        assert newer.versioning_info.previous_version == theirs["filled"]


def test_datasets_are_read_alike(told, by_hand, ours):
    """Listed, found and versioned; released by a reviewer in the end."""
    theirs, review = told["datastore"], by_hand["datastore"]
    everything = [item.id for item in run(gather(ours.datastore.list()))]
    assert set(theirs["whole"]) <= set(everything)
    assert theirs["whole"][: len(theirs["listed"])] == theirs["listed"]
    assert len(theirs["each"]) == 3
    assert theirs["id"] in theirs["found"]
    assert theirs["changed"].endswith("renamed")
    assert plain(run(ours.datastore.fetch_dataset(theirs["newest"])))["versioning_info"]["version"] == 3
    assert theirs["keys"] == ["aws_access_key_id", "aws_secret_access_key", "aws_session_token", "expiry"]
    assert review["valid"]
    assert run(ours.datastore.schema()) == review["schema"]
    assert review["approver"] in review["reviewers"]
    assert theirs["id"] in review["for_review"]
    assert (review["status"], run(ours.datastore.fetch_dataset(theirs["id"])).info.release_status) == (
        "RELEASED",
        "RELEASED",
    )


def edges(graph: Any) -> Any:
    links = graph["links"] if isinstance(graph, dict) else [plain(link) for link in graph]
    return sorted((link["source"], link["type"], link["target"]) for link in links)


def test_runs_are_explored_and_converted_alike(told, by_hand, ours):
    """Lineage both ways and the special queries, the CSV tools, a link to a study, a report."""
    theirs = told["prov"]
    found = {
        "upstream": run(ours.prov.explore(theirs["product"], "upstream", depth=2)),
        "downstream": run(ours.prov.explore(theirs["source"], "downstream", depth=2)),
    }
    for direction, lineage in found.items():
        assert theirs["run"] in {node.id for node in lineage.nodes}
        assert theirs["run"] in {node["id"] for node in theirs["explored"][direction]["nodes"]}
    special = {
        "contributing_datasets": ours.prov.contributing_datasets(theirs["product"], depth=4),
        "effected_datasets": ours.prov.effected_datasets(theirs["source"], depth=4),
        "contributing_agents": ours.prov.contributing_agents(theirs["product"], depth=4),
    }
    for query, asked in special.items():
        nodes = {node.id for node in run(asked).nodes}
        assert {node["id"] for node in theirs["explored"][query]["nodes"]} <= nodes
        assert theirs["run"] in nodes
    assert run(ours.prov.csv_template(theirs["workflow"])) == theirs["template"]
    converted = run(ours.prov.convert_csv(theirs["csv"]))
    assert [plain(record) for record in converted.new_records] == bare(theirs["converted"]["new_records"])
    assert theirs["from_file"] == theirs["converted"]
    assert run(ours.prov.regenerate_csv(theirs["batch"])) == theirs["regenerated"]
    by_other_calls = by_hand["prov"]
    assert by_other_calls["study"][0] == by_other_calls["study"][1]
    assert by_other_calls["linking"] == "SUCCEEDED"
    assert by_other_calls["report"] == ["SUCCEEDED", "PK"]


def test_jobs_are_read_alike(told, ours):
    """Rows with payload and result, the children of a batch, and lists in the same order."""
    theirs = told["jobs"]
    for row in theirs["rows"]:
        assert plain(run(ours.jobs.fetch(row["session_id"]))) == bare(row)
    children = {
        plain(row)["session_id"]: plain(row) for row in run(gather(ours.jobs.list_batch(told["prov"]["batch"])))
    }
    assert children == {row["session_id"]: bare(row) for row in theirs["children"]}
    assert len(children) == 2
    assert sorted(theirs["each_child"]) == sorted(children)
    assert set(theirs["admin"]["whole_batch"]) == set(children)
    assert theirs["admin"]["row"] == theirs["rows"][0]
    mine = {row.session_id for row in run(gather(ours.jobs.list()))}
    for name in ("page", "all", "each"):
        assert theirs[name]
        assert set(theirs[name]) | set(theirs["admin"][name]) <= mine


def test_accounts_are_read_alike(told, by_hand, ours):
    """Report and requests, groups, and the person that a user is linked to."""
    theirs, auth = told["auth"], ours.auth_api
    assert plain(run(auth.access_report())) == bare(theirs["report"])
    ids = [request["request_id"] for request in theirs["history"]]
    own = {request.request_id: plain(request) for request in run(auth.request_history())}
    for request in theirs["history"]:
        assert {name: request[name] for name in ("username", "status", "notes")}.items() <= own[
            request["request_id"]
        ].items()
    assert "looked at" in theirs["history"][0]["notes"]
    assert theirs["pending"][0]["request_id"] in ids
    for requests in theirs["seen"].values():
        assert theirs["pending"][0]["request_id"] in {request["request_id"] for request in requests}
    for by in ("by_user", "by_admin"):
        assert plain(run(auth.groups.describe(theirs["group"]))) == bare(theirs[by]["group"])
        members = [plain(member) for member in run(auth.groups.members(theirs["group"]))]
        assert members == bare(theirs[by]["members"]["users"])
        assert theirs["group"] in {group["id"] for group in theirs[by]["groups"]}
    assert [plain(group) for group in run(auth.groups.mine())] == bare(theirs["by_user"]["membership"])
    assert by_hand["auth"]["groups"] == [group["id"] for group in theirs["by_user"]["membership"]]
    assert (by_hand["auth"]["is_member"], theirs["by_admin"]["member"]) == (True, True)
    assert by_hand["auth"]["spare_is_gone"]
    assert theirs["link"] == {
        "before": False,
        "valid": True,
        "linked": [True, True],
        "usernames": ["embedded-unlinked"],
        "after": False,
    }


def test_the_registry_is_searched_and_listed_alike(told, by_hand, ours):
    """Across subtypes, with a filter; status, UI schema and release of what has no working method."""
    theirs, by_other_calls = told["general"], by_hand["registry"]
    model = told["items"]["MODEL"]["id"]
    models = [hit.id for hit in run(ours.search.registry(told["name"], subtype="MODEL", limit=20))]
    assert model in models
    assert set(models) == {hit["id"] for hit in theirs["models"]}
    assert {hit["id"] for hit in theirs["models"]} < {hit["id"] for hit in theirs["found"]}
    for item in theirs["listed"]:
        if item["record_type"] == "COMPLETE_ITEM":
            assert plain(run(ours.registry.fetch("STUDY", item["id"]))) == bare(item)
    assert theirs["counted"]["MODEL"] >= 3
    assert by_other_calls["locked"] == run(ours.registry.locks.locked("MODEL", model))
    assert by_other_calls["ui_schema"] == run(ours.registry.ui_schema("MODEL"))
    assert plain(run(ours.registry.about())) == by_other_calls["about"]
    study = told["items"]["STUDY"]["id"]
    stated = {name: part for name, part in theirs["fetched"].items() if name != "universal_partition_key"}
    assert plain(run(ours.registry.fetch_any(study))) == bare(stated)
    for part in ("datastore", "prov", "jobs", "auth", "general"):
        assert told[part]["health"] == "Health check successful."


def test_handles_and_logins_work_by_hand(by_hand):
    """A handle's values are changed by index; a service logs in, and a device gets a token that does not end."""
    handle = by_hand["ids"]["handle"]
    assert [(part["index"], part["value"]) for part in handle["properties"]] == [
        (1, "changed"),
        (2, "https://example.org/"),
    ]
    assert handle["id"] in by_hand["ids"]["listed"]
    assert by_hand["login"] == {"service": ["access_token", "token_type"], "offline": 0, "user": "embedded-user"}
