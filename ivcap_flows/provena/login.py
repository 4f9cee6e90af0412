"""Tokens for Provena from its Keycloak realm: by offline token, by client credentials, by device login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pydantic import SecretStr

from ivcap_flows.http.oauth import DeviceLogin, RefreshingToken, Verification

__all__ = ["OFFLINE_SCOPE", "client_credentials", "device_login", "token_url"]

OFFLINE_SCOPE: Final = "offline_access roles"
"""The scope of a device login for an offline token. Provena's `automated-access` gives roles only if asked for them."""


def token_url(realm: str) -> str:
    """Return the token endpoint of a realm's URL (`…/realms/<realm>`)."""
    return f"{realm.rstrip('/')}/protocol/openid-connect/token"


def client_credentials(realm: str, client_id: str, secret: SecretStr) -> RefreshingToken:
    """Return access tokens of a service account.

    The account can read without further setup. To write, an administrator must give it roles, an e-mail address and a
    linked person.
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
    """Return a login that a person confirms in a browser.

    The first request starts it; `show` is called with the address.
    """
    device_url = f"{realm.rstrip('/')}/protocol/openid-connect/auth/device"
    return DeviceLogin(device_url, token_url(realm), client_id, show=show, scope=scope, on_rotate=on_rotate)
