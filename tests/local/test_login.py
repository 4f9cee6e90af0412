"""Login on both platforms: by device code, as ivcap-cli (cmd/login.go) and Provena's client do it, and other grants."""

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
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ivcap_flows.local.peer import is_own
from ivcap_flows.local.provena import service_credentials

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
WAITING = "authorization_pending"


class Provider:
    """An identity provider, as a program sees it that logs its user in."""

    def __init__(self, client, device_url, token_url, accounts, refusal):
        self.client, self.device_url, self.token_url = client, device_url, token_url
        self.accounts, self.refusal = accounts, refusal

    def begin(self, scope="openid offline_access roles", **more):
        reply = httpx.post(self.device_url, data={"client_id": self.client, "scope": scope, **more}, timeout=60)
        assert reply.status_code == 200
        return reply.json()

    def ask(self, grant_type, **form):
        form = {"client_id": self.client, "grant_type": grant_type, **form}
        return httpx.post(self.token_url, data=form, timeout=60)

    def poll(self, device):
        return self.ask(DEVICE, device_code=device["device_code"])

    def refresh(self, token):
        return self.ask("refresh_token", refresh_token=token)

    def refused(self, reply, error):
        assert (reply.status_code, reply.json()["error"]) == (self.refusal, error)


@pytest.fixture
def ivcap(local_platform):
    info = yaml.safe_load(httpx.get(f"{local_platform.url}/1/authinfo.yaml").text)
    assert info["version"] == 1
    found = info["auth"]["providers"][info["auth"]["default-provider-id"]]
    made = Provider(found["client-id"], found["code-url"], found["token-url"], ("first", "second"), 403)
    made.keys = found["jwks-url"]
    return made


@pytest.fixture
def provena(local_platform):
    base = f"{local_platform.realm}/protocol/openid-connect"
    accounts = ("embedded-user", "embedded-user-2")
    return Provider("automated-access", f"{base}/auth/device", f"{base}/token", accounts, 400)


@pytest.fixture(params=["ivcap", "provena"])
def provider(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def decide(control):
    def post(device, account, status=204, **more):
        reply = control.post("/login", json={"user_code": device["user_code"], "account": account, **more})
        assert reply.status_code == status, reply.text

    return post


def account_of(token):
    claims = jwt.decode(token, options={"verify_signature": False})
    return claims.get("preferred_username") or claims["acc"]


def test_login_waits_for_the_user_and_then_gives_tokens(provider, decide):
    """A poll is told to wait, or to slow down; a decision gives tokens of the chosen account, once, that can be
    refreshed.
    """
    device = provider.begin()
    assert {"device_code", "user_code", "verification_uri", "expires_in", "interval"} <= set(device)
    provider.refused(provider.poll(device), WAITING)
    # On a busy machine, a poll may come after the interval.
    assert "slow_down" in [provider.poll(device).json()["error"] for _ in range(5)]
    decide(device, provider.accounts[1])
    tokens = provider.poll(device).json()
    assert tokens["token_type"] == "Bearer"
    provider.refused(provider.poll(device), "invalid_grant")
    again = provider.refresh(tokens["refresh_token"]).json()
    assert account_of(again["access_token"]) == account_of(tokens["access_token"])
    assert again["refresh_token"] != tokens["refresh_token"]


def test_refused_and_late_logins_get_nothing(provider, control, decide):
    """A refused device is denied, a late one has expired, and wrong decisions are refused."""
    denied, late = provider.begin(), provider.begin()
    decide(denied, "nobody", 404)
    decide({"user_code": "BBBB-BBBB"}, provider.accounts[0], 404)
    decide(denied, provider.accounts[0], 400, lifetime=-1)
    decide(denied, provider.accounts[0], 400, deny="yes")
    assert control.post("/login", json={"user_code": denied["user_code"]}).status_code == 400
    decide(denied, provider.accounts[0], deny=True)
    provider.refused(provider.poll(denied), "access_denied")
    control.post("/clock", json={"advance": late["expires_in"] + 5}).raise_for_status()
    provider.refused(provider.poll(late), "expired_token")
    decide(late, provider.accounts[0], 404)


def test_user_lets_a_device_in_on_the_page(provider):
    """The page shows the code from its address, and only its form approves the login, for the chosen account, once."""
    device = provider.begin()
    page = httpx.get(device["verification_uri_complete"])
    assert page.headers["content-type"].startswith("text/html") and device["user_code"] in page.text
    provider.refused(provider.poll(device), WAITING)
    action = httpx.URL(device["verification_uri"]).join(re.search(r'action="([^"]+)"', page.text)[1])
    form = {"user_code": device["user_code"].lower(), "account": provider.accounts[1], "answer": "allow"}
    origin = {"Origin": f"http://{action.host}:{action.port}"}
    assert httpx.post(action, data=form | {"account": "nobody"}, headers=origin).status_code == 404
    assert httpx.post(action, data=form, headers=origin).status_code == 200
    assert httpx.post(action, data=form, headers=origin).status_code == 404
    assert provider.poll(device).status_code == 200
    refused = provider.begin()
    assert httpx.post(action, data={"user_code": refused["user_code"], "answer": "deny"}).status_code == 200
    provider.refused(provider.poll(refused), "access_denied")


def test_page_is_not_for_pages_of_other_sites(provider):
    """A page of another site, one with a rebound name, or one of another server here cannot approve a login."""
    device = provider.begin()
    form = {"user_code": device["user_code"], "account": provider.accounts[0], "answer": "allow"}
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "http://127.0.0.1:1"}):
        assert httpx.post(device["verification_uri"], data=form, headers=headers).status_code in (403, 421), headers
    provider.refused(provider.poll(device), WAITING)


