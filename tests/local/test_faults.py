"""Each kind of fault does what it says, as often as it says, and the log counts it."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest


@pytest.fixture
def fault(local_platform):
    """Return a function that adds a rule. After the test all rules are deleted."""
    with local_platform.control() as control:
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
    """A rule with a count of one acts once: the second request gets through."""
    service = first.service("echo")
    before = len(first.get("/1/orders", params={"limit": 50})["items"])
    fault(method="POST", path="^/1/orders$", status=503, count=1)
    first.order(service, 503, message="x")
    assert len(first.get("/1/orders", params={"limit": 50})["items"]) == before
    first.order(service, message="x")
    assert [entry["status"] for entry in requests(fault, "POST", "/1/orders")] == [503, 200]


def test_a_delay_comes_before_the_reply(first, fault):
    """The request is delayed, then answered."""
    fault(path="^/1/artifacts$", delay=0.4, count=1)
    begin = time.monotonic()
    first.get("/1/artifacts")
    assert time.monotonic() - begin >= 0.4


def test_a_reset_has_no_effect_and_no_reply(first, fault):
    """The connection is closed and nothing was made."""
    fault(method="POST", path="/1/aspects", reset=True, count=1)
    with pytest.raises(httpx.TransportError):
        first.add("urn:t:reset", {})
    assert first.aspects(entity="urn:t:reset") == []


def test_a_dropped_reply_leaves_its_effect(first, fault):
    """The caller gets no reply, the thing exists, and the log has the status that the reply would have had."""
    fault(method="POST", path="/1/aspects", drop_reply_after_effect=True, count=1)
    with pytest.raises(httpx.TransportError):
        first.add("urn:t:dropped", {"n": 1})
    assert len(first.aspects(entity="urn:t:dropped")) == 1
    (entry,) = requests(fault, "POST", "/1/aspects")
    assert entry["status"] == 200 and entry["dropped"]


def test_a_truncated_reply_ends_after_so_many_bytes(first, fault):
    """Status and length are right, and the body is cut off."""
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
    """The reply is that of a gateway, so a client that can refresh its token does."""
    fault(path="/1/services2", expire_token=True, count=1)
    reply = first.call("GET", "/1/services2", 401)
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert reply.headers["goa-error"] == "not-authorized" and reply.json()["message"]
    first.get("/1/services2")


def test_late_visibility_hides_what_was_made_for_a_while(first, fault, eventually):
    """A new thing is accepted, and neither read nor listed until the time has passed."""
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


def test_late_visibility_may_outlast_the_settling_time(local_platform, first, fault):
    """An accepted order can stay hidden for longer than the visibility delay. It appears later."""
    fault(method="POST", path="^/1/orders$", late_visibility=60, count=1)
    visibility_delay = httpx.get(f"{local_platform.url}/_embedded").json()["visibility_delay"]
    order = first.order("echo", message="later than settle")

    def seen():
        read = first.http.get(f"/1/orders/{order['id']}").status_code
        listed = first.get("/1/orders", params={"filter": f"id == '{order['id']}'"})["items"]
        return read, len(listed)

    try:
        assert seen() == (404, 0)
        fault.control.post("/clock", json={"advance": visibility_delay + 1})
        assert seen() == (404, 0)
        fault.control.post("/clock", json={"advance": 60})
        assert seen() == (200, 1)
    finally:
        fault.control.delete("/clock")


def test_a_list_may_lag_behind_reads(local_platform, first, fault):
    """A new thing can be read by its id at once, and is listed later. The same holds for Provena's items."""
    fault(method="POST", path="^/1/(orders|aspects)$|/organisation/create$", late_in_lists=60)
    order, urn = first.order("echo", message="lagging"), first.add("urn:t:lagging", {})
    registry = Registry(local_platform)
    item = registry.create("Lagging")

    def listed():
        orders = first.get("/1/orders", params={"filter": f"id == '{order['id']}'"})["items"]
        return len(orders), len(first.aspects(entity="urn:t:lagging")), item in registry.listed()

    try:
        first.get(f"/1/orders/{order['id']}")
        first.get(f"/1/aspects/{urn}")
        assert registry.fetch(item)["status"]["success"]
        assert listed() == (0, 0, False)
        fault.control.post("/clock", json={"advance": 61})
        registry.renew()
        assert listed() == (1, 1, True)
    finally:
        fault.control.delete("/clock")


