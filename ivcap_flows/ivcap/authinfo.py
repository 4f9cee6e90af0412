"""Find where a deployment's users log in, and verify who logged in (`/1/authinfo.yaml`, ivcap-cli `cmd/login.go`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, SecretStr

from ivcap_flows.errors import ConfigurationError, NotAuthorizedError
from ivcap_flows.http.oauth import DeviceLogin, Verification
from ivcap_flows.http.session import Session

if TYPE_CHECKING:
    import jwt

__all__ = ["Provider", "discover", "provider_at"]

_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Algorithms that sign with a key which only the provider has; `none` and shared secrets prove nothing."""

NOT_YET: Final = 3.0
_TRIES: Final = 5


class Provider(BaseModel):
    """An identity provider of a deployment."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=lambda name: name.replace("_", "-"))

    login_url: str
    token_url: str
    code_url: str
    jwks_url: str
    client_id: str
    audience: str

    def login(self, show: Callable[[Verification], None]) -> DeviceLogin:
        """Return the device login of this provider. `show` is called with the address where the user confirms it."""
        return DeviceLogin(self.code_url, self.token_url, self.client_id, show=show, audience=self.audience)

    async def claims(self, id_token: SecretStr) -> dict[str, Any]:
        """Return the claims of an ID token after verifying it with the provider's keys. Raises NotAuthorizedError.

        If the provider's clock is ahead, a token may not be valid yet. It is then checked again every three seconds, up
        to five times in all.
        """
        # Imported here, since only a login needs it and the import would cost every flow a tenth of a second.
        import jwt

        keys = await _key_set(self.jwks_url)
        for left in reversed(range(_TRIES)):
            try:
                return _verified(id_token.get_secret_value(), keys, self.client_id)
            except jwt.ImmatureSignatureError as error:
                if not left:
                    raise self._refused(error) from error
                await asyncio.sleep(NOT_YET)
            except jwt.PyJWTError as error:
                raise self._refused(error) from error
        raise AssertionError("the last turn returns or raises")

    def _refused(self, error: Exception) -> NotAuthorizedError:
        return NotAuthorizedError(
            f"The ID token of the login does not hold against the keys at {self.jwks_url}: {error}. Log in again; if "
            "it stays so, tell the operators of the deployment.",
            platform="the identity provider",
            method="GET",
            path=urlsplit(self.jwks_url).path,
            status=None,
            detail=str(error),
        )


async def discover(session: Session) -> Provider:
    """Read the deployment's default provider, or its first one if it names no default.

    Raises ConfigurationError if it has none that can be used.
    """
    reply = await session.request("GET", "/1/authinfo.yaml", repeat="idempotent")
    try:
        info = yaml.safe_load(reply.text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise reply.violation("is no YAML") from error
    if not isinstance(info, dict):
        raise reply.violation("is no mapping")
    if info.get("version") != 1:
        raise ConfigurationError(
            f"{session.base_url} describes its login in version {info.get('version')!r}, and only 1 is known. Update "
            "ivcap-flows."
        )
    auth = _mapping(info.get("auth"))
    providers, default = _mapping(auth.get("providers")), auth.get("default-provider-id") or ""
    chosen = providers.get(default) if default else next(iter(providers.values()), None)
    if not isinstance(chosen, dict):
        raise ConfigurationError(
            f"{session.base_url} names no identity provider"
            + (f" {default!r} among {sorted(providers)}" if default else "")
            + ", so nobody can log in there. Tell its operators, or use a token (IVCAP_JWT)."
        )
    return _checked(chosen, session.base_url)


async def provider_at(url: str, host: str | None = None) -> Provider:
    """Return the provider of the deployment at a URL, as `discover` does."""
    async with Session(url, platform="IVCAP", host=host) as session:
        return await discover(session)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _checked(given: dict[str, Any], base_url: str) -> Provider:
    wrong = [name for name in ("client-id", "audience") if not isinstance(given.get(name), str) or not given[name]]
    for name in ("login-url", "token-url", "code-url", "jwks-url"):
        parts = urlsplit(str(given.get(name) or ""))
        # If the deployment uses https, its provider must too: otherwise tokens would be sent unencrypted.
        schemes = ("https",) if base_url.startswith("https:") else ("http", "https")
        if parts.scheme not in schemes or not parts.hostname:
            wrong.append(name)
    if wrong:
        raise ConfigurationError(
            f"{base_url} describes its identity provider without a usable {', '.join(sorted(wrong))}. Tell its "
            "operators, or use a token (IVCAP_JWT)."
        )
    return Provider.model_validate(given)


async def _key_set(url: str) -> jwt.PyJWKSet:
    import jwt

    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    async with Session(f"{parts.scheme}://{parts.netloc}", platform="the identity provider") as session:
        reply = await session.request("GET", path, repeat="idempotent")
    try:
        return jwt.PyJWKSet.from_dict(reply.json())
    except (jwt.PyJWTError, AttributeError, TypeError) as error:
        raise reply.violation("is no set of keys (RFC 7517)") from error


def _verified(token: str, keys: jwt.PyJWKSet, client_id: str) -> dict[str, Any]:
    import jwt

    named = jwt.get_unverified_header(token).get("kid")
    fitting = [key for key in keys.keys if key.key_id == named] if named else list(keys.keys)
    if not fitting:
        raise jwt.InvalidTokenError(f"the provider has no key {named!r}")
    found: dict[str, Any] = jwt.decode(token, fitting[0], algorithms=_ALGORITHMS, audience=client_id)
    return found
