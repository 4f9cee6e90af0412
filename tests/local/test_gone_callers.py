"""A caller that disconnects while it sends is no failure of the server."""

import socket

PATHS = (
    "/1/aspects?entity=urn:t:e&schema=urn:t:s",
    "/provena/registry/registry/entity/model/create",
    "/provena/keycloak/realms/{PROVENA_REALM}/protocol/openid-connect/token",
    "/_embedded/clock",
)


def leave(home, path, token):
    """Announce a body, send a part of it, and disconnect."""
    host, port = home.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as caller:
        control = home.known()["control"]
        headers = {"Host": f"{host}:{port}", "Content-Length": 100, "Authorization": f"Bearer {token}"}
        headers |= {"Content-Type": "application/json", "X-Embedded-Control": control}
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", "{"]
        caller.sendall("\r\n".join(lines).encode())


def test_a_caller_that_goes_away_is_told_nothing_and_no_one_else_is(local_home, eventually):
    """Whatever was requested, nothing is written to the server's log, and no answer counts as a failure."""
    home = local_home.start()
    token = home.caller().http.headers["Authorization"].removeprefix("Bearer ")
    for path in PATHS:
        leave(home, path.format(**home.environment), token)
    with home.control() as control:
        asked = eventually(
            lambda: [one for one in control.get("/log").json()["requests"] if one["method"] == "POST"],
            lambda found: len(found) == len(PATHS) - 1 and all(one["status"] is not None for one in found),
        )
    home.stop()
    assert home.process.stderr.read() == b""
    assert [one["status"] for one in asked] == [499] * len(asked)
