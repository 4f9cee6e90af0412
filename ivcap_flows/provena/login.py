"""Where Provena's Keycloak realm gives tokens, and a login there by a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ivcap_flows.http.oauth import DeviceLogin, Verification

__all__ = ["OFFLINE_SCOPE", "device_login", "token_url"]

OFFLINE_SCOPE: Final = "offline_access roles"
"""The scope of a device login for an offline token. Provena's `automated-access` gives roles only if asked for them."""


def token_url(realm: str) -> str:
    """Return the token endpoint of a realm's URL (`…/realms/<realm>`)."""
    return f"{realm.rstrip('/')}/protocol/openid-connect/token"


def device_login(
    realm: str,
    client_id: str,
    *,
    show: Callable[[Verification], None],
    scope: str = OFFLINE_SCOPE,
) -> DeviceLogin:
    """Return a login that a person confirms in a browser; `show` is called with the address."""
    device_url = f"{realm.rstrip('/')}/protocol/openid-connect/auth/device"
    return DeviceLogin(device_url, token_url(realm), client_id, show=show, scope=scope)
