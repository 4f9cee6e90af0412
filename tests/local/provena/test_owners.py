"""What users do with items, datasets and handles of their own, and what others are denied."""

import pytest
from eventually import until
from served_home import collection


def ok(reply):
    assert reply.status_code == 200, reply.text
    body = reply.json()
    if isinstance(body, dict) and "status" in body:
        assert body["status"]["success"], body
    return body


ORGANISATION = "/registry/agent/organisation"


@pytest.fixture
def ask_registry(ada):
    """Asks the registry as the first user."""

    def ask(method, path, **more):
        return ada.ask("registry", method, path, **more)

    return ask


def test_a_seed_waits_for_its_content(ask_registry):
    """A seed has an id and no content; its first update makes it an item, without a reason."""

    def seeds():
        wanted = {"filter_by": {"record_type": "SEED_ONLY"}, "page_size": 50}
        return [item["id"] for item in ok(ask_registry("POST", f"{ORGANISATION}/list", json=wanted))["seed_items"]]

    seed = ok(ask_registry("POST", f"{ORGANISATION}/seed"))["seeded_item"]["id"]
    asked = {"id": seed, "seed_allowed": True}
    read = ok(ask_registry("GET", f"{ORGANISATION}/fetch", params=asked))
    assert (read["item"]["record_type"], read["item_is_seed"], read["locked"]) == ("SEED_ITEM", True, False)
    assert read["roles"] == ["metadata-read", "metadata-write", "admin"]
    assert ask_registry("GET", f"{ORGANISATION}/fetch", params={"id": seed}).json()["status"]["success"] is False
    assert ask_registry("GET", "/registry/agent/person/fetch", params=asked).status_code == 400
    assert seed in seeds()
    content = {"display_name": "o", "name": "o"}
    ok(ask_registry("PUT", f"{ORGANISATION}/update", params={"id": seed}, json=content))
    whole = ok(ask_registry("GET", f"{ORGANISATION}/fetch", params=asked))
    assert (whole["item"]["name"], whole["item_is_seed"]) == ("o", False)
    assert seed not in seeds()


def test_an_item_goes_back_to_an_entry_of_its_history(ada, ask_registry):
    """A revert is an entry of its own, with the content of the first."""
    item = ada.organisation("first")
    asked = {"id": item, "reason": "because"}
    ok(ask_registry("PUT", f"{ORGANISATION}/update", params=asked, json={"display_name": "o", "name": "second"}))
    ok(ask_registry("PUT", f"{ORGANISATION}/revert", json={"id": item, "history_id": 0, "reason": "back"}))
    back = ok(ask_registry("GET", f"{ORGANISATION}/fetch", params={"id": item}))["item"]
    assert [entry["item"]["name"] for entry in back["history"]] == ["first", "second", "first"]
    assert (back["name"], [entry["reason"] for entry in back["history"][:2]]) == (
        "first",
        ["(Reverted to version 0): back", "because"],
    )


def test_an_item_can_be_closed_to_others(ada, ben, ask_registry):
    """The other user is denied it and does not find it in lists. Its owner stays its owner."""
    item, path = ada.organisation(), f"{ORGANISATION}/auth/configuration"
    access = ok(ask_registry("GET", path, params={"id": item}))
    assert access["general"] == ["metadata-read"]
    ok(ask_registry("PUT", path, params={"id": item}, json=access | {"general": []}))
    reply = ben.ask("registry", "GET", f"{ORGANISATION}/fetch", params={"id": item})
    assert reply.status_code == 401 and "www-authenticate" not in reply.headers
    listed = ok(ben.ask("registry", "POST", f"{ORGANISATION}/list", json={"page_size": 50}))
    assert item not in [each["id"] for each in listed["items"]]
    for user, roles in ((ben, []), (ada, ["metadata-read", "metadata-write", "admin"])):
        assert ok(user.ask("registry", "GET", f"{ORGANISATION}/auth/evaluate", params={"id": item}))["roles"] == roles
    assert ask_registry("PUT", path, params={"id": item}, json=access | {"owner": "somebody"}).status_code == 400


