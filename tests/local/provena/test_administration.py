"""What administrators, reviewers and group members can do, and the lineage of versions."""

import json


def ok(reply):
    assert reply.status_code == 200, reply.text
    body = reply.json()
    if isinstance(body, dict) and "status" in body:
        assert body["status"]["success"], body
    return body


def links_of(ada, path, start, **query):
    graph = ok(ada.ask("prov", "GET", f"/explore/{path}", params={"starting_id": start} | query))["graph"]
    return {(link["source"], link["type"], link["target"]) for link in graph["links"]}


def test_a_group_opens_an_item_to_its_members(ada, ben, admin):
    """Members have the roles of their group until they leave it."""
    group = {"id": "crew", "display_name": "Crew", "description": "d"}
    ok(admin.ask("auth", "POST", "/groups/admin/add_group", json=group))
    item = ada.organisation()
    settings = {"owner": "embedded-user", "general": [], "groups": {"crew": ["metadata-read"]}}
    prefix = "/registry/agent/organisation"
    ok(ada.ask("registry", "PUT", f"{prefix}/auth/configuration", params={"id": item}, json=settings))

    def status():
        return ben.ask("registry", "GET", f"{prefix}/fetch", params={"id": item}).status_code

    assert status() == 401
    member = {"username": "embedded-user-2"}
    ok(admin.ask("auth", "POST", "/groups/admin/add_member", params={"group_id": "crew"}, json=member))
    assert status() == 200
    assert ok(ben.ask("auth", "GET", "/groups/user/check_membership", params={"group_id": "crew"}))["is_member"]
    names = [
        each["username"] for each in ok(ben.ask("auth", "GET", "/groups/user/list_members?id=crew"))["group"]["users"]
    ]
    assert names == ["embedded-user-2"]
    assert ada.ask("auth", "GET", "/groups/user/list_members?id=crew").status_code == 401
    ok(admin.ask("auth", "DELETE", "/groups/admin/remove_member", params=member | {"group_id": "crew"}))
    assert status() == 401


def test_an_administrator_links_and_unlinks_a_user(ada, admin):
    """An administrator can change and remove a user's link to a person, which the user cannot."""
    eve = {"username": "eve"}
    persons = [
        ada.create("agent/person", email="e@example.org", first_name="E", last_name="V", ethics_approved=True)
        for _ in range(2)
    ]
    ok(admin.ask("auth", "POST", "/link/admin/assign", json=eve | {"person_id": persons[0]}))
    assert admin.ask("auth", "POST", "/link/admin/assign", json=eve | {"person_id": persons[1]}).status_code == 400
    ok(admin.ask("auth", "POST", "/link/admin/assign", json=eve | {"person_id": persons[1], "force": True}))
    query = {"person_id": persons[1]}
    assert ok(admin.ask("auth", "GET", "/link/admin/reverse_lookup", params=query)) == {"usernames": ["eve"]}
    ok(admin.ask("auth", "DELETE", "/link/admin/clear", params=eve))
    assert ok(ada.ask("auth", "GET", "/link/user/lookup", params=eve)) == {"person_id": None, "success": False}


def test_a_version_is_generated_from_the_one_before(ada):
    """A new version ends with its four edges in the graph."""
    old = ada.create("entity/dataset_template")
    made = ok(ada.ask("registry", "POST", "/registry/entity/dataset_template/version", json={"id": old, "reason": "r"}))
    job = ada.job(made["version_job_session_id"])
    ada.job(job["result"]["lodge_session_id"])
    activity, new = job["result"]["version_activity_id"], made["new_version_id"]
    person = job["payload"]["linked_person_id"]
    assert {
        (new, "wasGeneratedBy", activity),
        (activity, "wasAssociatedWith", person),
        (new, "wasAttributedTo", person),
        (activity, "used", old),
    } <= links_of(ada, "upstream", new)


