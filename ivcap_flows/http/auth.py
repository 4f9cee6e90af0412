"""The Authorization header: where a session gets its token, and how it is sent. No repr shows a secret."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncGenerator
from typing import Any, Protocol, runtime_checkable

import httpx
from pydantic import SecretStr

from ivcap_flows.errors import ConfigurationError
from ivcap_flows.http.pool import abandon
from ivcap_flows.http.server_clock import date_of

__all__ = ["Auth", "StaticToken", "TokenAuth", "claims", "expiry", "lifetime"]


@runtime_checkable
class Auth(Protocol):
    """The source of a session's Authorization header."""

    @property
    def refreshable(self) -> bool:
        """Whether `header(force=True)` can return another token."""

    def expired_at(self, moment: float) -> bool:
        """Return whether the current token is known to have expired by `moment`, in seconds since the epoch."""

    async def header(self, *, force: bool = False) -> str | None:
        """Return the header's value; None sends no header. `force` renews the token first."""


class TokenAuth(httpx.Auth):
    """Sends the header of an `Auth`, and sends again with a new one if the reply blames the token."""

    def __init__(self, source: Auth) -> None:
        self._source = source

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        token = await self._source.header()
        if token is None:
            yield request
            return
        request.headers["Authorization"] = token
        response = yield request
        if response.status_code != 401 or not self._source.refreshable:
            return
        challenge = response.headers.get("www-authenticate", "").lower()
        # Check by this machine's clock, by which the expiry of a renewed token was noted, and by the platform's.
        date = date_of(response.headers.get("date"))
        moments = [time.time(), *([date.timestamp()] if date is not None else [])]
        if not challenge.startswith("bearer") and not any(map(self._source.expired_at, moments)):
            return
        fresh = await self._source.header()
        if fresh == token:
            fresh = await self._source.header(force=True)
        request.headers["Authorization"] = fresh or token
        await response.aread()
        await abandon(response)
        yield request


def claims(header: str | None) -> dict[str, Any]:
    """Return the claims in the JWT of an Authorization header; empty if it is not a JWT.

    They are not verified; the platform verifies them.
    """
    # The claims are only read, never trusted, so no library is needed to verify them (RFC 7519, section 3).
    parts = (header or "").rpartition(" ")[2].split(".")
    try:
        found = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))) if len(parts) == 3 else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def expiry(token: str) -> float | None:
    """Return when a JWT expires, in seconds since the epoch; None if it does not say."""
    moment = claims(token).get("exp")
    return float(moment) if isinstance(moment, int | float) else None


def lifetime(token: str) -> float | None:
    """Return for how many seconds a JWT is valid, without this machine's clock; None if it does not say."""
    issued, moment = claims(token).get("iat"), expiry(token)
    return moment - float(issued) if isinstance(issued, int | float) and moment is not None else None


class StaticToken:
    """A token that stays the same for the life of the process."""

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
