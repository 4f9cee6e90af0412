"""Tokens that renew themselves, and the device login of RFC 8628. No repr shows a secret."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from ivcap_flows.errors import ConfigurationError, NotAuthorizedError, ProtocolError, WaitTimeoutError
from ivcap_flows.http.auth import StaticToken, expiry, lifetime
from ivcap_flows.http.pauses import retry_until
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.http.status import detail_of, redact

__all__ = ["DeviceLogin", "RefreshingToken", "Tokens", "Verification", "renewed"]

_SKEW: Final = 30.0
"""Seconds before its expiry at which a token is renewed, since clocks differ and requests take time."""

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
    scope: str | None = None,
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
    if scope is not None:
        form["scope"] = scope
    if audience is not None:
        form["audience"] = audience
    return await _Endpoint(token_url).grant(form)


class RefreshingToken:
    """An access token that renews itself at an OpenID Connect token endpoint (RFC 6749, sections 4.4 and 6).

    With a `refresh_token` (or offline token) it uses the refresh grant, otherwise client credentials, which need a
    `client_secret`. It renews `skew` seconds before expiry; concurrent callers share one renewal. A new refresh token
    replaces the old one, and `on_rotate` is called with it.
    """

    refreshable = True

    def __init__(
        self,
        token_url: str,
        client_id: str,
        *,
        refresh_token: SecretStr | None = None,
        client_secret: SecretStr | None = None,
        scope: str | None = None,
        audience: str | None = None,
        access_token: SecretStr | None = None,
        expires_at: float | None = None,
        skew: float = _SKEW,
        on_rotate: Callable[[SecretStr], None] | None = None,
    ) -> None:
        """`expires_at` is in seconds since the epoch; by default it is read from the access token."""
        if refresh_token is None and client_secret is None:
            raise ConfigurationError("A token that renews itself needs a refresh token or a client secret.")
        self._token_url = _Endpoint(token_url).url  # checks the URL now, not at the first renewal
        self._client_id = client_id
        self._refresh_token = refresh_token
        self._client_secret = client_secret
        self._scope = scope
        self._audience = audience
        self._skew = skew
        self._on_rotate = on_rotate
        self._access = access_token
        self._expires_at = expires_at
        if access_token is not None and expires_at is None:
            self._expires_at = expiry(access_token.get_secret_value())
        self._renewal: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"RefreshingToken({self._token_url!r}, client_id={self._client_id!r}, token=***)"

    def expired_at(self, moment: float) -> bool:
        return self._expires_at is not None and self._expires_at <= moment

    async def header(self, *, force: bool = False) -> str | None:
        """Return the header's value. Raises NotAuthorizedError if the endpoint refuses to renew."""
        if force or self._due():
            if self._renewal is None or self._renewal.done():
                self._renewal = asyncio.ensure_future(self._renew())
            # Do not cancel the renewal with its caller: a refresh token may be valid for a single use.
            await asyncio.shield(self._renewal)
        assert self._access is not None
        return f"Bearer {self._access.get_secret_value()}"

    def _due(self) -> bool:
        return self._access is None or (self._expires_at is not None and self._expires_at - self._skew <= time.time())

    async def _renew(self) -> None:
        retry_until.set(math.inf)  # whoever asked first, others wait for it, too
        began = time.time()
        granted = await renewed(
            self._token_url,
            self._client_id,
            refresh_token=self._refresh_token,
            client_secret=self._client_secret,
            scope=self._scope,
            audience=self._audience,
        )
        self._access, self._expires_at = granted.access, granted.expires_at
        # Without this, a token that lives less than twice the skew would be renewed too often.
        if self._expires_at is not None:
            self._skew = min(self._skew, max(0.0, (self._expires_at - began) / 2))
        if self._refresh_token is not None and granted.refresh is not None:
            changed = granted.refresh != self._refresh_token
            self._refresh_token = granted.refresh
            if changed and self._on_rotate is not None:
                self._on_rotate(self._refresh_token)


@dataclass(frozen=True)
class Verification:
    """The facts that a user needs for a device login: open `uri` and enter `code`, or open `complete_uri`."""

    uri: str
    code: str
    complete_uri: str | None
    expires_in: float


class DeviceLogin:
    """A login by the device authorization grant (RFC 8628).

    `show` is called with the address where the user confirms it. The first request that needs a token starts it;
    `login()` starts it explicitly. A pending reply may be a 400 (the RFC) or a 403 (IVCAP's provider). Raises
    WaitTimeoutError if nobody confirms in time, NotAuthorizedError if the user refuses.
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
        on_rotate: Callable[[SecretStr], None] | None = None,
    ) -> None:
        self._code = _Endpoint(code_url)
        self._token = _Endpoint(token_url)
        self._client_id = client_id
        self._show = show
        self._audience = audience
        self._scope = scope
        self._on_rotate = on_rotate
        self._granted: RefreshingToken | StaticToken | None = None
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"DeviceLogin({self._token.url!r}, client_id={self._client_id!r})"

    @property
    def refreshable(self) -> bool:
        return self._granted is not None and self._granted.refreshable

    def expired_at(self, moment: float) -> bool:
        return self._granted is not None and self._granted.expired_at(moment)

    async def header(self, *, force: bool = False) -> str | None:
        async with self._lock:
            if self._granted is None:
                self._granted = await self.login()
        return await self._granted.header(force=force)

    async def login(self) -> RefreshingToken | StaticToken:
        """As `tokens`, but return a token for a session: a RefreshingToken if the provider gives a refresh token."""
        granted = await self.tokens()
        if granted.refresh is None:
            return StaticToken(granted.access)
        return RefreshingToken(
            self._token.url,
            self._client_id,
            refresh_token=granted.refresh,
            access_token=granted.access,
            expires_at=granted.expires_at,
            on_rotate=self._on_rotate,
        )

    async def tokens(self) -> Tokens:
        """Ask the user to confirm, wait for it, and return the granted tokens."""
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
