"""The realm: which grants give tokens, and which tokens an API accepts."""

from __future__ import annotations

import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ivcap_flows.local.provena import service_credentials

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


def grant(provena, **form):
    return provena.http.post(f"{provena.realm()}/protocol/openid-connect/token", data=form)


def looked_up(provena, token):
    headers = {"Authorization": f"Bearer {token}"}
    return provena.http.get(provena.env["PROVENA_AUTH_API"] + "/link/user/lookup", headers=headers)


def refused(reply, detail):
    assert reply.status_code == 401
    assert reply.json() == {"detail": detail}
    assert reply.headers["www-authenticate"] == "Bearer"


def signing_key(provena):
    return load_pem_private_key((provena.directory / "provena-realm.pem").read_bytes(), None)


def test_a_token_of_another_realm_key_is_refused(provena, ada):
    """A token with the same claims, signed by another key, is refused."""
    claims = jwt.decode(ada.token, options={"verify_signature": False})
    foreign = jwt.encode(claims, rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256")
    assert looked_up(provena, jwt.encode(claims, signing_key(provena), "RS256")).status_code == 200
    refused(looked_up(provena, foreign), "Could not validate credentials")


def test_an_expired_token_is_refused(provena, ada):
    """An expired token gets the same message as one with a bad signature."""
    claims = jwt.decode(ada.token, options={"verify_signature": False}) | {"exp": int(time.time()) - 1}
    refused(looked_up(provena, jwt.encode(claims, signing_key(provena), "RS256")), "Could not validate credentials")


def test_an_offline_token_is_no_access_token(provena):
    """A refresh token sent as a bearer is refused."""
    refused(looked_up(provena, provena.env["PROVENA_OFFLINE_TOKEN"]), "Could not validate credentials")


def test_the_published_key_checks_a_token(provena, ada):
    """The JWKS has the key that signed the token. A token is valid for 300 seconds."""
    keys = jwt.PyJWKClient(f"{provena.realm()}/protocol/openid-connect/certs")
    claims = jwt.decode(ada.token, keys.get_signing_key_from_jwt(ada.token).key, ["RS256"])
    assert claims["exp"] - claims["iat"] == 300
    assert claims["iss"] == provena.realm()


def begun(provena, **form):
    return provena.http.post(f"{provena.realm()}/protocol/openid-connect/auth/device", data=form).json()


def answered(provena, code, account="embedded-user", answer="allow"):
    form = {"user_code": code["user_code"], "account": account, "answer": answer}
    return provena.http.post(code["verification_uri"], data=form)


def test_a_device_grant_waits_until_it_is_decided_on(provena):
    """A device grant is pending until the decision, and too frequent polls get `slow_down`.

    Its tokens can be refreshed.
    """
    code = begun(provena, client_id="automated-access", scope="offline_access roles")
    poll = {"grant_type": DEVICE, "device_code": code["device_code"], "client_id": "automated-access"}
    first = grant(provena, **poll)
    assert (first.status_code, first.json()["error"]) == (400, "authorization_pending")
    assert grant(provena, **poll).json()["error"] == "slow_down"
    time.sleep(1)
    assert grant(provena, **poll).json()["error"] == "authorization_pending"
    assert answered(provena, code).status_code == 200
    tokens = grant(provena, **poll).json()
    assert looked_up(provena, tokens["access_token"]).status_code == 200
    again = grant(
        provena, grant_type="refresh_token", client_id="automated-access", refresh_token=tokens["refresh_token"]
    )
    assert again.status_code == 200
    assert grant(provena, **poll).json()["error"] == "invalid_grant", "a code is good for one grant"


def test_to_see_the_page_approves_nothing(provena):
    """Only the page's form approves a login, for the chosen account, and once."""
    code = begun(provena, client_id="client-tools")
    poll = {"grant_type": DEVICE, "device_code": code["device_code"], "client_id": "client-tools"}
    page = provena.http.get(code["verification_uri_complete"])
    assert page.status_code == 200
    assert code["user_code"] in page.text
    assert grant(provena, **poll).json()["error"] == "authorization_pending"
    assert answered(provena, code, "embedded-user-2").status_code == 200
    assert answered(provena, code, "embedded-admin").status_code == 404
    token = grant(provena, **poll).json()["access_token"]
    assert jwt.decode(token, options={"verify_signature": False})["preferred_username"] == "embedded-user-2"


def test_a_refused_device_gets_nothing(provena):
    """A refused device gets an error, and an unknown account cannot approve it."""
    code = begun(provena, client_id="client-tools")
    poll = {"grant_type": DEVICE, "device_code": code["device_code"], "client_id": "client-tools"}
    assert answered(provena, code, "nobody").status_code == 404
    assert answered(provena, code, answer="deny").status_code == 200
    assert grant(provena, **poll).json()["error"] == "access_denied"


def test_a_token_without_the_roles_scope_is_refused(provena):
    """The client automated-access gives roles only if the scope was requested."""
    start = {"client_id": "automated-access"}
    code = begun(provena, **start)
    answered(provena, code)
    token = grant(provena, grant_type=DEVICE, device_code=code["device_code"], **start).json()["access_token"]
    refused(looked_up(provena, token), "Token had incorrect structure.")


def test_a_service_account_gets_a_token_by_its_secret(provena):
    """Client credentials give a user with the client's own name. A wrong secret gives nothing."""
    client, secret = service_credentials(provena.directory)
    form = {"grant_type": "client_credentials", "client_id": client}
    token = grant(provena, **form, client_secret=secret).json()["access_token"]
    assert jwt.decode(token, options={"verify_signature": False})["preferred_username"] == f"service-account-{client}"
    assert looked_up(provena, token).json() == {"person_id": None, "success": False}
    assert grant(provena, **form, client_secret="wrong").status_code == 401


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "refresh_token", "client_id": "client-tools"}, "invalid_grant"),
        ({"grant_type": "refresh_token", "client_id": "nobody"}, "invalid_client"),
        ({"grant_type": "password", "client_id": "client-tools"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials", "client_id": "automated-access"}, "unauthorized_client"),
    ],
)
def test_a_refused_grant_says_why(provena, form, error):
    """Errors have the codes of RFC 6749. A token of one client is refused for another."""
    reply = grant(provena, **form, refresh_token=provena.env["PROVENA_OFFLINE_TOKEN"])
    assert reply.status_code in (400, 401)
    assert reply.json()["error"] == error
