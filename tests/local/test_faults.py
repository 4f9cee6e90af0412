"""Faults that a test asks for, and platforms that are like production: each does what it says, as often as it says."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from eventually import until

from ivcap_flows.local.likeness import AS_BUILT, FIGURES, likeness


@pytest.fixture
def fault(control):
    """Return a function that adds a rule."""

    def add(**rule):
        reply = control.post("/faults", json=rule)
        assert reply.status_code == 201, reply.text

    return add


@pytest.fixture
def logged(control):
    """Return a function that gives the log's entries of a request."""

    def entries(method, path):
        found = control.get("/log").json()["requests"]
        return [entry for entry in found if (entry["method"], entry["path"]) == (method, path)]

    return entries


def test_a_status_is_answered_before_anything_happens(first, fault, logged):
    """A rule with a count of one acts once: the second request gets through."""
    service = first.service("echo")
    newest = [item["id"] for item in first.get("/1/orders", params={"limit": 1})["items"]]
    fault(method="POST", path="^/1/orders$", status=503, count=1)
    first.order(service, 503, message="x")
    assert [item["id"] for item in first.get("/1/orders", params={"limit": 1})["items"]] == newest
    first.order(service, message="x")
    assert [entry["status"] for entry in logged("POST", "/1/orders")] == [503, 200]


def test_a_reset_has_no_effect_and_a_dropped_reply_has(first, fault, logged):
    """Both end the connection without a reply. The log has the status that a dropped reply would have had."""
    for rule, found in (({"reset": True}, 0), ({"drop_reply_after_effect": True}, 1)):
        fault(method="POST", path="/1/aspects", count=1, **rule)
        with pytest.raises(httpx.TransportError):
            first.add("urn:t:lost", {"n": 1})
        assert len(first.aspects(entity="urn:t:lost")) == found
    entry = logged("POST", "/1/aspects")[-1]
    assert entry["status"] == 200 and entry["dropped"]


def test_a_truncated_reply_ends_after_so_many_bytes(first, fault, logged):
    """Status and length are right, and the body is cut off. The log has the number of bytes that came in."""
    artifact = first.upload(b"0123456789")
    fault(method="GET", path="/blob$", truncate=4, count=1)
    got, path = b"", f"/1/artifacts/{artifact['id']}/blob"
    with pytest.raises(httpx.RemoteProtocolError), first.http.stream("GET", path) as reply:
        assert reply.headers["Content-Length"] == "10"
        for part in reply.iter_raw():
            got += part
    assert got == b"0123" and first.bytes_of(artifact["id"]) == b"0123456789"
    (entry,) = logged("PATCH", path)
    assert (entry["received"], entry["status"]) == (10, 204)


def test_an_expired_token_is_401_with_a_challenge(first, fault):
    """The reply is that of a gateway, so a client that can refresh its token does."""
    fault(path="/1/services2", expire_token=True, count=1)
    reply = first.call("GET", "/1/services2", 401)
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert reply.headers["goa-error"] == "not-authorized" and reply.json()["message"]
    first.get("/1/services2")


def test_a_fault_counts_on_a_platform_like_production(ada, fault, control):
    """There, items of Provena come late into lists anyway; one that a rule hides cannot be read either."""
    control.post("/like", json={"like": "production", "speed": 100})
    fault(method="POST", path="/dataset_template/create$", late_visibility=60)
    create, fetch = "/registry/entity/dataset_template/create", "/registry/entity/dataset_template/fetch"
    made = ada.ask("registry", "POST", create, json={"display_name": "late"}).json()["created_item"]["id"]
    control.delete("/like")
    assert ada.ask("registry", "GET", fetch, params={"id": made}).json()["item"] is None