class Registry:
    """The registry of the embedded Provena as its first user sees it."""

    def __init__(self, embedded):
        self.embedded, self.url = embedded, embedded.environment["PROVENA_REGISTRY_API"]
        self.renew()

    def renew(self):
        env = self.embedded.environment
        form = {
            "grant_type": "refresh_token",
            "client_id": env["PROVENA_CLIENT_ID"],
            "refresh_token": env["PROVENA_OFFLINE_TOKEN"],
        }
        self.realm = f"{env['PROVENA_KEYCLOAK']}/realms/{env['PROVENA_REALM']}"
        reply = httpx.post(f"{self.realm}/protocol/openid-connect/token", data=form)
        self.headers = {"Authorization": f"Bearer {reply.json()['access_token']}"}

    def create(self, name, status=200):
        body = {"display_name": name, "name": name}
        reply = httpx.post(f"{self.url}/registry/agent/organisation/create", json=body, headers=self.headers)
        assert reply.status_code == status, reply.text
        return reply.json()["created_item"]["id"] if status == 200 else reply

    def fetch(self, item):
        path = "/registry/agent/organisation/fetch"
        return httpx.get(self.url + path, params={"id": item}, headers=self.headers).json()

    def listed(self):
        reply = httpx.post(f"{self.url}/registry/agent/organisation/list", json={}, headers=self.headers)
        return [item["id"] for item in reply.json()["items"]]


def test_a_full_disk_takes_nothing_and_gives_all(local_platform, first, fault):
    """Records and bytes get 507 and are not stored. Provena fails in its own way, and reading works."""
    artifact, registry = first.create(10), Registry(local_platform)
    fault(path="", storage_full=True)
    for method, path, more in (
        ("POST", "/1/artifacts", {}),
        ("POST", "/1/aspects", {"params": {"entity": "urn:t:full", "schema": "urn:t:s"}, "json": {}}),
    ):
        reply = first.call(method, path, 507, **more)
        assert reply.headers["goa-error"] == "not-available" and reply.json()["message"]
    first.patch(artifact, b"0123456789", 0, 507)
    assert first.offset(artifact) == 0 and first.aspects(entity="urn:t:full") == []
    before = registry.listed()
    assert registry.create("Full", 500).text == "Internal Server Error"
    fault.control.delete("/faults")
    assert registry.listed() == before
    first.patch(artifact, b"0123456789", 0)
    assert first.bytes_of(artifact["id"]) == b"0123456789"


def test_so_many_are_worked_on_at_once(first, fault):
    """Further requests wait, and are answered in the order in which they came."""
    fault(path="^/1/artifacts$", at_once=2, delay=0.3)
    begin = time.monotonic()
    with ThreadPoolExecutor(6) as callers:
        took = sorted(callers.map(lambda _: first.get("/1/artifacts") and time.monotonic() - begin, range(6)))
    assert all(0.3 * turn <= each for turn, each in zip((1, 1, 2, 2, 3, 3), took, strict=True))


def test_a_reply_that_takes_too_long_is_lost(first, fault, eventually):
    """A gateway answers instead, and the request still takes effect, even if the caller has left."""
    fault(method="POST", path="/1/aspects", at_once=1, delay=0.5, lost_after=0.9)
    with ThreadPoolExecutor(2) as callers:
        done = callers.map(lambda n: first.http.post("/1/aspects", **aspect(n)).status_code, range(2))
        assert sorted(done) == [200, 504]
    with pytest.raises(httpx.TimeoutException):
        first.http.post("/1/aspects", **aspect(2), timeout=0.1)
    eventually(lambda: len(first.aspects(entity="urn:t:slow")), lambda count: count == 3)
    assert [entry["dropped"] for entry in requests(fault, "POST", "/1/aspects")][:2].count(True) == 1


def aspect(number):
    return {"params": {"entity": "urn:t:slow", "schema": f"urn:t:s:{number}"}, "json": {"n": number}}


@pytest.mark.parametrize("seed", [7, 8])
def test_a_seed_repeats_which_requests_fail(first, fault, seed):
    """About as many requests fail as the probability says, the same ones each time.

    A request that one rule spares may meet the next.
    """

    def failing():
        fault.control.delete("/faults")
        fault(path="^/1/artifacts$", status=503, probability=0.5, seed=seed)
        fault(path="^/1/artifacts$", status=429, probability=1, count=40)
        return [first.http.get("/1/artifacts").status_code for _ in range(30)]

    one, again = failing(), failing()
    assert one == again and set(one) == {503, 429}
    assert 5 <= one.count(503) <= 25


