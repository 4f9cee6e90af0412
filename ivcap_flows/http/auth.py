"""What a session asks for its Authorization header, and a token that is given. No repr shows a secret."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any, Protocol, runtime_checkable

from pydantic import SecretStr

from ivcap_flows.errors import ConfigurationError

__all__ = ["Auth", "StaticToken", "claims", "expiry", "lifetime"]


@runtime_checkable
class Auth(Protocol):
    """What a session asks for the Authorization header."""

    @property
    def refreshable(self) -> bool:
        """Whether `header(force=True)` can give another token."""

    def expired_at(self, moment: float) -> bool:
        """Whether the present token is known to have expired by a moment, in seconds since the epoch."""

    async def header(self, *, force: bool = False) -> str | None:
        """The header's value; `force` renews the token first. None sends no header."""


def claims(header: str | None) -> dict[str, Any]:
    """The claims in the JWT of an Authorization header, not verified (the platform does); empty when it is none."""
    # Only read, never trusted, so no library that verifies is needed (RFC 7519, section 3).
    parts = (header or "").rpartition(" ")[2].split(".")
    try:
        found = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))) if len(parts) == 3 else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def expiry(token: str) -> float | None:
    """When a JWT expires, in seconds since the epoch; None where it does not tell."""
    moment = claims(token).get("exp")
    return float(moment) if isinstance(moment, int | float) else None


def lifetime(token: str) -> float | None:
    """For how many seconds a JWT is good, which no clock of this side is needed for; None where it does not tell."""
    issued, moment = claims(token).get("iat"), expiry(token)
    return moment - float(issued) if isinstance(issued, int | float) and moment is not None else None


class StaticToken:
    """A token for the life of the process."""

    refreshable = False

    def __init__(self, token: SecretStr | str) -> None:
        text = token.get_secret_value() if isinstance(token, SecretStr) else token
        scheme, _, rest = text.strip().partition(" ")
        text = rest.strip() if scheme.lower() == "bearer" else text.strip()
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            raise ConfigurationError("The token is empty or holds characters that no token has; copy it again.")
        self._token = SecretStr(text)

    def __repr__(self) -> str:
        return "StaticToken(***)"

    def expired_at(self, moment: float) -> bool:
        end = expiry(self._token.get_secret_value())
        return end is not None and end <= moment

    async def header(self, *, force: bool = False) -> str | None:
        return f"Bearer {self._token.get_secret_value()}"
