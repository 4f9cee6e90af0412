"""What a server acknowledged is there after its kill: the next server of the folder goes on with it."""

from pathlib import Path

import httpx
from eventually import until

SECRET = {"secret-name": "token", "secret-value": "S3CRET-value-that-nobody-else-has", "expiry-time": 0}
NAME = {"secret-name": "token"}


def keys(home):
    """Return the files in the user's data directory."""
    return [path for path in Path(home.variables["XDG_DATA_HOME"]).rglob("*") if path.is_file()]


def assert_secret_is_in_no_file(home):
    """Neither the database, its write-ahead log nor another file of the folder has the value or its key."""
    (key,) = keys(home)
    assert key.stat().st_mode & 0o777 == 0o600
    files = [path for path in home.root.rglob("*") if path.is_file()]
    assert {"ivcap.sqlite", "ivcap.sqlite-wal"} <= {path.name for path in files}
    for path in files:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            # A job that lives on has given its temporary file another name.
            continue
        assert SECRET["secret-value"].encode() not in content and key.read_bytes() not in content, path


def refreshed(home, token):
    form = {"client_id": "ivcap-flows", "grant_type": "refresh_token", "refresh_token": token}
    return httpx.post(f"{home.url}/login/token", data=form)


def test_what_was_acknowledged_outlives_a_kill(local_home):
    """Bytes, records, messages, secrets and logins are there. A running job goes on, and each job that waited gives one
    result. No file has a secret.
    """
    caller, ada = local_home.start().caller(), local_home.user()
    instance, environment = caller.get("/_embedded")["instance"], local_home.environment
    person, record = ada.person(), ada.world()
    running = caller.order("sleep", seconds="1.5")
    caller.executing(running)
    whole, part, aspect = caller.upload(b"whole"), caller.create(10), caller.add("urn:t:e", {"n": 1})
    caller.patch(part, b"01234", 0)
    queue = caller.call("POST", "/1/queues", 201, json={"name": "q"}).json()["id"]
    messages = f"/1/queues/{queue}/messages"
    for n in range(3):
        caller.call("POST", messages, params={"schema": "urn:t:m"}, json=n)
    caller.get(messages)
    assert keys(local_home) == [] and caller.get("/1/secrets/list")["items"] == []
    caller.call("GET", "/1/secrets", 404, params=NAME)
    for value in ("other ✓", SECRET["secret-value"]):
        caller.call("POST", "/1/secrets", 204, json=SECRET | {"secret-value": value})
    assert_secret_is_in_no_file(local_home)
    device = httpx.post(f"{local_home.url}/login/device", data={"client_id": "ivcap-flows", "scope": "offline_access"})
    with local_home.control() as control:
        control.post("/login", json={"user_code": device.json()["user_code"], "account": "first"})
    form = {"client_id": "ivcap-flows", "grant_type": "urn:ietf:params:oauth:grant-type:device_code"}
    form |= {"device_code": device.json()["device_code"]}
    login = httpx.post(f"{local_home.url}/login/token", data=form).json()["refresh_token"]
    signing = httpx.get(f"{local_home.url}/login/keys").json()
    study = ada.create("activity/study", title="t", description="d")
    ada.ask("registry", "PUT", "/registry/activity/study/locks/lock", json={"id": study, "reason": "r"})
    waiting = [caller.order("echo", message=str(n)) for n in range(3)]
    batch = ada.ask("prov", "POST", "/model_run/register_batch", json={"records": [record] * 4}).json()["session_id"]

    for _ in range(2):
        local_home.kill()
        assert_secret_is_in_no_file(local_home)
        caller, ada = local_home.start().caller(), local_home.user()
        ada.row(batch)
    assert caller.get("/_embedded")["instance"] == instance
    tokens = [name for name in environment if "OFFLINE_TOKEN" in name]
    assert {name: environment[name] for name in tokens} == {name: local_home.environment[name] for name in tokens}
    caller.call("GET", "/1/artifacts", headers={"Authorization": f"Bearer {environment['IVCAP_JWT']}"})
    assert caller.bytes_of(whole["id"]) == b"whole" and caller.offset(part) == 5
    caller.patch(part, b"56789", 5)
    assert caller.bytes_of(part["id"]) == b"0123456789"
    assert caller.get(f"/1/aspects/{aspect}")["content"] == {"n": 1}
    assert [one["content"] for one in caller.get(messages, params={"limit": 5})["messages"]] == [1, 2]
    assert caller.get("/1/secrets", params=NAME) == SECRET
    assert httpx.get(f"{local_home.url}/login/keys").json() == signing
    assert refreshed(local_home, login).status_code == 200
    assert (local_home.root / "login.pem").stat().st_mode & 0o077 == 0

    done = caller.finished(running)
    assert done["status"] == "succeeded" and caller.job_of(done)["result-content"] == {"seconds": 1.5}
    for n, order in enumerate(waiting):
        done = caller.finished(order)
        assert done["status"] == "succeeded" and caller.job_of(done)["result-content"] == {"message": str(n)}
        assert caller.log_of(order) == f"echo: {n}\n", "the service ran more than once, or not at all"

    item = ada.ask("registry", "GET", "/registry/activity/study/fetch", params={"id": study}).json()
    assert (item["item"]["title"], item["locked"], ada.person()) == ("t", True, person)
    page = ada.ask("registry", "POST", "/registry/agent/organisation/list", json={}).json()
    assert [each["name"] for each in page["items"]].count("Embedded organisation") == 1
    wanted = {"batch_id": ada.job(batch)["result"]["batch_id"], "limit": 50}
    jobs = until(
        lambda: ada.ask("job", "POST", "/jobs/user/list_batch", json=wanted).json()["jobs"],
        lambda found: len(found) == 4 and all(job["status"] == "SUCCEEDED" for job in found),
    )
    page = ada.ask("registry", "POST", "/registry/activity/model_run/list", json={"page_size": 100}).json()
    assert {job["result"]["record"]["id"] for job in jobs} == {each["id"] for each in page["items"]}
    assert len(page["items"]) == 4
