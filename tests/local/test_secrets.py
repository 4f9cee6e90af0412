"""Secrets of the embedded IVCAP: only their account can read them, and no file has them in plain text."""

import sqlite3
import time
from pathlib import Path

import httpx
import pytest

VALUE = "S3CRET-value-that-nobody-else-has"
NAME = {"secret-name": "token"}


def put(caller, name="token", value=VALUE, expiry=0, status=204, **more):
    return caller.call(
        "POST", "/1/secrets", status, json={"secret-name": name, "secret-value": value, "expiry-time": expiry, **more}
    )


def names(caller, **params):
    return [item["secret-name"] for item in caller.get("/1/secrets/list", params={"limit": 50, **params})["items"]]


def keys(home):
    """Return the files in the user's data directory."""
    return [path for path in Path(home.variables["XDG_DATA_HOME"]).rglob("*") if path.is_file()]


@pytest.fixture
def keeper(local_home):
    """A server that has a secret."""
    home = local_home.start()
    put(home.caller())
    return home


def test_secret_is_read_set_anew_and_kept_over_a_restart(keeper):
    """The last value is read back, also by the next server of the folder."""
    caller = keeper.caller()
    assert caller.get("/1/secrets", params=NAME) == {**NAME, "secret-value": VALUE, "expiry-time": 0}
    put(caller, value="other ✓")
    keeper.kill()
    keeper.start()
    assert keeper.caller().get("/1/secrets", params=NAME)["secret-value"] == "other ✓"


def test_no_file_of_the_folder_holds_a_value(keeper):
    """Neither the database, its write-ahead log nor another file has the value.

    The key is elsewhere, with mode 0600.
    """
    put(keeper.caller(), name="second")
    (key,) = keys(keeper)
    assert key.stat().st_mode & 0o777 == 0o600
    for end in (lambda: None, keeper.kill):
        end()
        files = [path for path in keeper.root.rglob("*") if path.is_file()]
        assert {"ivcap.sqlite", "ivcap.sqlite-wal"} <= {path.name for path in files}
        for path in files:
            content = path.read_bytes()
            assert VALUE.encode() not in content and key.read_bytes() not in content, path


@pytest.mark.long
def test_secret_ends_with_its_key(keeper):
    """Without the key, which is outside of the folder, secrets cannot be read, and new ones can be set."""
    keeper.stop()
    (key,) = keys(keeper)
    key.unlink()
    caller = keeper.start().caller()
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
    home = local_home.start()
    put(home.caller())
    assert home.caller().get("/1/secrets", params=NAME)["secret-value"] == VALUE
    home.stop()
    assert b"are lost when it ends" in home.process.stderr.read()
    assert not any("embedded-keys" in str(path) for path in home.root.parent.rglob("*"))
    assert not any(VALUE.encode() in path.read_bytes() for path in home.root.rglob("*") if path.is_file())
    home.start().caller().call("GET", "/1/secrets", 404, params=NAME)


@pytest.mark.long
def test_value_is_in_no_log_and_no_message(keeper):
    """No refusal, error, request log or server log has a value."""
    caller, said = keeper.caller(), []
    said.append(put(caller, status=422, expiry=-1).text)
    said.append(put(caller, status=422, name=""))
    said.append(put(caller, status=422, value=VALUE * 4000))
    said.append(put(caller, status=422, **{"secret-type": {VALUE: 1}}))
    said.append(caller.call("POST", "/1/secrets", 400, content=f'{{"secret-value": "{VALUE}", '.encode()))
    said.append(caller.call("POST", "/1/secrets", 400, json=[VALUE]))
    with keeper.control() as control:
        control.post("/faults", json={"path": "secrets", "status": 500, "count": 1}).raise_for_status()
        said.append(put(caller, status=500))
        said += [control.get("/log"), control.get("/faults")]
    keeper.kill()
    # A failure that nobody thought of: the table is gone.
    with sqlite3.connect(keeper.root / "ivcap.sqlite") as database:
        database.execute("DROP TABLE secrets")
    database.close()
    said.append(put(keeper.start().caller(), status=500))
    keeper.stop()
    traceback = keeper.process.stderr.read().decode()
    assert "no such table" in traceback
    assert not any(VALUE in getattr(one, "text", one) for one in [*said, traceback])


@pytest.mark.long
def test_secret_expires(first):
    """After its expiry time, in Unix seconds, a secret is in no answer."""
    end = int(time.time()) + 2
    put(first, "brief", expiry=end)
    assert first.get("/1/secrets", params={"secret-name": "brief"})["expiry-time"] == end
    assert "brief" in names(first)
    time.sleep(max(0.0, end - time.time()) + 0.05)
    first.call("GET", "/1/secrets", 404, params={"secret-name": "brief"})
    assert "brief" not in names(first)


def test_secrets_of_another_account_are_not_there(first, second):
    """Two accounts may use one name for different secrets. Neither can list or read the other's."""
    put(first, "mine", "one")
    assert "mine" not in names(second)
    second.call("GET", "/1/secrets", 404, params={"secret-name": "mine"})
    put(second, "mine", "two")
    assert [who.get("/1/secrets", params={"secret-name": "mine"})["secret-value"] for who in (first, second)] == [
        "one",
        "two",
    ]


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


@pytest.mark.parametrize(
    "body",
    [
        {"secret-name": "a", "secret-value": "b"},
        {"secret-name": "a", "secret-value": "b", "expiry-time": True},
        {"secret-name": "a", "secret-value": "b", "expiry-time": 2**63},
        {"secret-name": "a", "secret-value": 5, "expiry-time": 0},
        {"secret-name": "n" * 300, "secret-value": "b", "expiry-time": 0},
        {"secret-value": "b", "expiry-time": 0},
    ],
)
def test_malformed_secret_is_refused(first, body):
    """A missing field, or one of the wrong type or length, is a 422 with its name."""
    assert first.call("POST", "/1/secrets", 422, json=body).json()["name"].startswith(("secret-", "expiry-"))


@pytest.mark.long
def test_key_is_made_only_when_there_is_a_secret(local_home):
    """A server without secrets writes nothing outside of its folder."""
    caller = local_home.start().caller()
    assert names(caller) == []
    caller.call("GET", "/1/secrets", 404, params=NAME)
    assert keys(local_home) == []