def test_the_registry_says_what_it_would_refuse(ask_registry):
    """By its status or by a 422. It publishes the schema and the form of each subtype."""
    workflow, template = "/registry/entity/model_run_workflow", "/registry/entity/dataset_template"
    ok(ask_registry("POST", f"{template}/validate", json={"display_name": "t"}))
    unknown = ask_registry("POST", f"{workflow}/validate", json={"display_name": "w", "software_id": "nothing"})
    status = unknown.json()["status"]
    assert status["success"] is False and "nothing" in status["details"]
    twice = {"display_name": "t", "deferred_resources": [{"key": "k", "description": "d"}] * 2}
    assert ask_registry("POST", f"{template}/validate", json=twice).status_code == 422
    assert "software_id" in ok(ask_registry("GET", f"{workflow}/schema"))["json_schema"]["properties"]
    assert ok(ask_registry("GET", f"{workflow}/ui_schema"))["ui_schema"]


def test_metadata_of_a_dataset_are_checked_and_taken_back(ada):
    """The data store says what it would refuse; a revert is an entry of the dataset's history."""

    def store(method, path, **more):
        return ada.ask("data_store", method, path, **more)

    good = collection(ada.organisation())
    better = good | {"dataset_info": good["dataset_info"] | {"name": "better"}}
    assert ok(store("POST", "/metadata/validate-metadata", json=good))
    refused = store("POST", "/metadata/validate-metadata", json=collection("nobody")).json()
    assert refused["success"] is False and "nobody" in refused["details"]
    assert "associations" in ok(store("GET", "/metadata/dataset-schema"))["json_schema"]["properties"]
    dataset = ok(store("POST", "/register/mint-dataset", json=good))["handle"]
    asked = {"handle_id": dataset, "reason": "more"}
    ok(store("POST", "/register/update-metadata", params=asked, json=better))
    ok(store("PUT", "/register/revert-metadata", json={"id": dataset, "history_id": 0, "reason": "less"}))
    back = ok(store("GET", "/registry/items/fetch-dataset", params={"handle_id": dataset}))["item"]
    assert back["collection_format"]["dataset_info"]["name"] == "n"
    assert [entry["id"] for entry in back["history"]] == [2, 1, 0]
    assert dataset in [item["id"] for item in ok(store("POST", "/registry/items/list", json={"page_size": 5}))["items"]]


def test_a_release_is_asked_for_and_decided(ada, ben, admin):
    """From the request to the approval, with the list of what a reviewer was asked; a released dataset takes no more
    files."""
    dataset, reviewer = ada.mint(ada.organisation()), ben.person()
    wanted = {"dataset_id": dataset, "approver_id": reviewer, "notes": "please"}
    assert ada.ask("data_store", "POST", "/release/approval-request", json=wanted).status_code == 400
    query = {"reviewer_id": reviewer}
    assert ada.ask("data_store", "POST", "/release/sys-reviewers/add", params=query).status_code == 401
    ok(admin.ask("data_store", "POST", "/release/sys-reviewers/add", params=query))
    assert reviewer in ok(ada.ask("data_store", "GET", "/release/sys-reviewers/list"))
    ok(ada.ask("data_store", "POST", "/release/approval-request", json=wanted))
    mine = {"sort_by": {"sort_type": "RELEASE_TIMESTAMP"}, "filter_by": {"release_reviewer": reviewer}}
    assert dataset in [
        item["id"] for item in ok(ben.ask("registry", "POST", "/registry/general/list", json=mine))["items"]
    ]
    decision = {"dataset_id": dataset, "approve": True, "notes": "fine"}
    ok(ben.ask("data_store", "PUT", "/release/action-approval-request", json=decision))
    ok(admin.ask("data_store", "DELETE", "/release/sys-reviewers/delete", params=query))
    info = ok(ada.ask("registry", "GET", "/registry/entity/dataset/fetch", params={"id": dataset}))["item"]
    assert (info["release_status"], info["release_approver"]) == ("RELEASED", reviewer)
    assert {event["action"] for event in info["release_history"]} == {"REQUEST", "APPROVE"}
    keys = {"dataset_id": dataset, "console_session_required": False}
    path = "/registry/credentials/generate-write-access-credentials"
    assert ada.ask("data_store", "POST", path, json=keys).status_code == 403