def test_a_deleted_run_leaves_the_graph_until_it_is_stored_again(ada, admin, record):
    """A trial shows what would be deleted. Nodes of other records stay. `register_sync` returns the run itself."""
    first = ok(admin.ask("prov", "POST", "/model_run/register_sync", json=record))["record_info"]["id"]
    second = ada.lodged(record)
    trial = {"record_id": first, "trial_mode": True}
    diff = ok(admin.ask("prov", "POST", "/model_run/delete", json=trial))["diff"]
    assert {action["node_id"] for action in diff if action["action_type"] == "REMOVE_NODE"} == {first}
    assert links_of(ada, "upstream", first) != set()
    ok(admin.ask("prov", "POST", "/model_run/delete", json={"record_id": first}))
    assert links_of(ada, "upstream", first) == set()
    assert links_of(ada, "upstream", second, depth=1) != set()
    item = ok(ada.ask("registry", "GET", "/registry/activity/model_run/fetch", params={"id": first}))["item"]
    ok(admin.ask("prov", "POST", "/admin/store_record", json=item))
    assert links_of(ada, "downstream", first, depth=1) != set()


def test_an_administrator_deletes_what_is_not_locked(ada, admin):
    """An administrator can delete an item unless it is locked."""
    item = ada.organisation()
    prefix = "/registry/agent/organisation"
    ok(ada.ask("registry", "PUT", f"{prefix}/locks/lock", json={"id": item, "reason": "r"}))
    assert admin.ask("registry", "DELETE", f"{prefix}/delete", params={"id": item}).status_code == 401
    ok(ada.ask("registry", "PUT", f"{prefix}/locks/unlock", json={"id": item, "reason": "r"}))
    ok(admin.ask("registry", "DELETE", f"{prefix}/delete", params={"id": item}))
    assert ada.ask("registry", "DELETE", f"{prefix}/delete", params={"id": item}).status_code == 401


def test_a_job_is_launched_by_hand(admin):
    """A job needs a type, a sub type of it, and a complete payload."""
    job = {"job_type": "EMAIL", "job_sub_type": "EMAIL_WAKE_UP", "job_payload": {}}
    for more, status in (
        ({}, 200),
        ({"job_sub_type": "SEND_EMAIL"}, 400),
        ({"job_sub_type": "REGISTRY_WAKE_UP"}, 400),
        ({"request_batch_id": True, "add_to_batch": "b"}, 422),
    ):
        reply = admin.ask("job", "POST", "/jobs/admin/launch", json=job | more)
        assert reply.status_code == status
        assert status != 200 or admin.job(reply.json()["session_id"])["status"] == "SUCCEEDED"


def test_a_job_that_cannot_be_done_does_not_hold_up_the_others(admin, ada, record):
    """A job that fails does not stop the jobs queued behind it."""
    payload = {"record": record | {"workflow_template_id": "gone"}, "revalidate": False, "user_info": ""}
    job = {"job_type": "PROV_LODGE", "job_sub_type": "MODEL_RUN_PROV_LODGE"}
    bad = [
        ok(admin.ask("job", "POST", "/jobs/admin/launch", json=job | {"job_payload": said}))["session_id"]
        for said in (payload, payload | {"record": record | {"associations": 7}})
    ]
    assert ada.lodged(record)
    assert [admin.job(session)["status"] for session in bad] == ["FAILED", "FAILED"]