@pytest.mark.parametrize(("effect", "readable"), [("late_visibility", False), ("late_in_lists", True)])
def test_what_is_made_may_show_late(first, ada, fault, control, effect, readable):
    """With `late_visibility` a new thing is neither read nor listed until its time has come, also after the visibility
    delay; with `late_in_lists` it can be read at once. Both follow the clock, and hold for both platforms.
    """
    seconds = httpx.get(f"{first.url}/_embedded").json()["visibility_delay"] + 60
    fault(method="POST", path="^/1/(orders|artifacts|aspects)$|/dataset_template/create$", **{effect: seconds})
    made = {
        "/1/orders": first.order("echo", message="late")["id"],
        "/1/artifacts": first.create(1)["id"],
        "/1/aspects": first.add("urn:t:late", {}),
    }
    prefix = "/registry/entity/dataset_template"
    template = ada.ask("registry", "POST", f"{prefix}/create", json={"display_name": "late"}).json()
    item, session = template["created_item"]["id"], template["register_create_activity_session_id"]
    control.delete("/faults")

    def read():
        found = {first.http.get(f"{path}/{urn}").status_code == 200 for path, urn in made.items()}
        reply = ada.ask("registry", "GET", f"{prefix}/fetch", params={"id": item})
        return {*found, reply.json()["item"] is not None}

    def listed():
        found = {urn in [each["id"] for each in first.get(path)["items"]] for path, urn in made.items()}
        reply = ada.ask("registry", "POST", f"{prefix}/list", json={})
        return {*found, item in [each["id"] for each in reply.json()["items"]]}

    assert (read(), listed()) == ({readable}, {False})
    assert readable or ada.row(session).status_code == 400
    for advance, shown in ((seconds - 10, False), (11, True)):
        control.post("/clock", json={"advance": advance})
        ada.renew()
        assert (read(), listed()) == ({readable or shown}, {shown})
    control.delete("/clock")
    ada.renew()


def test_a_full_disk_takes_nothing_and_gives_all(first, ada, fault, control):
    """Records and bytes get 507 and are not stored. Provena fails in its own way, and reading works."""
    artifact = first.create(10)

    def registry(call, **body):
        return ada.ask("registry", "POST", f"/registry/agent/organisation/{call}", json=body)

    before = registry("list").json()["items"]
    fault(path="", storage_full=True)
    for method, path, more in (
        ("POST", "/1/artifacts", {}),
        ("POST", "/1/aspects", {"params": {"entity": "urn:t:full", "schema": "urn:t:s"}, "json": {}}),
    ):
        reply = first.call(method, path, 507, **more)
        assert reply.headers["goa-error"] == "not-available" and reply.json()["message"]
    first.patch(artifact, b"0123456789", 0, 507)
    assert first.offset(artifact) == 0 and first.aspects(entity="urn:t:full") == []
    refused = registry("create", display_name="Full", name="Full")
    assert (refused.status_code, refused.text) == (500, "Internal Server Error")
    assert registry("list").json()["items"] == before
    control.delete("/faults")
    first.patch(artifact, b"0123456789", 0)
    assert first.bytes_of(artifact["id"]) == b"0123456789"


def test_so_many_are_worked_on_at_once(first, fault):
    """Further requests wait, and are answered in the order in which they came."""
    fault(path="^/1/artifacts$", at_once=2, delay=0.3)
    begin = time.monotonic()
    with ThreadPoolExecutor(6) as callers:
        took = sorted(callers.map(lambda _: first.get("/1/artifacts") and time.monotonic() - begin, range(6)))
    assert all(0.3 * turn <= each for turn, each in zip((1, 1, 2, 2, 3, 3), took, strict=True))


def test_a_reply_that_takes_too_long_is_lost(first, fault, logged):
    """A gateway answers instead, and the request still takes effect, even if the caller has left."""

    def add(number, **more):
        params = {"entity": "urn:t:slow", "schema": f"urn:t:s:{number}"}
        return first.http.post("/1/aspects", params=params, json={"n": number}, **more).status_code

    fault(method="POST", path="/1/aspects", at_once=1, delay=2.0, lost_after=3.0)
    with ThreadPoolExecutor(2) as callers:
        assert sorted(callers.map(add, range(2))) == [200, 504]
    with pytest.raises(httpx.TimeoutException):
        add(2, timeout=1.0)
    until(lambda: len(first.aspects(entity="urn:t:slow")), lambda count: count == 3)
    assert [entry["dropped"] for entry in logged("POST", "/1/aspects")][:2].count(True) == 1


