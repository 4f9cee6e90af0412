"""Packages of the embedded IVCAP."""


def test_packages_are_the_images_that_services_name(first, second):
    """The packages of an account are the images that its services name, each once, with its tag."""
    caller, other = second, first

    def packages(who=caller, **params):
        return who.get("/1/packages/list", params={"limit": 50, **params})["items"]

    others = packages()

    account, schema = caller.create(1)["account"].rsplit(":", 1)[-1], "urn:ivcap:schema.service.rest.1"
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
