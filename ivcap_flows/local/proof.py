"""How the server of a folder shows that it is the one: it proves that it knows the control token, without sending it.

Where a killed server listened, a program of another user may listen now. That one must get no token.
"""

from __future__ import annotations

import hmac
import http.client
import json
import secrets
from typing import Any, Final
from urllib.parse import urlsplit

__all__ = ["CHALLENGE_HEADER", "connected", "proof"]

CHALLENGE_HEADER: Final = "X-Embedded-Challenge"
_PATIENCE: Final = 5.0


def proof(control: str, challenge: str) -> str:
    """Return what only a holder of the control token can answer to a challenge."""
    return hmac.new(control.encode(), challenge.encode(), "sha256").hexdigest()


def connected(server: dict[str, Any]) -> http.client.HTTPConnection | None:
    """Return a connection to the server that wrote this about itself; None if that one does not answer in seconds.

    The connection is never opened again on its own, so whatever is sent on it reaches this server or nobody.
    """
    parts = urlsplit(str(server.get("url")))
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=_PATIENCE)
    challenge = secrets.token_urlsafe(16)
    try:
        connection.connect()
        connection.auto_open = 0
        connection.request("GET", "/_embedded", headers={CHALLENGE_HEADER: challenge})
        about = json.loads(connection.getresponse().read())
        answer, expected = str(about.get("proof")), proof(str(server.get("control")), challenge)
        if hmac.compare_digest(answer.encode(), expected.encode()):
            return connection
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        pass
    connection.close()
    return None
