"""What the control routes of a served twin do to Provena."""

import os
import subprocess
import sys

import httpx
import jwt
import pytest

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@pytest.fixture
def realm(local_twin):
    """Asks an endpoint of the realm's login with a form."""
    environment = local_twin.environment
    base = f"{environment['PROVENA_KEYCLOAK']}/realms/{environment['PROVENA_REALM']}/protocol/openid-connect"

    def ask(path, **form):
        return httpx.post(f"{base}/{path}", data={"client_id": "client-tools", **form}).json()

    return ask


def test_a_device_is_let_in_by_the_control_route(local_twin, realm):
    """By its user code, as a user of the realm, or refused; an account that there is not is 404."""
    let_in, refused = realm("auth/device"), realm("auth/device")
    with local_twin.control() as control:
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
    """Whoever else can reach the port and knows the code decides nothing."""
    device = realm("auth/device")
    page = httpx.URL(device["verification_uri"])
    form = f"user_code={device['user_code']}&answer=allow"
    command = [sys.executable, "-c", AS_NOBODY, str(page.port), page.path, form]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "403"
    assert realm("token", grant_type=GRANT, device_code=device["device_code"])["error"] == "authorization_pending"