def test_page_escapes_what_it_is_asked_with(provider):
    """A code in the address cannot add markup to the page."""
    page = httpx.get(provider.begin()["verification_uri"], params={"user_code": '"><script>x()</script>'})
    assert "&lt;script" in page.text and "<script" not in page.text


AS_NOBODY = """
import encodings.idna, http.client, os, sys
os.setuid(65534)
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("POST", sys.argv[2], sys.argv[3])
print(connection.getresponse().status)
"""


@pytest.mark.skipif(os.getuid() != 0 or not sys.platform.startswith("linux"), reason="only root can be another user")
def test_page_is_not_for_other_users_of_the_machine(provider):
    """Another user of the machine cannot approve a login, even with the code."""
    device = provider.begin()
    page, form = httpx.URL(device["verification_uri"]), f"user_code={device['user_code']}&answer=allow"
    command = [sys.executable, "-c", AS_NOBODY, str(page.port), page.path, form]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "403"
    provider.refused(provider.poll(device), WAITING)


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


@pytest.mark.parametrize(
    ("name", "form", "status", "error"),
    [
        ("ivcap", {"grant_type": "password"}, 400, "unsupported_grant_type"),
        ("ivcap", {"grant_type": DEVICE, "device_code": "x"}, 403, "invalid_grant"),
        ("ivcap", {"grant_type": "refresh_token", "refresh_token": "x"}, 403, "invalid_grant"),
        ("ivcap", {"grant_type": DEVICE, "client_id": "somebody"}, 401, "invalid_client"),
        ("provena", {"grant_type": "password"}, 400, "unsupported_grant_type"),
        ("provena", {"grant_type": "refresh_token", "refresh_token": "of another client"}, 400, "invalid_grant"),
        ("provena", {"grant_type": "refresh_token", "client_id": "nobody"}, 401, "invalid_client"),
        ("provena", {"grant_type": "client_credentials"}, 401, "unauthorized_client"),
    ],
)
def test_bad_token_requests_are_refused_in_the_words_of_oauth(local_platform, request, name, form, status, error):
    """Each refusal has its status and its `error` of RFC 6749. A token of one client is refused for another."""
    if form.get("refresh_token") == "of another client":
        form = form | {"refresh_token": local_platform.environment["PROVENA_OFFLINE_TOKEN"], "client_id": "admin-tools"}
    reply = request.getfixturevalue(name).ask(**form)
    assert (reply.status_code, reply.json()["error"]) == (status, error)


