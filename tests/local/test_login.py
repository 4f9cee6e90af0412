"""Login by device code on the embedded IVCAP, as ivcap-cli does it (cmd/login.go)."""

import os
import re
import socket
import subprocess
import sys
import time

import httpx
import jwt
import pytest
import yaml

from ivcap_flows.local.peer import is_own

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@pytest.fixture(scope="module")
def provider(local_platform):
    info = yaml.safe_load(httpx.get(f"{local_platform.url}/1/authinfo.yaml").text)
    assert info["version"] == 1
    return info["auth"]["providers"][info["auth"]["default-provider-id"]]


@pytest.fixture
def begin(provider):
    def start(scope="openid profile email offline_access"):
        form = {"client_id": provider["client-id"], "scope": scope, "audience": provider["audience"]}
        reply = httpx.post(provider["code-url"], data=form)
        assert reply.status_code == 200
        return reply.json()

    return start


@pytest.fixture
def ask(provider):
    """Send a token request, and return status and body."""

    def post(grant_type, **form):
        form = {"grant_type": grant_type, "client_id": provider["client-id"], **form}
        reply = httpx.post(provider["token-url"], data=form)
        return reply.status_code, reply.json()

    return post


@pytest.fixture
def decide(local_platform):
    def post(status=204, **wanted):
        with local_platform.control() as control:
            reply = control.post("/login", json=wanted)
        assert reply.status_code == status, reply.text

    return post


def test_login_waits_for_the_user_and_then_gives_tokens_that_work(local_platform, provider, begin, ask, decide, first):
    """A poll gets 403 authorization_pending, and after the approval a token of the chosen account."""
    device = begin()
    assert {"device_code", "user_code", "verification_uri", "expires_in", "interval"} <= set(device)
    assert ask(GRANT, device_code=device["device_code"])[1]["error"] == "authorization_pending"
    decide(user_code=device["user_code"], account="first")
    status, tokens = ask(GRANT, device_code=device["device_code"])
    assert (status, tokens["token_type"], tokens["expires_in"]) == (200, "Bearer", 3600)

    mine = first.upload(b"mine")
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert httpx.get(f"{local_platform.url}/1/artifacts/{mine['id']}", headers=bearer).status_code == 200

    key = jwt.PyJWKClient(provider["jwks-url"]).get_signing_key_from_jwt(tokens["id_token"])
    claims = jwt.decode(tokens["id_token"], key, algorithms=["RS256"], audience=provider["client-id"])
    own = jwt.decode(local_platform.environment["IVCAP_JWT"], options={"verify_signature": False})
    assert {name: claims[name] for name in ("acc", "sub", "name", "nickname", "email")} == {
        name: own[name] for name in ("acc", "sub", "name", "nickname", "email")
    }
    assert claims["ivcap/claims/provider"] == own["acc"]


def test_device_code_is_good_once(begin, ask, decide):
    """A second use of a device code is an `invalid_grant`."""
    device = begin()
    decide(user_code=device["user_code"], account="second")
    assert ask(GRANT, device_code=device["device_code"])[0] == 200
    status, refusal = ask(GRANT, device_code=device["device_code"])
    assert (status, refusal["error"]) == (403, "invalid_grant")


def test_polls_that_come_too_fast_are_told_to_slow_down(begin, ask):
    """A poll within the interval gets `slow_down`, and one after it is pending again."""
    device = begin()
    polls = [ask(GRANT, device_code=device["device_code"]) for _ in range(2)]
    time.sleep(device["interval"])
    polls.append(ask(GRANT, device_code=device["device_code"]))
    assert [(status, body["error"]) for status, body in polls] == [
        (403, "authorization_pending"),
        (403, "slow_down"),
        (403, "authorization_pending"),
    ]


def test_refused_login_is_denied(begin, ask, decide):
    """The device of a refused login gets `access_denied`."""
    device = begin()
    decide(user_code=device["user_code"], account="first", deny=True)
    status, refusal = ask(GRANT, device_code=device["device_code"])
    assert (status, refusal["error"]) == (403, "access_denied")


