"""Every method of the official Python client works on the embedded Provena, and ours reads the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from listings import all_of
from own_login import renewing
from pydantic import SecretStr

from ivcap_flows.loop import run
from ivcap_flows.provena.client import Endpoints, ProvenaClient
from ivcap_flows.provena.login import token_url
from ivcap_flows.provena.models import Item, ModelRun, ModelRunRecord

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

VERSIONED = ("MODEL", "MODEL_RUN_WORKFLOW_TEMPLATE", "DATASET_TEMPLATE")

LEFT_OUT = {
    r"DeviceFlow\.(?!get_auth)": "called by `get_auth`",
    r"(datastore\.io|InteractiveDataset)\.\w+(_files?)$": "the files of datasets, in test_provena_files.py",
    r"(registry|prov_api)\.(\w+\.)?admin(\.|_delete)|\.post_restore_groups": "upkeep of a real deployment",
    r"registry\.(create_activity|version_acitvity|model_run)\.(create_item|revert_item)$": "only jobs make these items",
    r"id_api\.": "keeps its lower client under one name and calls another",
    r"datastore\.review\.": "asks the auth API, which has no such route",
    r"datastore\.validate_dataset_metadata|auth_api\.get_check_membership": "sends or reads another field",
    r"auth_api\.admin\.get_list_group_membership|\.get_lock_status$": "asks for something else",
    r"prov_api\.generate_report|registry\.get_current_provena_version": "takes the reply for another",
}
"""Methods of the official client that are not used, or are broken in it, and why."""


@pytest.fixture(scope="module")
def ours(served: Any) -> Iterator[ProvenaClient]:
    """Our client of the user as whom the official Provena client comes."""
    given = served.environment
    endpoints = Endpoints.of(
        realm=given["PROVENA_REALM"],
        keycloak=given["PROVENA_KEYCLOAK"],
        auth=given["PROVENA_AUTH_API"],
        registry=given["PROVENA_REGISTRY_API"],
        prov=given["PROVENA_PROV_API"],
        jobs=given["PROVENA_JOB_API"],
        datastore=given["PROVENA_DATA_STORE_API"],
        search=given["PROVENA_SEARCH_API"],
    )
    token = SecretStr(given["PROVENA_OFFLINE_TOKEN"])
    login = renewing(token_url(endpoints.realm), given["PROVENA_CLIENT_ID"], token)
    client = ProvenaClient(endpoints, login)
    yield client
    run(client.aclose())


@pytest.fixture(scope="module")
def control(served: Any) -> str:
    found: str = json.loads((served.directory / "server.json").read_text())["control"]
    return found


@pytest.fixture(scope="module")
def told(official: Any, control: str) -> dict[str, Any]:
    """What the official client did and read by its methods."""
    found: dict[str, Any] = official("provenaclient", "provena_by_method.py", control)
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


def test_each_method_of_the_client_is_used(told, record_property):
    """What users can do with the official client works here, but for what is broken in it."""
    record_property("official provenaclient", told["calls"])
    unused = [name for name, count in told["calls"].items() if not count]
    assert [name for name in unused if not any(re.search(pattern, name) for pattern in LEFT_OUT)] == []


@pytest.mark.parametrize("subtype", [*WRITTEN, *MADE])
def test_a_subtype_is_read_alike(told, ours, subtype):
    """Item, lock and history, and order of the list."""
    theirs = told["items"][subtype]
    registry, id = ours.registry, theirs["id"]  # noqa: A001 - the platform's own word
    assert plain(run(registry.fetch(subtype, id))) == bare(theirs["fetched"]["item"])
    assert (theirs["locked"], run(registry.locks.locked(subtype, id))) == (True, False)
    assert sorted(theirs["access"]) == sorted(theirs["fetched"]["roles"])
    assert theirs["configuration"]["general"] == ["metadata-read", "metadata-write"]
    assert [plain(event) for event in run(registry.locks.history(subtype, id))] == theirs["locks"]
    assert [event["action_type"] for event in theirs["locks"]] == ["LOCK", "UNLOCK"]
    listed = [item.id for item in run(all_of(registry.list(subtype, sort="DISPLAY_NAME", ascending=True)))]
    assert [item for item in listed if item in theirs["listed"]] == theirs["listed"]
    assert id in theirs["listed"]


@pytest.mark.parametrize("subtype", WRITTEN)
def test_what_users_write_changes_alike(told, ours, subtype):
    """A seed waits for its content, an update shows and is reverted, a new version is made of what has versions."""
    theirs = told["items"][subtype]
    assert plain(run(ours.registry.fetch_any(theirs["seed"]))) == bare(theirs["seed_fetched"]["item"])
    assert theirs["seed_fetched"]["item_is_seed"]
    item = plain(run(ours.registry.fetch(subtype, theirs["id"])))
    assert all(item.get(name) != value for name, value in theirs["changed"].items())
    assert len(item["history"]) == 3
    assert ("version" in theirs) == (subtype in VERSIONED)
    if subtype in VERSIONED:
        newer = run(ours.registry.fetch(subtype, theirs["version"]))
        assert newer.versioning_info.previous_version == theirs["filled"]


def test_datasets_are_read_alike(told, ours):
    """Listed, found, changed and versioned."""
    theirs = told["datastore"]
    everything = [item.id for item in run(all_of(ours.registry.list("DATASET")))]
    assert set(theirs["whole"]) <= set(everything)
    assert theirs["whole"][: len(theirs["listed"])] == theirs["listed"]
    assert len(theirs["each"]) == 3
    assert theirs["id"] in theirs["found"]
    assert theirs["changed"].endswith("renamed")
    assert plain(run(ours.datastore.fetch_dataset(theirs["newest"])))["versioning_info"]["version"] == 3
    assert plain(run(ours.registry.fetch("DATASET", theirs["id"]))) == bare(theirs["fetched"])
    assert theirs["keys"] == ["aws_access_key_id", "aws_secret_access_key", "aws_session_token", "expiry"]


def test_runs_are_explored_and_converted_alike(told, ours):
    """Lineage both ways and the special queries, and the CSV tools."""
    theirs = told["prov"]
    found = {
        "upstream": run(ours.prov.explore(theirs["product"], "upstream", depth=2)),
        "downstream": run(ours.prov.explore(theirs["source"], "downstream", depth=2)),
    }
    for direction, lineage in found.items():
        assert theirs["run"] in {node.id for node in lineage.nodes}
        assert theirs["run"] in {node["id"] for node in theirs["explored"][direction]["nodes"]}
    downstream = theirs["explored"]["downstream"]["links"]
    links = {(link["source"], link["type"], link["target"]) for link in downstream}
    run_urn = theirs["run"]
    assert {(run_urn, "used", theirs["source"]), (theirs["product"], "wasGeneratedBy", run_urn)} <= links
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
    assert [record["display_name"] for record in theirs["converted"]["new_records"]] == ["by csv"]
    assert theirs["from_file"] == theirs["converted"]
    assert theirs["run"] not in theirs["regenerated"] and "SUCCEEDED" in theirs["regenerated"]


def test_our_client_registers_what_the_official_one_did(told, ours):
    """The record that the official client read is accepted from ours as it is, and makes another run of the same."""
    theirs = told["items"]["MODEL_RUN"]["fetched"]["item"]
    record = ModelRunRecord.model_validate(theirs["record"])
    lodged = run(ours.jobs.wait(run(ours.prov.register(record)), 30)).checked().lodged
    assert lodged.id != theirs["id"]
    item = run(ours.registry.fetch(ModelRun, lodged.id))
    assert item.info.record == record
    assert plain(item).keys() <= bare(theirs).keys()


def test_jobs_are_read_alike(told, ours):
    """Rows with payload and result, and lists in the same order."""
    theirs = told["jobs"]
    for row in theirs["rows"]:
        assert plain(run(ours.jobs.fetch(row["session_id"]))) == bare(row)
    children = {row["session_id"] for row in theirs["children"]}
    for row in theirs["children"]:
        assert plain(run(ours.jobs.fetch(row["session_id"]))) == bare(row)
    assert len(children) == 2
    assert sorted(theirs["each_child"]) == sorted(children)
    assert set(theirs["admin"]["whole_batch"]) == children
    assert theirs["admin"]["row"] == theirs["rows"][0]
    mine = {row.session_id for row in run(all_of(ours.jobs.list()))}
    for name in ("page", "all", "each"):
        assert theirs[name]
        assert set(theirs[name]) | set(theirs["admin"][name]) <= mine


def test_accounts_are_read_alike(told, ours):
    """Report and requests, groups, and the person that a user is linked to."""
    theirs, auth = told["auth"], ours.auth_api
    assert plain(run(auth.access_report())) == bare(theirs["report"])
    ids = [request["request_id"] for request in theirs["history"]]
    assert "looked at" in theirs["history"][0]["notes"]
    assert theirs["pending"][0]["request_id"] in ids
    for requests in theirs["seen"].values():
        assert theirs["pending"][0]["request_id"] in {request["request_id"] for request in requests}
    assert theirs["by_user"]["group"] == theirs["by_admin"]["group"]
    assert theirs["by_user"]["members"] == theirs["by_admin"]["members"]
    for by in ("by_user", "by_admin"):
        assert theirs["group"] in {group["id"] for group in theirs[by]["groups"]}
    assert [group["id"] for group in theirs["by_user"]["membership"]] == [theirs["group"]]
    assert theirs["by_admin"]["member"] is True
    assert theirs["link"] == {
        "before": False,
        "valid": True,
        "linked": [True, True],
        "usernames": ["embedded-unlinked"],
        "after": False,
    }


def test_the_registry_is_searched_and_listed_alike(told, ours):
    """Across subtypes, with a filter."""
    theirs = told["general"]
    model = told["items"]["MODEL"]["id"]
    models = [hit.id for hit in run(ours.search.registry(told["name"], subtype="MODEL", limit=20))]
    assert model in models
    assert set(models) == {hit["id"] for hit in theirs["models"]}
    assert {hit["id"] for hit in theirs["models"]} < {hit["id"] for hit in theirs["found"]}
    for item in theirs["listed"]:
        if item["record_type"] == "COMPLETE_ITEM":
            assert plain(run(ours.registry.fetch("STUDY", item["id"]))) == bare(item)
    assert theirs["counted"]["MODEL"] >= 3
    study = told["items"]["STUDY"]["id"]
    stated = {name: part for name, part in theirs["fetched"].items() if name != "universal_partition_key"}
    assert plain(run(ours.registry.fetch_any(study))) == bare(stated)
    for part in ("datastore", "prov", "jobs", "auth", "general"):
        assert told[part]["health"] == "Health check successful."
