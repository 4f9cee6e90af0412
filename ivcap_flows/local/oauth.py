"""The parts that both logins share: the grants of RFC 6749 and RFC 8628, and how they are requested and refused."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, Response

__all__ = ["DEVICE_GRANT", "NO_STORE", "GrantError", "read_form"]

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
NO_STORE: Final = {"cache-control": "no-store"}


class GrantError(Exception):
    """A refused token request, in the words of RFC 6749 and RFC 8628."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error, self.description, self.status = error, description, status

    def response(self) -> Response:
        said = {"error": self.error, "error_description": self.description}
        return JSONResponse(said, self.status, headers=NO_STORE)


def read_form(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