def test_device_code_expires(local_platform, begin, ask, decide):
    """After its lifetime a code is an `expired_token`, and can no longer be approved."""
    device = begin()
    with local_platform.control() as control:
        control.post("/clock", json={"advance": device["expires_in"] + 5}).raise_for_status()
    try:
        status, refusal = ask(GRANT, device_code=device["device_code"])
        decide(404, user_code=device["user_code"], account="first")
    finally:
        with local_platform.control() as control:
            control.delete("/clock")
    assert (status, refusal["error"]) == (403, "expired_token")


def test_refresh_tokens_rotate(local_platform, begin, ask, decide):
    """A refresh token can be used once.

    Its successor has the same account and lifetime, and no token is stored in plain text.
    """
    device = begin()
    decide(user_code=device["user_code"], account="second", lifetime=120)
    first = ask(GRANT, device_code=device["device_code"])[1]
    status, renewed = ask("refresh_token", refresh_token=first["refresh_token"])
    assert (status, renewed["expires_in"]) == (200, 120)
    assert renewed["id_token"] and renewed["refresh_token"] != first["refresh_token"]
    kept = b"".join(path.read_bytes() for path in local_platform.root.glob("ivcap.sqlite*"))
    assert b"refresh_tokens" in kept
    assert renewed["refresh_token"].encode() not in kept and device["device_code"].encode() not in kept
    own = jwt.decode(local_platform.environment["IVCAP_JWT_2"], options={"verify_signature": False})
    assert jwt.decode(renewed["access_token"], options={"verify_signature": False})["acc"] == own["acc"]


def test_second_use_of_a_refresh_token_ends_the_login(begin, ask, decide):
    """Its successors are refused, too; the same account's other logins go on."""
    logins = []
    for _ in range(2):
        device = begin()
        decide(user_code=device["user_code"], account="first")
        logins.append(ask(GRANT, device_code=device["device_code"])[1]["refresh_token"])
    successor = ask("refresh_token", refresh_token=logins[0])[1]["refresh_token"]
    for token in (logins[0], successor):
        status, refusal = ask("refresh_token", refresh_token=token)
        assert (status, refusal["error"]) == (403, "invalid_grant")
    assert ask("refresh_token", refresh_token=logins[1])[0] == 200


def test_access_token_of_a_login_ends(local_platform, begin, ask, decide):
    """An access token expires after the lifetime that the approval gave it."""
    device = begin()
    decide(user_code=device["user_code"], account="first", lifetime=1)
    token = ask(GRANT, device_code=device["device_code"])[1]["access_token"]
    time.sleep(1.2)
    reply = httpx.get(f"{local_platform.url}/1/artifacts", headers={"Authorization": f"Bearer {token}"})
    assert reply.status_code == 401 and "expired" in reply.json()["message"]


def test_no_refresh_token_without_offline_access(begin, ask, decide):
    """Only the scope offline_access gives a refresh token, and only openid an id token."""
    device = begin(scope="email")
    decide(user_code=device["user_code"], account="first")
    tokens = ask(GRANT, device_code=device["device_code"])[1]
    assert not {"refresh_token", "id_token"} & set(tokens)


def test_user_lets_a_device_in_on_the_page(begin, ask):
    """The page shows the code from its address, and its form approves the login."""
    device = begin()
    page = httpx.get(device["verification_uri_complete"])
    assert page.headers["content-type"].startswith("text/html") and device["user_code"] in page.text
    action = re.search(r'action="([^"]+)"', page.text)[1]
    origin = device["verification_uri"].removesuffix("/login")
    form = {"user_code": device["user_code"].lower(), "account": "second", "answer": "allow"}
    assert httpx.post(origin + action, data=form, headers={"Origin": origin}).status_code == 200
    assert ask(GRANT, device_code=device["device_code"])[0] == 200