def test_a_seed_repeats_which_requests_fail(first, fault, control):
    """About as many requests fail as the probability says, the same ones each time. Probability 0 never acts.

    A request that one rule spares may meet the next.
    """

    def failing(seed):
        control.delete("/faults")
        fault(path="^/1/artifacts$", status=504, probability=0, seed=1)
        fault(path="^/1/artifacts$", status=503, probability=0.5, seed=seed)
        fault(path="^/1/artifacts$", status=429, probability=1, count=40)
        return [first.http.get("/1/artifacts").status_code for _ in range(30)]

    one, again, other = failing(7), failing(7), failing(8)
    assert one == again != other and set(one) == {503, 429}
    assert 5 <= one.count(503) <= 25
    rule = control.get("/faults").json()["faults"][0]
    assert (rule["probability"], rule["seed"], rule["hits"]) == (0, 1, 0)


FAULT = {"name", "id", "message", "temporary", "timeout", "fault"}
IVCAP_ERRORS = {
    400: ("bad-request", {"message"}),
    401: ("not-authorized", {"message"}),
    403: ("invalid-scopes", {"message"}),
    404: ("not-found", {"message", "id"}),
    409: ("already-created", {"message", "id"}),
    422: ("invalid-parameter", {"message", "name"}),
    424: ("not-unique", {"message"}),
    500: ("fault", FAULT),
    501: ("not-implemented", {"message"}),
    503: ("not-available", {"message"}),
    504: ("event-timeout", FAULT),
    429: (None, {"message"}),
    502: (None, {"message"}),
}


def test_a_status_is_told_in_the_words_of_ivcap(first, fault, control):
    """Errors have the classes and bodies of the OpenAPI document. An error of the gateway has no class."""
    for status, (error, fields) in IVCAP_ERRORS.items():
        fault(path="^/1/orders/x$", status=status, count=1)
        reply = first.call("GET", "/1/orders/x", status)
        assert (reply.headers.get("goa-error"), set(reply.json())) == (error, fields), status
        assert ("WWW-Authenticate" in reply.headers) == (status == 401)


def test_a_status_is_told_in_the_words_of_provena(ada, fault, control):
    """The APIs answer with `detail`, their gateway with `message`, a crash with plain text, and Keycloak with OAuth's
    fields."""

    def told(path=ada.home.environment["PROVENA_REGISTRY_API"] + "/", **rule):
        fault(path="^/provena", count=1, **rule)
        return httpx.get(path, headers={"Authorization": f"Bearer {ada.token}"})

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
    assert told(ada.home.realm, status=503).json()["error"]
    assert told(ada.home.realm, expire_token=True).json()["error"] == "invalid_grant"


WRONG_RULES = [
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
    ({"status": 503, "reset": True}, "status and reset exclude each other"),
    ({"late_visibility": 1, "late_in_lists": 1}, "exclude each other"),
    ({"kill_worker": "later"}, "before, amid, after"),
    ({"end_job": "succeeded"}, "failed, pending"),
    ({"kill_worker": "after", "delay": 1}, "no other effect"),
    (7, "object"),
]


def test_a_rule_that_makes_no_sense_is_refused(control):
    """An invalid rule is a 400 that names the field, or the known ones. No rule is added."""
    for rule, said in WRONG_RULES:
        reply = control.post("/faults", json=rule)
        assert reply.status_code == 400 and re.search(said, reply.json()["message"]), rule
    assert control.get("/faults").json()["faults"] == []


def runs_of(user, name):
    wanted = {"page_size": 50, "sort_by": {"sort_type": "CREATED_TIME", "ascending": False}}
    listed = user.ask("registry", "POST", "/registry/activity/model_run/list", json=wanted).json()["items"]
    return [item for item in listed if item["display_name"] == name]