def test_tokens_of_ivcap_are_of_the_chosen_account(local_platform, first, ivcap, decide):
    """The access token reads what the account may read, and the id token names the account as its own token does."""
    device = ivcap.begin("openid profile email offline_access")
    decide(device, "first")
    tokens = ivcap.poll(device).json()
    assert tokens["expires_in"] == 3600
    mine, bearer = first.upload(b"mine"), {"Authorization": f"Bearer {tokens['access_token']}"}
    assert httpx.get(f"{first.url}/1/artifacts/{mine['id']}", headers=bearer).status_code == 200
    key = jwt.PyJWKClient(ivcap.keys).get_signing_key_from_jwt(tokens["id_token"])
    claims = jwt.decode(tokens["id_token"], key, algorithms=["RS256"], audience=ivcap.client)
    own = jwt.decode(local_platform.environment["IVCAP_JWT"], options={"verify_signature": False})
    for name in ("acc", "sub", "name", "nickname", "email"):
        assert claims[name] == own[name]
    assert claims["ivcap/claims/provider"] == own["acc"]
    device = ivcap.begin(scope="email")
    decide(device, "first")
    assert not {"refresh_token", "id_token"} & set(ivcap.poll(device).json())


def test_refresh_tokens_of_ivcap_rotate(local_platform, ivcap, control, decide):
    """A refresh token can be used once; its second use ends the login, and no other of the account. The lifetime that
    the approval gave goes on. No token is stored in plain text.
    """
    logins = []
    for _ in range(2):
        device = ivcap.begin()
        decide(device, "second", lifetime=120)
        logins.append(ivcap.poll(device).json())
    renewed = ivcap.refresh(logins[0]["refresh_token"]).json()
    assert renewed["expires_in"] == 120 and renewed["id_token"]
    kept = b"".join(path.read_bytes() for path in local_platform.root.glob("ivcap.sqlite*"))
    assert b"refresh_tokens" in kept
    assert renewed["refresh_token"].encode() not in kept and device["device_code"].encode() not in kept
    for token in (logins[0]["refresh_token"], renewed["refresh_token"]):
        ivcap.refused(ivcap.refresh(token), "invalid_grant")
    assert ivcap.refresh(logins[1]["refresh_token"]).status_code == 200
    control.post("/clock", json={"advance": 121})
    bearer = {"Authorization": f"Bearer {renewed['access_token']}"}
    reply = httpx.get(f"{local_platform.url}/1/artifacts", headers=bearer)
    assert reply.status_code == 401 and "expired" in reply.json()["message"]


def looked_up(ada, token):
    return ada.ask("auth", "GET", "/link/user/lookup", token=token)


def test_a_token_that_is_no_valid_access_token_is_refused_by_provena(local_platform, ada, provena, decide):
    """One of another key, an expired one, an offline token, or one without the roles scope. A good one is valid for 300
    seconds, and the published key checks it.
    """
    own = load_pem_private_key((local_platform.root / "provena-realm.pem").read_bytes(), None)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keys = jwt.PyJWKClient(f"{local_platform.realm}/protocol/openid-connect/certs")
    claims = jwt.decode(ada.token, keys.get_signing_key_from_jwt(ada.token).key, ["RS256"])
    assert (claims["exp"] - claims["iat"], claims["iss"]) == (300, local_platform.realm)
    assert looked_up(ada, jwt.encode(claims, own, "RS256")).status_code == 200
    device = provena.begin(scope="")
    decide(device, "embedded-user")
    invalid = "Could not validate credentials"
    for token, detail in (
        (jwt.encode(claims, other, "RS256"), invalid),
        (jwt.encode(claims | {"exp": int(time.time()) - 1}, own, "RS256"), invalid),
        (local_platform.environment["PROVENA_OFFLINE_TOKEN"], invalid),
        (provena.poll(device).json()["access_token"], "Token had incorrect structure."),
    ):
        reply = looked_up(ada, token)
        assert (reply.status_code, reply.json()) == (401, {"detail": detail})
        assert reply.headers["www-authenticate"] == "Bearer"


def test_a_service_account_gets_a_token_by_its_secret(local_platform, ada, provena):
    """Client credentials give a user with the client's own name. A wrong secret gives nothing."""
    client, secret = service_credentials(local_platform.root)
    token = provena.ask("client_credentials", client_id=client, client_secret=secret).json()["access_token"]
    assert account_of(token) == f"service-account-{client}"
    assert looked_up(ada, token).json() == {"person_id": None, "success": False}
    assert provena.ask("client_credentials", client_id=client, client_secret="wrong").status_code == 401
