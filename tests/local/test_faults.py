"""Faults on demand: each kind does what it says, as often as it says, and the log counts."""

import time

import httpx
import pytest


@pytest.fixture
def fault(local_twin):
    """Adds a rule; all are gone after the test."""
    with local_twin.control() as control:
        control.delete("/log")

        def add(**rule):
            reply = control.post("/faults", json=rule)
            assert reply.status_code == 201, reply.text

        add.control = control
        yield add
        control.delete("/faults")


def requests(fault, method, path):
    entries = fault.control.get("/log").json()["requests"]
    return [entry for entry in entries if entry["method"] == method and entry["path"] == path]


def test_a_status_is_answered_before_anything_happens(first, fault):
    """The count is kept: the second request gets through."""
    service = first.service("echo")
    before = len(first.get("/1/orders", params={"limit": 50})["items"])
    fault(method="POST", path="^/1/orders$", status=503, count=1)
    first.order(service, 503, message="x")
    assert len(first.get("/1/orders", params={"limit": 50})["items"]) == before
    first.order(service, message="x")
    assert [entry["status"] for entry in requests(fault, "POST", "/1/orders")] == [503, 200]


def test_a_delay_comes_before_the_reply(first, fault):
    """The request is held for that time, then answered."""
    fault(path="^/1/artifacts$", delay=0.4, count=1)
    begin = time.monotonic()
    first.get("/1/artifacts")
    assert time.monotonic() - begin >= 0.4


def test_a_reset_has_no_effect_and_no_reply(first, fault):
    """The connection ends and nothing was made."""
    fault(method="POST", path="/1/aspects", reset=True, count=1)
    with pytest.raises(httpx.TransportError):
        first.add("urn:t:reset", {})
    assert first.aspects(entity="urn:t:reset") == []


def test_a_dropped_reply_leaves_its_effect(first, fault):
    """The caller gets nothing, the thing is there, and the log says what the reply would have been."""
    fault(method="POST", path="/1/aspects", drop_reply_after_effect=True, count=1)
    with pytest.raises(httpx.TransportError):
        first.add("urn:t:dropped", {"n": 1})
    assert len(first.aspects(entity="urn:t:dropped")) == 1
    (entry,) = requests(fault, "POST", "/1/aspects")
    assert entry["status"] == 200 and entry["dropped"]


def test_a_truncated_reply_ends_after_so_many_bytes(first, fault):
    """Head and length are right, the body is not."""
    artifact = first.upload(b"0123456789")
    fault(method="GET", path="/blob$", truncate=4, count=1)
    got = b""
    path = f"/1/artifacts/{artifact['id']}/blob"
    with pytest.raises(httpx.RemoteProtocolError), first.http.stream("GET", path) as reply:
        assert reply.headers["Content-Length"] == "10"
        for part in reply.iter_raw():
            got += part
    assert got == b"0123" and first.bytes_of(artifact["id"]) == b"0123456789"


def test_an_expired_token_is_401_with_a_challenge(first, fault):
    """As a gateway says it, so that a client that can refresh does."""
    fault(path="/1/services2", expire_token=True, count=1)
    reply = first.call("GET", "/1/services2", 401)
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    first.get("/1/services2")


def test_late_visibility_hides_what_was_made_for_a_while(first, fault, eventually):
    """Accepted, yet neither read nor listed until the time has passed."""
    fault(method="POST", path="^/1/(orders|artifacts|aspects)$", late_visibility=2.0)
    order, artifact = first.order("echo", message="late"), first.create(1)
    first.add("urn:t:late", {})
    first.call("GET", f"/1/orders/{order['id']}", 404)
    first.call("GET", f"/1/artifacts/{artifact['id']}", 404)
    assert first.aspects(entity="urn:t:late") == []
    assert order["id"] not in [item["id"] for item in first.get("/1/orders")["items"]]
    eventually(lambda: first.http.get(f"/1/orders/{order['id']}").status_code, lambda status: status == 200)
    assert order["id"] in [item["id"] for item in first.get("/1/orders")["items"]]
    # Made a moment after the order, it shows a moment after it.
    eventually(lambda: len(first.aspects(entity="urn:t:late")), lambda count: count == 1)


def test_the_log_counts_the_bytes_that_came(first, fault):
    """Bytes of bodies are counted a request."""
    artifact = first.create(300)
    first.patch(artifact, b"x" * 300, 0)
    (entry,) = requests(fault, "PATCH", f"/1/artifacts/{artifact['id']}/blob")
    assert entry["received"] == 300 and entry["status"] == 204


def test_faults_reach_provena_too(local_twin, fault):
    """The layer is outside both platforms."""
    registry = local_twin.environment["PROVENA_REGISTRY_API"]
    fault(path="/provena/registry", status=502, count=1)
    assert httpx.get(registry + "/").status_code == 502
    assert httpx.get(registry + "/").status_code != 502


@pytest.mark.parametrize(
    "rule",
    [{}, {"path": "x"}, {"status": "503"}, {"status": 99}, {"delay": -1}, {"path": "(", "reset": True}, {"wait": 1}, 7],
)
def test_a_rule_that_makes_no_sense_is_refused(fault, rule):
    """400 with a message; no rule is added."""
    reply = fault.control.post("/faults", json=rule)
    assert reply.status_code == 400 and reply.json()["message"]
    assert fault.control.get("/faults").json()["faults"] == []


def test_the_control_api_needs_its_own_token(local_twin, first):
    """Neither nothing nor a bearer token of an account opens it."""
    for method, path in (("GET", "/_twin/faults"), ("POST", "/_twin/faults"), ("DELETE", "/_twin/log")):
        assert httpx.request(method, local_twin.url + path).status_code == 401
        first.call(method, path, 401)
