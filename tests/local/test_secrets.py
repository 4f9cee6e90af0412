"""Secrets of the embedded IVCAP: only their account can read them, and no file has them in plain text."""

import sqlite3
import time
from pathlib import Path

import httpx
import pytest

VALUE = "S3CRET-value-that-nobody-else-has"
NAME = {"secret-name": "token"}


def put(caller, name="token", value=VALUE, expiry=0, status=204, **more):
    body = {"secret-name": name, "secret-value": value, "expiry-time": expiry, **more}
    return caller.call("POST", "/1/secrets", status, json=body)


def names(caller, **params):
    return [item["secret-name"] for item in caller.get("/1/secrets/list", params={"limit": 50, **params})["items"]]


def keys(home):
    """Return the files in the user's data directory."""
    return [path for path in Path(home.variables["XDG_DATA_HOME"]).rglob("*") if path.is_file()]


@pytest.mark.long
def test_secret_ends_with_its_key(local_home):
    """Without the key, which is outside of the folder, secrets cannot be read, and new ones can be set."""
    put(local_home.start().caller())
    local_home.stop()
    (key,) = keys(local_home)
    key.unlink()
    caller = local_home.start().caller()
    caller.call("GET", "/1/secrets", 404, params=NAME)
    assert names(caller) == []
    put(caller, value="new")
    assert caller.get("/1/secrets", params=NAME)["secret-value"] == "new"


@pytest.mark.long
@pytest.mark.parametrize("place", ["a file", "the folder of the embedded platform"])
def test_without_a_place_for_the_key_secrets_last_as_long_as_the_server(place, local_home):
    """If no key can be stored outside, secrets work until the server ends. No file has the key or a value."""
    if place == "a file":
        Path(local_home.variables["XDG_DATA_HOME"]).write_text("in the way")
    else:
        local_home.variables["XDG_DATA_HOME"] = str(local_home.root / "data")
    caller = local_home.start().caller()
    put(caller)
    assert caller.get("/1/secrets", params=NAME)["secret-value"] == VALUE
    local_home.stop()
    assert "are lost when it ends" in local_home.log.read_text()
    assert not any("embedded-keys" in str(path) for path in local_home.root.parent.rglob("*"))
    assert not any(VALUE.encode() in path.read_bytes() for path in local_home.root.rglob("*") if path.is_file())
    local_home.start().caller().call("GET", "/1/secrets", 404, params=NAME)


@pytest.mark.long
def test_value_is_in_no_log_and_no_message(local_home):
    """No refusal, error, request log or server log has a value."""
    caller = local_home.start().caller()
    put(caller)
    said = [
        put(caller, status=422, expiry=-1),
        put(caller, status=422, name=""),
        put(caller, status=422, value=VALUE * 4000),
        put(caller, status=422, **{"secret-type": {VALUE: 1}}),
        caller.call("POST", "/1/secrets", 400, content=f'{{"secret-value": "{VALUE}", '.encode()),
        caller.call("POST", "/1/secrets", 400, json=[VALUE]),
    ]
    with local_home.control() as control:
        control.post("/faults", json={"path": "secrets", "status": 500, "count": 1}).raise_for_status()
        said += [put(caller, status=500), control.get("/log"), control.get("/faults")]
    local_home.kill()
    # A failure that nobody thought of: the table is gone.
    with sqlite3.connect(local_home.root / "ivcap.sqlite") as database:
        database.execute("DROP TABLE secrets")
    database.close()
    said.append(put(local_home.start().caller(), status=500))
    local_home.stop()
    traceback = local_home.log.read_text()
    assert "no such table" in traceback
    assert not any(VALUE in text for text in [*(one.text for one in said), traceback])


def test_secret_expires_by_the_clock(first, control):
    """After its expiry time, in Unix seconds, a secret is in no answer."""
    end, brief = int(time.time()) + 60, {"secret-name": "brief"}
    put(first, "brief", expiry=end)
    assert first.get("/1/secrets", params=brief)["expiry-time"] == end
    assert "brief" in names(first)
    control.post("/clock", json={"advance": 61})
    first.call("GET", "/1/secrets", 404, params=brief)
    assert "brief" not in names(first)


def test_secret_is_read_by_its_type_or_none(first):
    """A secret without a type is raw. A request for another type does not find it."""
    put(first, "typed", **{"secret-type": "certificate"})
    put(first, "plain")
    for name, kind, status in (
        ("typed", "certificate", 200),
        ("typed", "raw", 404),
        ("plain", "raw", 200),
        ("plain", None, 200),
    ):
        params = {"secret-name": name, "secret-type": kind} if kind else {"secret-name": name}
        first.call("GET", "/1/secrets", status, params=params)


def test_names_are_listed_in_pages_and_by_pattern(second):
    """Pages continue by `page` or `offset`. A filter is a part of the name, a pattern with %, or an expression."""
    for n in range(5):
        put(second, f"page-{n}")
    page = second.get("/1/secrets/list", params={"limit": 2, "filter": "page-%"})
    cursor = httpx.URL(page["links"][-1]["href"]).params["page"]
    rest = [names(second, limit=3, **{name: cursor}) for name in ("page", "offset")]
    assert [item["secret-name"] for item in page["items"]] + rest[0] == [f"page-{n}" for n in range(5)]
    assert rest[0] == rest[1]
    assert names(second, filter="age-3") == names(second, filter="secret-name == 'page-3'") == ["page-3"]
    assert all(set(item) == {"secret-name", "expiry-time"} for item in page["items"])


def test_malformed_secret_is_refused(first):
    """A missing field, or one of the wrong type or length, is a 422 with its name."""
    good = {"secret-name": "a", "secret-value": "b", "expiry-time": 0}
    wrong = [good | {"expiry-time": True}, good | {"expiry-time": 2**63}, good | {"secret-value": 5}]
    wrong += [good | {"secret-name": "n" * 300}]
    wrong += [{key: value for key, value in good.items() if key != name} for name in ("expiry-time", "secret-name")]
    for body in wrong:
        assert first.call("POST", "/1/secrets", 422, json=body).json()["name"].startswith(("secret-", "expiry-"))
