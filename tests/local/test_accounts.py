"""Two accounts on one server: private things stay private, and an open policy allows only reading."""

import pytest

OPEN = "urn:ivcap:policy:ivcap.open.artifact"


def test_private_things_are_not_there_for_another_account(first, second):
    """Artifacts, bytes, aspects, orders, jobs and logs of one account are 404 for another, and not listed."""
    artifact, aspect = first.upload(b"mine"), first.add("urn:t:private", {"n": 1})
    order = first.finished(first.order("echo", message="mine"))
    job = first.job_of(order)
    for path in (
        f"/1/artifacts/{artifact['id']}",
        f"/1/artifacts/{artifact['id']}/blob",
        f"/1/aspects/{aspect}",
        f"/1/orders/{order['id']}",
        f"/1/orders/{order['id']}/logs",
        f"/1/orders/{order['id']}/products",
        f"/1/services2/{order['service']}/jobs/{job['id']}",
    ):
        first.call("GET", path)
        second.call("GET", path, 404)
    assert second.aspects(entity="urn:t:private") == []
    assert second.aspects(entity=order["id"]) == [] and second.aspects(entity=job["id"]) == []
    for path in ("/1/artifacts", "/1/orders", f"/1/services2/{order['service']}/jobs"):
        assert not {artifact["id"], order["id"], job["id"]} & {item["id"] for item in second.get(path)["items"]}


def test_an_open_policy_lets_others_read_but_not_write(first, second):
    """With an open policy, reads are 200 and writes 403."""
    artifact = first.create(4, **{"X-Policy": OPEN})
    first.patch(artifact, b"op", 0)
    second.patch(artifact, b"en", 2, 403)
    first.patch(artifact, b"en", 2)
    assert second.bytes_of(artifact["id"]) == b"open"
    aspect = first.add("urn:t:open", {"n": 1}, policy="urn:ivcap:policy:ivcap.open.metadata")
    assert [item["id"] for item in second.aspects(entity="urn:t:open")] == [aspect]
    second.call("DELETE", f"/1/aspects/{aspect}", 403)


def test_replacing_an_aspect_concerns_the_own_account_only(first, second):
    """A PUT neither retracts nor counts another account's aspects."""
    params = {"entity": "urn:t:both", "schema": "urn:t:s"}
    for caller in (first, second):
        caller.call("PUT", "/1/aspects", params=params, json={"n": 1})
        caller.call("PUT", "/1/aspects", params=params, json={"n": 2})
    for caller in (first, second):
        assert [item["content"] for item in caller.aspects(**params)] == [{"n": 2}]


def test_a_service_cannot_read_what_its_order_may_not(first, second, register_service, local_platform):
    """A job has the rights of the account that ordered it."""
    service = register_service("reads", [{"name": "a", "type": "artifact"}])
    mine = first.upload(b"secret")
    assert first.finished(first.order(service, a=mine["id"]))["status"] == "succeeded"
    order = second.finished(second.order(service, a=mine["id"]))
    assert order["status"] == "failed"
    assert "may not read" in second.job_of(order)["error-message"]


@pytest.mark.parametrize("policy", ["open", "urn:x:policy"])
def test_a_policy_that_is_none_is_refused(first, policy):
    """A wrong policy is a 422 with the name of the field."""
    reply = first.call("POST", "/1/artifacts", 422, headers={"X-Content-Length": "1", "X-Policy": policy})
    assert reply.json()["name"] == "X-Policy"
