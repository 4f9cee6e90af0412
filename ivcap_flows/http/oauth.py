"""Tokens of an identity provider (RFC 6749), and the device login of RFC 8628. No repr shows a secret."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from ivcap_flows.errors import NotAuthorizedError, ProtocolError, WaitTimeoutError
from ivcap_flows.http.auth import expiry, lifetime
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.http.status import detail_of, redact

__all__ = ["DeviceLogin", "Tokens", "Verification", "renewed"]

_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True)
class Tokens:
    """The tokens that a token endpoint granted (RFC 6749, section 5.1). `expires_at` is in seconds since the epoch."""

    access: SecretStr
    refresh: SecretStr | None = None
    id: SecretStr | None = None
    expires_at: float | None = None


async def renewed(
    token_url: str,
    client_id: str,
    *,
    refresh_token: SecretStr | None = None,
    client_secret: SecretStr | None = None,
    audience: str | None = None,
) -> Tokens:
    """Return new tokens for a refresh token, else for client credentials (RFC 6749, sections 6 and 4.4).

    Raises NotAuthorizedError if they are refused.
    """
    form = {"client_id": client_id, "grant_type": "client_credentials"}
    if refresh_token is not None:
        form |= {"grant_type": "refresh_token", "refresh_token": refresh_token.get_secret_value()}
    if client_secret is not None:
        form["client_secret"] = client_secret.get_secret_value()
    if audience is not None:
        form["audience"] = audience
    return await _Endpoint(token_url).grant(form)


@dataclass(frozen=True)
class Verification:
    """The facts that a user needs for a device login: open `uri` and enter `code`, or open `complete_uri`."""

    uri: str
    code: str
    complete_uri: str | None
    expires_in: float


class DeviceLogin:
    """A login by the device authorization grant (RFC 8628).

    `show` is called with the address where the user confirms it. A pending reply may be a 400 (the RFC) or a 403
    (IVCAP's provider).
    """

    def __init__(
        self,
        code_url: str,
        token_url: str,
        client_id: str,
        *,
        show: Callable[[Verification], None],
        audience: str | None = None,
        scope: str = "openid profile email offline_access",
    ) -> None:
        self._code = _Endpoint(code_url)
        self._token = _Endpoint(token_url)
        self._client_id = client_id
        self._show = show
        self._audience = audience
        self._scope = scope

    def __repr__(self) -> str:
        return f"DeviceLogin({self._token.url!r}, client_id={self._client_id!r})"

    async def tokens(self) -> Tokens:
        """Ask the user to confirm, wait for it, and return the granted tokens.

        Raises WaitTimeoutError if nobody confirms in time, NotAuthorizedError if the user refuses.
        """
        form = {"client_id": self._client_id, "scope": self._scope}
        if self._audience is not None:
            form["audience"] = self._audience
        reply = await self._code.post(form)
        if reply.status != 200:
            raise _refused(reply, form, "The device login could not begin", "Check the client id and the provider.")
        begun = _object(reply)
        try:
            device_code = str(begun["device_code"])
            verification = Verification(
                uri=str(begun["verification_uri"]),
                code=str(begun["user_code"]),
                complete_uri=begun.get("verification_uri_complete"),
                expires_in=float(begun.get("expires_in", 600)),
            )
            interval = float(begun.get("interval", 5))
        except (KeyError, TypeError, ValueError) as error:
            raise reply.violation("is no device authorization response (RFC 8628, section 3.2)") from error
        self._show(verification)
        deadline = time.monotonic() + verification.expires_in
        while time.monotonic() + interval <= deadline:
            await asyncio.sleep(interval)
            began = time.time()
            form = {"grant_type": _DEVICE_GRANT, "device_code": device_code, "client_id": self._client_id}
            reply = await self._token.post(form)
            if reply.status == 200:
                return _granted(reply, began)
            code, _ = _oauth_error(reply, form)
            if code == "slow_down":
                # RFC 8628 asks for five more seconds, `ivcap login` doubles the interval; the longer of both suits
                # every provider.
                interval = max(interval + 5, 2 * interval)
            elif code == "expired_token":
                break
            elif code != "authorization_pending":
                raise _refused(reply, form, "The device login was refused", "Log in again.")
        raise WaitTimeoutError(
            f"Nobody confirmed the login at {verification.uri} within {verification.expires_in:.0f} s. Log in again.",
            pending=[],
        )


class _Endpoint:
    """A URL of an identity provider that accepts forms.

    It gets no token, and each request uses its own connection pool.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        Session(self._origin, platform="the identity provider")  # checks the URL

    async def post(self, form: Mapping[str, str]) -> Reply:
        async with Session(self._origin, platform="the identity provider") as session:
            return await session.request(
                "POST", self._path, data=form, repeat="idempotent", expect=(200, 400, 401, 403), timeout=30
            )

    async def grant(self, form: Mapping[str, str]) -> Tokens:
        began = time.time()
        reply = await self.post(form)
        if reply.status != 200:
            what = f"The token endpoint {self.url} refused to renew the token"
            raise _refused(reply, form, what, "Log in again or set a new refresh token.")
        return _granted(reply, began)


def _refused(reply: Reply, form: Mapping[str, str], what: str, step: str) -> NotAuthorizedError:
    words = _oauth_error(reply, form)[1]
    return NotAuthorizedError(
        f"{what}: {words}. {step}",
        platform=reply.platform,
        method=reply.method,
        path=reply.path,
        status=reply.status,
        detail=words,
    )


def _object(reply: Reply) -> dict[str, Any]:
    value = reply.json()
    if not isinstance(value, dict):
        raise reply.violation("is no JSON object")
    return value


def _granted(reply: Reply, began: float) -> Tokens:
    granted = _object(reply)
    access, refresh, identity = (_secret(granted.get(f"{kind}_token")) for kind in ("access", "refresh", "id"))
    if access is None:
        raise reply.violation("holds no access_token")
    text = access.get_secret_value()
    try:
        lasts: float | None = float(granted["expires_in"])
    except (KeyError, TypeError, ValueError):
        lasts = lifetime(text)
    # Count from before the request. The `exp` claim is on the provider's clock, which may differ from this one.
    expires_at = expiry(text) if lasts is None else began + lasts
    return Tokens(access, refresh, identity, expires_at)


def _secret(value: Any) -> SecretStr | None:
    return SecretStr(value) if isinstance(value, str) and value else None


def _oauth_error(reply: Reply, form: Mapping[str, str]) -> tuple[str, str]:
    """Return the error code of RFC 6749, section 5.2, and a readable message without the form's secrets."""
    try:
        body = reply.json()
    except ProtocolError:
        body = None
    code = body.get("error") if isinstance(body, dict) else None
    secrets = [form[name] for name in ("refresh_token", "client_secret", "device_code") if name in form]
    words = redact(detail_of(reply.body), secrets).rstrip(".") or f"status {reply.status}"
    code = code if isinstance(code, str) else ""
    return code, f"{code} ({words})" if code and code != words else words