def test_page_is_not_for_pages_of_other_sites(begin, ask):
    """A page of another site, one with a rebound name, or one of another server here cannot approve a login."""
    device = begin()
    form = {"user_code": device["user_code"], "account": "first", "answer": "allow"}
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "http://127.0.0.1:1"}):
        assert httpx.post(device["verification_uri"], data=form, headers=headers).status_code in (403, 421), headers
    assert ask(GRANT, device_code=device["device_code"])[1]["error"] == "authorization_pending"


AS_NOBODY = """
import encodings.idna, http.client, os, sys
os.setuid(65534)
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("POST", "/login", sys.argv[2])
print(connection.getresponse().status)
"""


@pytest.mark.skipif(os.getuid() != 0 or not sys.platform.startswith("linux"), reason="only root can be another user")
def test_page_is_not_for_other_users_of_the_machine(begin, ask):
    """Another user of the machine cannot approve a login, even with the code."""
    device = begin()
    port = str(httpx.URL(device["verification_uri"]).port)
    command = [sys.executable, "-c", AS_NOBODY, port, f"user_code={device['user_code']}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "403"
    assert ask(GRANT, device_code=device["device_code"])[1]["error"] == "authorization_pending"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_owner_of_a_connection_is_found(host, system, monkeypatch):
    """The owner of a connection is the user of the process that holds it, on systems without Linux's table as well.

    A closed, missing or remote connection has none.
    """
    if system == "linux" and sys.platform != system:
        pytest.skip("the table of connections is Linux's")
    monkeypatch.setattr(sys, "platform", system)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as mine,
    ):
        here, there = mine.getsockname()[:2], server.getsockname()[:2]
        assert is_own(here, there)
        assert not is_own((host, 1), there)
        assert not is_own(("203.0.113.9", here[1]), there)
        mine.close()
        assert not is_own(here, there)


def test_page_escapes_what_it_is_asked_with(local_platform):
    """A code in the address cannot add markup to the page."""
    page = httpx.get(f"{local_platform.url}/login", params={"user_code": '"><script>x()</script>'})
    assert "&lt;script" in page.text and "<script" not in page.text


def test_wrong_decisions_are_refused(local_platform, begin, decide):
    """An unknown code or account is a 404 and a malformed decision a 400. Each needs the control token."""
    code = begin()["user_code"]
    decide(404, user_code="BBBB-BBBB", account="first")
    decide(404, user_code=code, account="nobody")
    decide(400, user_code=code)
    decide(400, user_code=code, account="first", lifetime=-1)
    decide(400, user_code=code, account="first", deny="yes")
    assert (
        httpx.post(f"{local_platform.url}/_embedded/login", json={"user_code": code, "account": "first"}).status_code
        == 401
    )


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": GRANT, "device_code": "x"}, 403, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, 403, "invalid_grant"),
        ({"grant_type": GRANT, "client_id": "somebody"}, 401, "invalid_client"),
    ],
)
def test_bad_token_requests_are_refused_in_the_words_of_oauth(provider, form, status, error):
    """Each refusal has its status and its OAuth `error`."""
    reply = httpx.post(provider["token-url"], data={"client_id": provider["client-id"], **form})
    assert (reply.status_code, reply.json()["error"]) == (status, error)


@pytest.mark.long
def test_logins_last_over_a_restart(local_home):
    """A refresh token is valid after a restart, and the keys are the same."""
    home = local_home.start()
    client = {"client_id": "ivcap-flows"}
    device = httpx.post(f"{home.url}/login/device", data={**client, "scope": "openid offline_access"}).json()
    with home.control() as control:
        control.post("/login", json={"user_code": device["user_code"], "account": "first"})
    form = {**client, "grant_type": GRANT, "device_code": device["device_code"]}
    tokens = httpx.post(f"{home.url}/login/token", data=form).json()
    keys = httpx.get(f"{home.url}/login/keys").json()
    home.stop()
    home.start()
    form = {**client, "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert httpx.post(f"{home.url}/login/token", data=form).status_code == 200
    assert httpx.get(f"{home.url}/login/keys").json() == keys
    assert (home.root / "login.pem").stat().st_mode & 0o077 == 0
