"""The effect of the control routes on the embedded Provena."""

import os
import subprocess
import sys
import time

import httpx
import jwt
import pytest

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@pytest.fixture
def realm(local_platform):
    """Send a form to an endpoint of the realm's login."""
    environment = local_platform.environment
    base = f"{environment['PROVENA_KEYCLOAK']}/realms/{environment['PROVENA_REALM']}/protocol/openid-connect"

    def ask(path, **form):
        return httpx.post(f"{base}/{path}", data={"client_id": "client-tools", **form}).json()

    return ask


@pytest.mark.long
def test_a_device_is_let_in_by_the_control_route(local_platform, realm):
    """The control route decides on a device by its user code and account. An unknown account is a 404."""
    let_in, refused = realm("auth/device"), realm("auth/device")
    with local_platform.control() as control:
        code = {"user_code": let_in["user_code"]}
        assert control.post("/login", json={**code, "account": "nobody"}).status_code == 404
        assert control.post("/login", json={**code, "account": "embedded-admin", "lifetime": 60}).status_code == 204
        denial = {"user_code": refused["user_code"], "account": "embedded-user", "deny": True}
        assert control.post("/login", json=denial).status_code == 204
    tokens = realm("token", grant_type=GRANT, device_code=let_in["device_code"])
    claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    assert claims["preferred_username"] == "embedded-admin"
    assert realm("token", grant_type=GRANT, device_code=refused["device_code"])["error"] == "access_denied"


AS_NOBODY = """
import encodings.idna, http.client, os, sys
os.setuid(65534)
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("POST", sys.argv[2], sys.argv[3])
print(connection.getresponse().status)
"""


@pytest.mark.skipif(os.getuid() != 0 or not sys.platform.startswith("linux"), reason="only root can be another user")
def test_other_users_of_the_machine_let_no_device_in(realm):
    """Another user of the machine who knows the code cannot decide on a login."""
    device = realm("auth/device")
    page = httpx.URL(device["verification_uri"])
    form = f"user_code={device['user_code']}&answer=allow"
    command = [sys.executable, "-c", AS_NOBODY, str(page.port), page.path, form]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "403"
    assert realm("token", grant_type=GRANT, device_code=device["device_code"])["error"] == "authorization_pending"


@pytest.fixture
def dying(local_platform):
    """Let one worker of a sub type die at a given time of its work."""
    with local_platform.control() as control:

        def add(sub_type, when):
            rule = {"path": f"^{sub_type}$", "kill_worker": when, "count": 1}
            assert control.post("/faults", json=rule).status_code == 201

        add.hits = lambda: [rule["hits"] for rule in control.get("/faults").json()["faults"]]
        yield add
        control.delete("/faults")


def forever_in_progress(user, session, eventually, hits):
    """Wait until the worker is dead, and return the job some steps of its queue later."""
    eventually(hits, lambda found: found == [1])
    time.sleep(0.4)
    return user.ask("job", "GET", "/jobs/user/fetch", params={"session_id": session}).json()["job"]


def runs_of(user, name):
    wanted = {"page_size": 50, "sort_by": {"sort_type": "CREATED_TIME", "ascending": False}}
    listed = user.ask("registry", "POST", "/registry/activity/model_run/list", json=wanted).json()["items"]
    return [item for item in listed if item["display_name"] == name]


@pytest.mark.parametrize(
    ("when", "status"),
    [
        pytest.param("before", None, marks=pytest.mark.long),
        ("amid", "COMPLETE"),
        pytest.param("after", "LODGED", marks=pytest.mark.long),
    ],
)
def test_a_dead_worker_leaves_its_job_in_progress(served_ada, dying, eventually, when, status):
    """The job stays in progress, whether the worker had done nothing, only a part, or all of it."""
    record = served_ada.world() | {"display_name": f"killed {when}"}
    dying("MODEL_RUN_PROV_LODGE", when)
    session = served_ada.ask("prov", "POST", "/model_run/register", json=record).json()["session_id"]
    job = forever_in_progress(served_ada, session, eventually, dying.hits)
    assert (job["status"], job["result"]) == ("IN_PROGRESS", None)
    found = runs_of(served_ada, record["display_name"])
    assert [item["record_status"] for item in found] == ([status] if status else [])
    if found:
        graph = served_ada.ask("prov", "GET", "/explore/upstream", params={"starting_id": found[0]["id"]}).json()
        assert (graph["record_count"] > 0) == (status == "LODGED")
    again = served_ada.ask("prov", "POST", "/model_run/register", json=record).json()["session_id"]
    assert served_ada.job(again)["status"] == "SUCCEEDED"


@pytest.mark.long
def test_a_batch_whose_worker_died_amid_is_half_lodged(served_ada, dying, eventually):
    """The job shows no batch, and the runs of its first half are created."""
    record = served_ada.world() | {"display_name": "half a batch"}
    dying("MODEL_RUN_BATCH_SUBMIT", "amid")
    reply = served_ada.ask("prov", "POST", "/model_run/register_batch", json={"records": [record] * 6})
    job = forever_in_progress(served_ada, reply.json()["session_id"], eventually, dying.hits)
    assert (job["status"], job["result"]) == ("IN_PROGRESS", None)
    found = eventually(lambda: runs_of(served_ada, "half a batch"), lambda found: len(found) >= 3)
    assert [item["record_status"] for item in found] == ["LODGED"] * 3