def test_a_user_is_linked_to_a_person_of_their_own_once(ada, admin, local_platform):
    """Only one's own person can be linked; afterwards any check says that there is a link."""
    unlinked = local_platform.user("PROVENA_OFFLINE_TOKEN_UNLINKED")
    person = unlinked.create("agent/person", email="u@example.org", first_name="U", last_name="V", ethics_approved=True)

    def ask(step, person):
        return unlinked.ask("auth", "POST", f"/link/user/{step}", json={"person_id": person})

    assert unlinked.person() is None
    assert ask("assign", ada.person()).status_code == 401
    ok(ask("validate", person))
    ok(ask("assign", person))
    try:
        assert unlinked.person() == person
        status = ask("validate", person).json()["status"]
        assert status["success"] is False and "already" in status["details"]
        assert ask("assign", person).status_code == 400
    finally:
        ok(admin.ask("auth", "DELETE", "/link/admin/clear", params={"username": "embedded-unlinked"}))


def test_a_handle_gets_values_and_loses_them(ada, admin):
    """Values are minted, added, changed and removed. What the service behind does not know is a 500."""

    def ask(method, path, **more):
        return admin.ask("handle", method, f"/handle/{path}", **more)

    first = {"value_type": "URL", "value": "https://example.org/1"}
    handle = ok(ask("POST", "mint", json=first))["id"]
    ok(ask("POST", "add_value", json={"id": handle, "value_type": "DESC", "value": "a page"}))
    ok(ask("POST", "add_value_by_index", json=first | {"id": handle, "index": 7}))
    changed = ok(ask("PUT", "modify_by_index", json={"id": handle, "index": 1, "value": "https://example.org/2"}))
    assert [(value["index"], value["type"], value["value"]) for value in changed["properties"]] == [
        (1, "URL", "https://example.org/2"),
        (2, "DESC", "a page"),
        (7, "URL", "https://example.org/1"),
    ]
    left = ok(ask("POST", "remove_by_index", json={"id": handle, "index": 7}))
    assert [value["index"] for value in left["properties"]] == [1, 2]
    assert ok(ask("GET", "get", params={"id": handle})) == left and ask("GET", "list").status_code == 500
    assert ask("GET", "get", params={"id": "102.100.100/0"}).status_code == 500
    assert ask("PUT", "modify_by_index", json={"id": handle, "index": 9, "value": "x"}).status_code == 500
    assert ada.ask("handle", "POST", "/handle/mint", json=first).status_code == 401


def test_administrators_see_the_jobs_of_all(ada, admin):
    """A job for a user in a new batch is found by that user's name and in that batch; users are refused."""
    name = "embedded-user"
    job = {"job_type": "REGISTRY", "job_sub_type": "REGISTRY_WAKE_UP", "job_payload": {"reason": "test"}}
    launched = ok(
        admin.ask("job", "POST", "/jobs/admin/launch", json=job | {"username": name, "request_batch_id": True})
    )
    session, batch = launched["session_id"], launched["batch_id"]
    assert ada.job(session)["username"] == name
    assert ok(admin.ask("job", "GET", "/jobs/admin/fetch", params={"session_id": session}))["job"]["batch_id"] == batch
    assert admin.ask("job", "GET", "/jobs/admin/fetch", params={"session_id": "nothing"}).status_code == 400
    children = ok(admin.ask("job", "POST", "/jobs/admin/list_batch", json={"batch_id": batch, "limit": 5}))["jobs"]
    assert [row["session_id"] for row in children] == [session]
    mine = ok(admin.ask("job", "POST", "/jobs/admin/list", json={"username_filter": name, "limit": 3}))["jobs"]
    assert {row["username"] for row in mine} == {name}
    reply = ada.ask("job", "POST", "/jobs/admin/list", json={"limit": 3})
    assert reply.status_code == 401 and "www-authenticate" in reply.headers


def test_a_batch_has_a_child_for_each_record(ada, record):
    """One bad record fails alone, with its own reason."""
    bad = record | {"outputs": [record["outputs"][0] | {"dataset_id": "no-such-dataset"}]}
    session = ok(ada.ask("prov", "POST", "/model_run/register_batch", json={"records": [record, bad]}))["session_id"]
    wanted = {"batch_id": ada.job(session)["result"]["batch_id"], "limit": 10}
    rows = until(
        lambda: ok(ada.ask("job", "POST", "/jobs/user/list_batch", json=wanted))["jobs"],
        lambda rows: [row["status"] in ("SUCCEEDED", "FAILED") for row in rows] == [True, True],
    )
    [good], [failed] = ([row for row in rows if row["status"] == status] for status in ("SUCCEEDED", "FAILED"))
    assert good["result"]["record"]["id"] and "no-such-dataset" in failed["info"]
