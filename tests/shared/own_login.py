"""A login that one test has for itself, which is stored nowhere and renewed at a token endpoint."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from ivcap_flows.http.auth import expiry
from ivcap_flows.http.oauth import Tokens, renewed
from ivcap_flows.http.shared_login import Login, SharedToken

__all__ = ["renewing"]


class _OwnLogin:
    platform = "the platform"
    next_step = "Log in again."

    def __init__(self, url: str, client_id: str, login: Login, **form: Any) -> None:
        self._url, self._client_id, self._login, self._form = url, client_id, login, form
        self._lock = asyncio.Lock()

    def __str__(self) -> str:
        return "The login of the test"

    def locked(self) -> AbstractAsyncContextManager[None]:
        return self._lock

    async def read(self) -> Login:
        return self._login

    async def renew(self, login: Login) -> Tokens:
        return await renewed(self._url, self._client_id, refresh_token=login.refresh, **self._form)

    async def write(self, tokens: Tokens) -> None:
        self._login = replace(self._login, access=tokens.access, refresh=tokens.refresh, expires_at=tokens.expires_at)


def renewing(
    token_url: str,
    client_id: str,
    refresh_token: SecretStr | None = None,
    access_token: SecretStr | None = None,
    **form: Any,
) -> SharedToken:
    """Return the access token of a login, which renews itself."""
    until = None if access_token is None else expiry(access_token.get_secret_value())
    login = Login(token_url, None, access_token, refresh_token, until)
    return SharedToken(_OwnLogin(token_url, client_id, login, **form), login)