@pytest.mark.parametrize(
    ("sub_type", "when", "statuses"),
    [
        ("MODEL_RUN_PROV_LODGE", "amid", ["COMPLETE"]),
        pytest.param("MODEL_RUN_PROV_LODGE", "before", [], marks=pytest.mark.long),
        pytest.param("MODEL_RUN_PROV_LODGE", "after", ["LODGED"], marks=pytest.mark.long),
        pytest.param("MODEL_RUN_BATCH_SUBMIT", "amid", ["LODGED"] * 3, marks=pytest.mark.long),
    ],
)
def test_a_dead_worker_leaves_its_job_in_progress(ada, record, fault, control, sub_type, when, statuses):
    """The job stays in progress, whether the worker had done nothing, only a part, or all of it. The next one works."""
    run = record | {"display_name": f"killed {when} {sub_type}"}
    fault(path=f"^{sub_type}$", kill_worker=when, count=1)
    if sub_type == "MODEL_RUN_PROV_LODGE":
        session = ada.register(run)
    else:
        reply = ada.ask("prov", "POST", "/model_run/register_batch", json={"records": [run] * 6})
        session = reply.json()["session_id"]
    until(lambda: control.get("/faults").json()["faults"][0]["hits"], lambda hits: hits == 1)
    # Some steps of the queue later.
    time.sleep(0.4)
    job = ada.row(session).json()["job"]
    assert (job["status"], job["result"]) == ("IN_PROGRESS", None)
    found = until(lambda: runs_of(ada, run["display_name"]), lambda found: len(found) >= len(statuses))
    until(lambda: [item["record_status"] for item in runs_of(ada, run["display_name"])], statuses.__eq__)
    if found:
        graph = ada.ask("prov", "GET", "/explore/upstream", params={"starting_id": found[0]["id"]}).json()
        assert (graph["record_count"] > 0) == (statuses[0] == "LODGED")
    assert ada.job(ada.register(run))["status"] == "SUCCEEDED"


@pytest.mark.parametrize(("end", "status"), [("failed", "FAILED"), ("pending", "PENDING")])
def test_a_job_that_is_ended_by_a_rule(ada, record, fault, control, end, status):
    """It fails amid its work, or its row goes back with all of it done. Its work is not done again."""
    run = record | {"display_name": f"ended {end}"}
    fault(path="^MODEL_RUN_PROV_LODGE$", end_job=end, count=1)
    session = ada.register(run)
    until(lambda: control.get("/faults").json()["faults"][0]["hits"], lambda hits: hits == 1)
    job = until(lambda: ada.row(session).json()["job"], lambda job: job["status"] == status)
    assert job["result"] is None
    assert [item["record_status"] for item in runs_of(ada, run["display_name"])] == [
        "COMPLETE" if end == "failed" else "LODGED"
    ]


def test_every_figure_of_production_has_a_source_and_is_used():
    """Twice the speed halves each time, and does not change numbers of things."""
    once, twice = likeness("production"), likeness("production", 2)
    assert all(figure.source and figure.value > 0 for figure in FIGURES.values())
    assert (once.visibility_delay, twice.visibility_delay) == (600, 300)
    assert once.workers.count == twice.workers.count and once.workers.cold == 2 * twice.workers.cold
    for one, two in zip(once.rules, twice.rules, strict=True):
        for name in {"delay", "lost_after", "late_in_lists"} & one.keys():
            assert one[name] == 2 * two[name]
        assert one.get("at_once") == two.get("at_once")


def test_like_production_it_is_slow_and_then_itself_again(first, control):
    """Requests are delayed, jobs start late, and the visibility delay is told. Faults also act."""
    for wrong in ({"like": "test"}, *({"like": "production", "speed": each} for each in (0, -1, "x"))):
        reply = control.post("/like", json=wrong)
        assert reply.status_code == 400 and reply.json()["message"]
    assert httpx.get(f"{first.url}/_embedded").json()["visibility_delay"] == AS_BUILT.visibility_delay
    assert control.post("/like", json={"like": "production", "speed": 0.25}).json()["visibility_delay"] == 2400
    control.post("/faults", json={"path": "^/1/artifacts$", "status": 503, "delay": 0.0, "count": 1})
    first.call("GET", "/1/artifacts", 503)
    assert control.delete("/faults").status_code == 204
    begin = time.monotonic()
    first.get("/1/artifacts")
    assert time.monotonic() - begin >= 0.4
    control.post("/like", json={"like": "production", "speed": 3})
    begin = time.monotonic()
    order = first.order("echo", message="late")
    until(lambda: first.get(f"/1/orders/{order['id']}")["status"] != "pending")
    assert time.monotonic() - begin >= 0.9
    assert control.delete("/like").json()["like"] is None
