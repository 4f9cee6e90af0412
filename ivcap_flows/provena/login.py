"""Tokens for Provena from its Keycloak realm: by offline token, by client credentials, by device login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pydantic import SecretStr

from ivcap_flows.http.oauth import DeviceLogin, RefreshingToken, Verification

__all__ = ["OFFLINE_SCOPE", "client_credentials", "device_login", "offline_token", "token_url"]

OFFLINE_SCOPE: Final = "offline_access roles"
"""What a device login asks for to get an offline token; Provena's `automated-access` has roles only when asked."""


def token_url(realm: str) -> str:
    """The token endpoint of a realm's URL (`…/realms/<realm>`)."""
    return f"{realm.rstrip('/')}/protocol/openid-connect/token"


def offline_token(realm: str, client_id: str, token: SecretStr, *, secret: SecretStr | None = None) -> RefreshingToken:
    """Access tokens by an offline (or any refresh) token of `client_id`; a confidential client has a `secret`."""
    return RefreshingToken(token_url(realm), client_id, refresh_token=token, client_secret=secret)


def client_credentials(realm: str, client_id: str, secret: SecretStr) -> RefreshingToken:
    """Access tokens of a service account.

    Good for reading as it is; for writing, an administrator must give the account roles, an e-mail and a linked person.
    """
    return RefreshingToken(token_url(realm), client_id, client_secret=secret)


def device_login(
    realm: str,
    client_id: str,
    *,
    show: Callable[[Verification], None],
    scope: str = OFFLINE_SCOPE,
    on_rotate: Callable[[SecretStr], None] | None = None,
) -> DeviceLogin:
    """A login that a person confirms in a browser; `show` is told where. The first request begins it."""
    device_url = f"{realm.rstrip('/')}/protocol/openid-connect/auth/device"
    return DeviceLogin(device_url, token_url(realm), client_id, show=show, scope=scope, on_rotate=on_rotate)
