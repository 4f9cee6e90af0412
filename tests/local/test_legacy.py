"""The older names of services (`/1/services`) and aspects (`/1/metadata`) on the embedded IVCAP."""

import pytest

SCHEMA = "urn:t:schema:legacy.1"


def definition(**more):
    basic = {"image": "older:1", "command": ["python", "run.py"], "memory": {"request": "1Gi"}}
    parameters = [{"name": "n", "description": "a number", "type": "int"}]
    workflow = {"type": "basic", "basic": basic}
    return {"name": "older", "description": "of old", "parameters": parameters, "workflow": workflow, **more}


def test_service_with_a_workflow_is_a_service_of_today(first):
    """A service with a basic workflow is read in both forms, with its image in the current form's controller."""
    made = first.call("POST", "/1/services", 201, json=definition(banner="https://e.example/b.png", tags=["t"])).json()
    assert {"id", "account", "parameters", "links"} <= set(made)
    assert (made["status"], made["tags"]) == ("active", ["t"])
    assert first.get(f"/1/services/{made['id'].rsplit(':', 1)[-1]}") == made
    today = first.get(f"/1/services2/{made['id']}")
    assert today["controller-schema"] == "urn:ivcap:schema.service.batch.1"
    assert today["controller"]["image"] == "older:1" and today["controller"]["memory"] == {"request": "1Gi"}
    assert [one["name"] for one in today["parameters"]] == ["n"]
    (item,) = first.get("/1/services", params={"filter": "name == 'older'", "limit": 1})["items"]
    assert item["id"] == made["id"] and item["banner"] == "https://e.example/b.png" and "published-at" in item
    assert first.get(item["href"].removeprefix(first.url))["id"] == made["id"]


def test_services_of_today_are_listed_in_the_older_form(first):
    """The older list has the services of `/1/services2`, including the built-in ones."""
    ids = [
        {item["id"] for item in first.get(path, params={"limit": 50})["items"]}
        for path in ("/1/services", "/1/services2")
    ]
    assert ids[0] == ids[1] and first.service("echo") in ids[0]


def test_service_is_defined_anew_and_ended(first, second):
    """A PUT changes an own service, creates one only when forced, and DELETE ends it."""
    made = first.call("POST", "/1/services", 201, json=definition()).json()["id"]
    changed = definition(description="changed", workflow={"type": "argo", "argo": {"spec": {}}})
    assert first.call("PUT", f"/1/services/{made}", json=changed).json()["description"] == "changed"
    assert first.get(f"/1/services2/{made}")["controller-schema"] == "urn:ivcap:schema.service.argo.1"
    second.call("PUT", f"/1/services/{made}", 404, json=changed)
    first.call("PUT", "/1/services/of-my-choice", 404, json=changed)
    first.call("PUT", "/1/services/of-my-choice", params={"force-create": "true"}, json=changed)
    first.call("DELETE", f"/1/services/{made}", 204)
    assert first.get(f"/1/services/{made}")["status"] == "inactive"


@pytest.mark.parametrize(
    "wrong",
    [
        {"workflow": None},
        {"workflow": {"type": "other", "other": {}}},
        {"workflow": {"type": "basic", "basic": {"image": "x"}}},
        {"workflow": {"type": "basic", "basic": {"image": "x", "command": [1]}}},
        {"parameters": None},
        {"description": None},
        {"banner": ["no text"]},
        {"references": "no list"},
    ],
)
def test_bad_definition_is_refused(first, wrong):
    """A definition needs a description, parameters, and a workflow with the object of its type."""
    first.call("POST", "/1/services", 422, json=definition(**wrong))


def add(caller, entity, aspect, **params):
    query = {"entity-id": entity, "schema": SCHEMA, **params}
    return caller.call("POST", "/1/metadata", params=query, json=aspect).json()["record-id"]


def listed(caller, **params):
    return caller.get("/1/metadata", params={"schema": SCHEMA, **params})["items"]


def test_metadata_and_aspects_are_the_same_records(first):
    """Records that are added under one name are read, listed and retracted under the other."""
    record = add(first, "urn:t:legacy:1", {"n": 1})
    read = first.get(f"/1/metadata/{record}")
    assert (read["entity"], read["schema"], read["aspect"]) == ("urn:t:legacy:1", SCHEMA, {"n": 1})
    assert "asserter" in read and "valid-from" in read and "revoker" not in read
    assert first.get(f"/1/aspects/{record}")["content"] == {"n": 1}
    aspect = first.add("urn:t:legacy:1", {"n": 2}, SCHEMA)
    assert [(one["id"], one["aspect"]) for one in listed(first, **{"entity-id": "urn:t:legacy:1"})] == [
        (record, {"n": 1}),
        (aspect, {"n": 2}),
    ]
    first.call("DELETE", f"/1/metadata/{aspect}", 204)
    over = first.get(f"/1/metadata/{aspect}")
    assert over["valid-to"] and over["revoker"] == read["asserter"]
    assert [one["id"] for one in first.aspects(entity="urn:t:legacy:1")] == [record]


def test_metadata_is_replaced_by_its_id(first, second):
    """A PUT replaces a record and keeps the fields that are not given. Only the own account may do that."""
    record = add(first, "urn:t:legacy:2", {"n": 1}, **{"policy-id": "urn:ivcap:policy:ivcap.open.metadata"})
    other = add(first, "urn:t:legacy:2", {"n": 9})
    second.call("PUT", f"/1/metadata/{record}", 403, json={"n": 0})
    new = first.call("PUT", f"/1/metadata/{record}", json={"n": 2}).json()["record-id"]
    assert [one["id"] for one in listed(first, **{"entity-id": "urn:t:legacy:2"})] == [other, new]
    read = first.get(f"/1/aspects/{new}")
    assert read["replaces"] == record and read["policy"] == "urn:ivcap:policy:ivcap.open.metadata"
    assert first.get(f"/1/metadata/{record}")["valid-to"]
    moved = first.call("PUT", f"/1/metadata/{new}", params={"entity-id": "urn:t:legacy:3"}, json={"n": 3}).json()
    assert first.get(f"/1/metadata/{moved['record-id']}")["entity"] == "urn:t:legacy:3"


def test_metadata_is_listed_as_the_older_parameters_say(first):
    """A path filters, content can be left out, and pages follow the order of addition."""
    for n in range(5):
        add(first, "urn:t:legacy:4", {"n": n})
    entity = {"entity-id": "urn:t:legacy:4"}
    (found,) = listed(first, **entity, **{"aspect-path": "$.n ? (@ == 3)"})
    assert found["aspect"] == {"n": 3}
    assert all("aspect" not in one for one in listed(first, **entity, **{"include-content": "false"}))
    page = first.get("/1/metadata", params={**entity, "limit": 2})
    path = page["links"][-1]["href"].removeprefix(first.url)
    assert path.startswith("/1/metadata?page=")
    rest = first.get(path)
    assert [one["aspect"]["n"] for one in page["items"] + rest["items"]] == [0, 1, 2, 3, 4]
    assert [one["aspect"]["n"] for one in listed(first, **entity, **{"order-desc": "true"})] == [4, 3, 2, 1, 0]


def test_metadata_without_entity_is_refused(first):
    """Entity and schema are required to add."""
    first.call("POST", "/1/metadata", 422, params={"schema": SCHEMA}, json={})