def test_a_request_for_access_is_kept_noted_and_moved_on(ada, admin):
    """Its user sees the state of a request for access. A request for nothing new is not stored."""
    report = ok(ada.ask("auth", "GET", "/access-control/user/generate-access-report"))["report"]
    change = "/access-control/user/request-change"
    assert ada.ask("auth", "POST", change, json=report).json()["status"]["success"] is False
    roles = {role["role_name"]: role for part in report["components"] for role in part["component_roles"]}
    roles["handle-read"]["access_granted"] = True
    ok(ada.ask("auth", "POST", change, json=report, params={"send_email": False}))
    mine = "/access-control/user/pending-request-history"
    (request,) = ok(ada.ask("auth", "GET", mine))["items"]
    assert (request["status"], request["username"]) == ("PENDING_APPROVAL", "embedded-user")
    named = [part["component_name"] for part in json.loads(request["request_diff_contents"])["components"]]
    assert named == ["handle-service"]
    about = {"username": "embedded-user", "request_id": request["request_id"]}
    prefix = "/access-control/admin"
    ok(admin.ask("auth", "POST", f"{prefix}/add-note", json=about | {"note": "seen"}))
    wanted = about | {"desired_state": "DENIED_PENDING_DELETION", "additional_note": "no"}
    moved = ok(admin.ask("auth", "POST", f"{prefix}/change-request-state", json=wanted))
    assert moved["state_change"]["success"] is True
    assert ok(ada.ask("auth", "GET", mine))["items"] == []
    one = ok(admin.ask("auth", "GET", f"{prefix}/user-request-history", params={"username": "embedded-user"}))["items"]
    assert [(entry["ui_friendly_status"], entry["notes"]) for entry in one] == [("request denied", "seen,no")]
    ok(admin.ask("auth", "POST", f"{prefix}/delete-request", json=about))
    assert ok(admin.ask("auth", "GET", f"{prefix}/all-request-history"))["items"] == []
    again = admin.ask("auth", "POST", f"{prefix}/delete-request", json=about).json()
    assert again["status"]["success"] is False


def test_groups_go_out_and_come_in_as_the_mode_allows(admin):
    """A trial import changes nothing, and only a certain mode and flag delete groups."""
    groups = "/groups/admin"
    for name in ("one", "two"):
        ok(admin.ask("auth", "POST", f"{groups}/add_group", json={"id": name, "display_name": name, "description": ""}))
    items = ok(admin.ask("auth", "GET", f"{groups}/export"))["items"]
    less = [item for item in items if item["id"] != "two"]
    new = {"id": "three", "display_name": "3", "description": "", "users": [{"username": "eve"}]}

    def take(what, mode, **more):
        body = {"import_mode": mode, "items": what, "trial_mode": False, **more}
        return admin.ask("auth", "POST", f"{groups}/import", json=body).json()

    def there():
        return {group["id"] for group in ok(admin.ask("auth", "GET", f"{groups}/list_groups"))["groups"]}

    before = there()
    assert take([*items, new], "ADD_ONLY")["status"]["success"] is False
    assert take([new], "OVERWRITE_ONLY")["status"]["success"] is False
    assert take(less, "SYNC_DELETION_ALLOWED")["status"]["success"] is False
    assert take([new], "ADD_ONLY", trial_mode=True)["statistics"]["new_entries"] == 1
    assert there() == before
    assert take([*less, new], "SYNC_DELETION_ALLOWED", allow_entry_deletion=True)["statistics"]["deleted_entries"] == 1
    assert there() == before - {"two"} | {"three"}
    members = ok(admin.ask("auth", "GET", f"{groups}/list_members", params={"id": "three"}))["group"]["users"]
    assert [member["username"] for member in members] == ["eve"]


def test_the_default_of_a_group_holds_for_new_datasets_of_its_members(ada, admin):
    """Members of a group get its default roles on new datasets of other members."""
    group = {"id": "lab", "display_name": "Lab", "description": "", "default_data_store_access": ["dataset-data-write"]}
    ok(admin.ask("auth", "POST", "/groups/admin/add_group", json=group))
    for username in ("embedded-user", "embedded-user-2"):
        ok(admin.ask("auth", "POST", "/groups/admin/add_member?group_id=lab", json={"username": username}))
    dataset = ada.mint(ada.organisation())
    ok(admin.ask("auth", "DELETE", "/groups/admin/remove_group", params={"id": "lab"}))
    path = "/registry/entity/dataset/auth/configuration"
    assert ok(ada.ask("registry", "GET", path, params={"id": dataset}))["groups"] == {"lab": ["dataset-data-write"]}
