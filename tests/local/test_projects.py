"""Projects, packages and dashboards of the embedded IVCAP."""

import base64
import json

import pytest


def subject(caller):
    payload = caller.http.headers["Authorization"].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]


def make(caller, name="A project", status=200, **more):
    return caller.call("POST", "/1/project", status, json={"name": name, **more}).json()


@pytest.fixture
def project(first):
    return make(first, properties={"details": "why"})


def test_project_is_made_changed_and_deleted(first, project):
    """Fields have the names of OpenAPI 0.48, a change keeps the other fields, and the creator is the owner.

    A deleted project can be read, with that status, and is in no list.
    """
    expected = {"name": "A project", "status": "active", "role": "owner", "properties": {"details": "why"}}
    assert expected.items() <= project.items()
    path = f"/1/project/{project['urn']}"
    changed = first.call("PUT", path, json={"name": "Another"}).json()
    again = first.get(f"/1/project/{project['urn'].rsplit(':', 1)[-1]}")
    assert changed["name"] == again["name"] == "Another"
    assert again["properties"] == {"details": "why"} and again["created_at"] == project["created_at"]
    assert make(first, "A child", parent=project["urn"])["parent"] == project["urn"]
    assert make(first, urn="urn:ivcap:project:of-my-choice")["urn"] == "urn:ivcap:project:of-my-choice"
    make(first, status=409, urn=project["urn"])
    first.call("DELETE", path, 204)
    assert first.get(path)["status"] == "deleted"
    assert project["urn"] not in [item["urn"] for item in first.get("/1/project", params={"limit": 50})["projects"]]
    for status, body in (
        (422, {"name": "ab"}),
        (422, {}),
        (403, {"name": "fine", "account": "urn:ivcap:account:other"}),
        (404, {"name": "fine", "parent": "urn:ivcap:project:nowhere"}),
        (422, {"name": "fine", "parent": "urn:other:x"}),
        (422, {"name": "fine", "properties": {"details": 5}}),
        (422, {"name": "fine", "properties": "no object"}),
    ):
        first.call("POST", "/1/project", status, json=body)


def test_projects_are_listed_in_pages_with_their_cursor_in_page(second):
    """The list has the fields `projects` and `page`. The last page has no `page`."""
    urns = [make(second, f"Listed {n}")["urn"] for n in range(5)]
    asked = {"filter": "name ~= 'Listed%'", "order-by": "created-at,name", "order-desc": "false"}
    one = second.get("/1/project", params={"limit": 3, **asked})
    two = second.get("/1/project", params={"limit": 3, "page": one["page"]})
    assert [item["urn"] for item in one["projects"] + two["projects"]] == urns
    assert "page" not in two and "at-time" in two


def test_project_is_for_its_members(first, second, project):
    """Another user sees a project as a member, changes it as an owner, and can do neither after being removed.

    The list of members has URN, role and e-mail, pages and a filter by role.
    """
    path, user = f"/1/project/{project['urn']}", subject(second)
    second.call("GET", path, 404)
    second.call("PUT", path, 404, json={"name": "Mine now"})
    first.call("PUT", f"{path}/memberships/{user}", 204, json={"role": "reader"})
    assert second.get(path)["role"] == "reader"
    second.call("PUT", path, 403, json={"name": "Mine now"})
    second.call("DELETE", path, 403)
    (member,) = first.get(f"{path}/members", params={"role": "reader"})["members"]
    assert member == {"urn": user, "role": "reader", "email": "second@embedded.example"}
    one = first.get(f"{path}/members", params={"limit": 1})
    two = first.get(f"{path}/members", params={"limit": 1, "page": one["page"]})
    assert {one["members"][0]["urn"], two["members"][0]["urn"]} == {subject(first), user} and "page" not in two
    first.call("PUT", f"{path}/memberships/{user}", 204, json={"role": "Owner"})
    second.call("PUT", path, json={"name": "Ours now"})
    first.call("DELETE", f"{path}/memberships/{user}", 204)
    first.call("DELETE", f"{path}/memberships/{user}", 404)
    second.call("GET", path, 404)


def test_a_user_sets_its_own_default_project_and_account(first, second, project):
    """There is no default project until a user sets one that it can see. The creator's account is billed."""
    second.call("GET", "/1/project/default", 404)
    second.call("PUT", "/1/project/default", 404, json={"project_urn": project["urn"]})
    own = make(second)
    body = {"project_urn": own["urn"], "user_urn": subject(second)}
    first.call("PUT", "/1/project/default", 403, json=body)
    second.call("PUT", "/1/project/default", 204, json=body)
    assert second.get("/1/project/default")["urn"] == own["urn"]
    path, account = f"/1/project/{project['urn']}/account", {"account_urn": project["account"]}
    assert first.get(path) == account
    first.call("PUT", path, 204, json=account)
    first.call("PUT", path, 403, json={"account_urn": own["account"]})
    first.call("PUT", path, 422, json={})


def test_packages_are_the_images_that_services_name(first, second):
    """The packages of an account are the images that its services name, each once, with its tag."""
    caller, other = second, first

    def packages(who=caller, **params):
        return who.get("/1/packages/list", params={"limit": 50, **params})["items"]

    others = packages()

    account, schema = make(caller)["account"].rsplit(":", 1)[-1], "urn:ivcap:schema.service.rest.1"
    for image in ("adder:1", "adder:2", "adder:2", "host:5000/plain", f"{account}/own:a"):
        controller = {"$schema": schema, "image": image, "command": ["x"]}
        definition = {"name": image, "description": "", "controller-schema": schema, "controller": controller}
        caller.call("POST", "/1/services2", 201, json={**definition, "parameters": []})
    assert [each for each in packages() if each not in others] == [
        *sorted([f"{account}/own:a", "adder:1", "adder:2"]),
        "host:5000/plain:latest",
    ]
    assert packages(tag="adder") == ["adder:1", "adder:2"]
    assert packages(tag="adder:2") == ["adder:2"]
    assert packages(tag="own") == [f"{account}/own:a"]
    assert packages(other, tag="adder") == []
    other.call("DELETE", "/1/packages/remove", 404, params={"tag": "adder:1"})
    caller.call("DELETE", "/1/packages/remove", 204, params={"tag": "adder:1"})
    assert packages(tag="adder") == ["adder:2"]
    page = caller.get("/1/packages/list", params={"limit": 2})
    assert len(page["items"]) == 2 and page["links"][-1]["rel"] == "next"
    assert caller.get("/1/dashboards") == {"items": []}
