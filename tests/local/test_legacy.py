"""The older names of services (`/1/services`) and aspects (`/1/metadata`) on the embedded IVCAP."""

SCHEMA = "urn:t:schema:legacy.1"


def definition(**more):
    basic = {"image": "older:1", "command": ["python", "run.py"], "memory": {"request": "1Gi"}}
    parameters = [{"name": "n", "description": "a number", "type": "int"}]
    workflow = {"type": "basic", "basic": basic}
    return {"name": "older", "description": "of old", "parameters": parameters, "workflow": workflow, **more}


WRONG = [
    {"workflow": None},
    {"workflow": {"type": "other", "other": {}}},
    {"workflow": {"type": "basic", "basic": {"image": "x"}}},
    {"workflow": {"type": "basic", "basic": {"image": "x", "command": [1]}}},
    {"parameters": None},
    {"description": None},
    {"banner": ["no text"]},
    {"references": "no list"},
]


def test_a_service_is_the_same_by_both_names(first, second):
    """A service with a workflow is read in both forms, with its image in the current form's controller.

    A PUT changes an own service, creates one only when forced, and DELETE ends it.
    """
    made = first.call("POST", "/1/services", 201, json=definition(banner="https://e.example/b.png", tags=["t"])).json()
    path, urn = f"/1/services/{made['id']}", made["id"]
    assert {"id", "account", "parameters", "links"} <= set(made)
    assert (made["status"], made["tags"]) == ("active", ["t"])
    assert first.get(f"/1/services/{urn.rsplit(':', 1)[-1]}") == made
    today = first.get(f"/1/services2/{urn}")
    assert today["controller-schema"] == "urn:ivcap:schema.service.batch.1"
    assert today["controller"]["image"] == "older:1" and today["controller"]["memory"] == {"request": "1Gi"}
    assert [one["name"] for one in today["parameters"]] == ["n"]
    (item,) = first.get("/1/services", params={"filter": "name == 'older'", "limit": 1})["items"]
    assert item["id"] == urn and item["banner"] == "https://e.example/b.png" and "published-at" in item
    assert first.get(item["href"].removeprefix(first.url))["id"] == urn
    lists = [first.get(name, params={"limit": 50})["items"] for name in ("/1/services", "/1/services2")]
    assert {item["id"] for item in lists[0]} == {item["id"] for item in lists[1]}
    changed = definition(description="changed", workflow={"type": "argo", "argo": {"spec": {}}})
    assert first.call("PUT", path, json=changed).json()["description"] == "changed"
    assert first.get(f"/1/services2/{urn}")["controller-schema"] == "urn:ivcap:schema.service.argo.1"
    second.call("PUT", path, 404, json=changed)
    first.call("PUT", "/1/services/of-my-choice", 404, json=changed)
    first.call("PUT", "/1/services/of-my-choice", params={"force-create": "true"}, json=changed)
    first.call("DELETE", path, 204)
    assert first.get(path)["status"] == "inactive"
    for wrong in WRONG:
        first.call("POST", "/1/services", 422, json=definition(**wrong))


def add(caller, entity, aspect, **params):
    query = {"entity-id": entity, "schema": SCHEMA, **params}
    return caller.call("POST", "/1/metadata", params=query, json=aspect).json()["record-id"]


def listed(caller, entity, **params):
    return caller.get("/1/metadata", params={"schema": SCHEMA, "entity-id": entity, **params})["items"]


def test_an_aspect_is_the_same_by_both_names(first, second):
    """Records that are added under one name are read, listed, replaced and retracted under the other.

    A PUT keeps the fields that are not given, and only the own account may do that.
    """
    entity = "urn:t:legacy:1"
    record = add(first, entity, {"n": 1}, **{"policy-id": "urn:ivcap:policy:ivcap.open.metadata"})
    read = first.get(f"/1/metadata/{record}")
    assert (read["entity"], read["schema"], read["aspect"]) == (entity, SCHEMA, {"n": 1})
    assert "asserter" in read and "valid-from" in read and "revoker" not in read
    assert first.get(f"/1/aspects/{record}")["content"] == {"n": 1}
    aspect = first.add(entity, {"n": 2}, SCHEMA)
    assert [(one["id"], one["aspect"]["n"]) for one in listed(first, entity)] == [(record, 1), (aspect, 2)]
    second.call("PUT", f"/1/metadata/{record}", 403, json={"n": 0})
    new = first.call("PUT", f"/1/metadata/{record}", json={"n": 3}).json()["record-id"]
    assert [one["id"] for one in listed(first, entity)] == [aspect, new]
    read = first.get(f"/1/aspects/{new}")
    assert read["replaces"] == record and read["policy"] == "urn:ivcap:policy:ivcap.open.metadata"
    assert first.get(f"/1/metadata/{record}")["valid-to"]
    moved = first.call("PUT", f"/1/metadata/{new}", params={"entity-id": "urn:t:legacy:2"}, json={"n": 3}).json()
    assert first.get(f"/1/metadata/{moved['record-id']}")["entity"] == "urn:t:legacy:2"
    first.call("DELETE", f"/1/metadata/{aspect}", 204)
    over = first.get(f"/1/metadata/{aspect}")
    assert over["valid-to"] and over["revoker"] == over["asserter"]
    assert first.aspects(entity=entity) == []
    first.call("POST", "/1/metadata", 422, params={"schema": SCHEMA}, json={})


def test_metadata_is_listed_as_the_older_parameters_say(first):
    """A path filters, content can be left out, and pages follow the order of addition."""
    entity = "urn:t:legacy:3"
    for n in range(5):
        add(first, entity, {"n": n})
    (found,) = listed(first, entity, **{"aspect-path": "$.n ? (@ == 3)"})
    assert found["aspect"] == {"n": 3}
    assert all("aspect" not in one for one in listed(first, entity, **{"include-content": "false"}))
    page = first.get("/1/metadata", params={"entity-id": entity, "limit": 2})
    path = page["links"][-1]["href"].removeprefix(first.url)
    assert path.startswith("/1/metadata?page=")
    assert [one["aspect"]["n"] for one in page["items"] + first.get(path)["items"]] == [0, 1, 2, 3, 4]
    assert [one["aspect"]["n"] for one in listed(first, entity, **{"order-desc": "true"})] == [4, 3, 2, 1, 0]