def test_a_probability_of_nothing_never_acts(first, fault):
    """A rule with probability 0 never acts, and shows what it was given."""
    fault(path="^/1/artifacts$", status=503, probability=0, seed=1)
    for _ in range(5):
        first.get("/1/artifacts")
    (rule,) = fault.control.get("/faults").json()["faults"]
    assert (rule["probability"], rule["seed"], rule["hits"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("status", "error", "fields"),
    [
        (400, "bad-request", {"message"}),
        (401, "not-authorized", {"message"}),
        (403, "invalid-scopes", {"message"}),
        (404, "not-found", {"message", "id"}),
        (409, "already-created", {"message", "id"}),
        (422, "invalid-parameter", {"message", "name"}),
        (424, "not-unique", {"message"}),
        (500, "fault", {"name", "id", "message", "temporary", "timeout", "fault"}),
        (501, "not-implemented", {"message"}),
        (503, "not-available", {"message"}),
        (504, "event-timeout", {"name", "id", "message", "temporary", "timeout", "fault"}),
        (429, None, {"message"}),
        (502, None, {"message"}),
    ],
)
def test_a_status_is_told_in_the_words_of_ivcap(first, fault, status, error, fields):
    """Errors have the classes and bodies of the OpenAPI document. An error of the gateway has no class."""
    fault(path="^/1/orders/x$", status=status)
    reply = first.call("GET", "/1/orders/x", status)
    assert reply.headers.get("goa-error") == error and set(reply.json()) == fields
    assert ("WWW-Authenticate" in reply.headers) == (status == 401)


def test_a_status_is_told_in_the_words_of_provena(local_platform, fault):
    """The APIs answer with `detail`, their gateway with `message`, a crash with plain text, and Keycloak with OAuth's
    fields."""
    registry = Registry(local_platform)

    def told(path=registry.url + "/", **rule):
        fault.control.delete("/faults")
        fault(path="^/provena", **rule)
        return httpx.get(path, headers=registry.headers)

    for status in (400, 401, 404):
        assert set(told(status=status).json()) == {"detail"}
    assert told(status=401).headers["WWW-Authenticate"] == "Bearer"
    assert told(status=422).json()["detail"][0]["loc"] == ["body"]
    for status in (403, 429, 502, 504):
        assert set(told(status=status).json()) == {"message"}
    assert told(status=500).text == "Internal Server Error"
    assert "goa-error" not in told(status=404).headers
    expired = told(expire_token=True)
    assert (expired.status_code, expired.json()) == (401, {"detail": "Could not validate credentials"})
    assert expired.headers["WWW-Authenticate"] == "Bearer"
    assert told(registry.realm, status=503).json()["error"]
    assert told(registry.realm, expire_token=True).json()["error"] == "invalid_grant"


def test_the_log_counts_the_bytes_that_came(first, fault):
    """The log has the number of body bytes of each request."""
    artifact = first.create(300)
    first.patch(artifact, b"x" * 300, 0)
    (entry,) = requests(fault, "PATCH", f"/1/artifacts/{artifact['id']}/blob")
    assert entry["received"] == 300 and entry["status"] == 204


def test_faults_reach_provena_too(local_platform, fault):
    """Faults work for both platforms."""
    registry = local_platform.environment["PROVENA_REGISTRY_API"]
    fault(path="/provena/registry", status=502, count=1)
    assert httpx.get(registry + "/").status_code == 502
    assert httpx.get(registry + "/").status_code != 502


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({}, "needs an effect"),
        ({"path": "x"}, "needs an effect"),
        ({"status": "503"}, "status"),
        ({"status": 99}, "status"),
        ({"delay": -1}, "delay"),
        ({"at_once": 0}, "at_once"),
        ({"at_once": 1.5}, "at_once"),
        ({"lost_after": "x"}, "lost_after"),
        ({"path": "(", "reset": True}, "path"),
        ({"wait": 1}, "no wait; its fields are method, path, count, probability, seed, its effects status,"),
        ({"status": 503, "kind": "x"}, "late_in_lists"),
        ({"reset": True, "probability": 1.1}, "probability"),
        ({"reset": True, "probability": True}, "probability"),
        ({"reset": True, "seed": 1}, "seed"),
        ({"reset": True, "probability": 1, "seed": "x"}, "seed"),
        ({"reset": True, "count": 0}, "count"),
        ({"reset": True, "method": 1}, "method"),
        ({"reset": True, "status": 503}, "status and reset exclude each other"),
        ({"late_visibility": 1, "late_in_lists": 1}, "exclude each other"),
        ({"kill_worker": "later"}, "before, amid, after"),
        ({"kill_worker": "after", "delay": 1}, "no other effect"),
        (7, "object"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(fault, rule, said):
    """An invalid rule is a 400 that names the field, or the known ones. No rule is added."""
    reply = fault.control.post("/faults", json=rule)
    assert reply.status_code == 400 and re.search(said, reply.json()["message"])
    assert fault.control.get("/faults").json()["faults"] == []


def test_the_control_api_needs_its_own_token(local_platform, first):
    """The control API refuses requests without a token and with an account's token."""
    for method, path in (("GET", "/_embedded/faults"), ("POST", "/_embedded/faults"), ("DELETE", "/_embedded/log")):
        assert httpx.request(method, local_platform.url + path).status_code == 401
        first.call(method, path, 401)
