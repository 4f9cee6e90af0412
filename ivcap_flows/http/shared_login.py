"""A login that several processes share: one of them renews it at a time, and all use what it stored."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from pydantic import SecretStr

from ivcap_flows.errors import ConfigurationError, NotAuthorizedError
from ivcap_flows.http.auth import lifetime
from ivcap_flows.http.oauth import Tokens
from ivcap_flows.http.pauses import retry_until
from ivcap_flows.secrets import hide, logger_of

__all__ = ["Login", "LoginStore", "SharedToken", "login_ended"]

_log = logger_of(__name__)

_SKEW: Final = 20.0
"""Seconds before its expiry at which a token is renewed, since clocks differ and requests take time."""


@dataclass(frozen=True)
class Login:
    """A login as it is stored: where and whose it is, and its tokens. `expires_at` is in seconds since the epoch."""

    url: str
    account: str | None = None
    access: SecretStr | None = None
    refresh: SecretStr | None = None
    expires_at: float | None = None

    @property
    def due(self) -> bool:
        """Whether the access token is missing, has expired or is about to expire."""
        if self.access is None:
            return True
        # Without the half, a token that lives less than the skew would be renewed for each request.
        skew = min(_SKEW, (lifetime(self.access.get_secret_value()) or 2 * _SKEW) / 2)
        return self.expires_at is not None and self.expires_at - skew <= time.time()

    def same_owner(self, other: Login) -> bool:
        """Return whether both are of one deployment and account; an account that is not known yet may be any."""
        accounts = {self.account, other.account} - {None}
        return self.url == other.url and len(accounts) <= 1


class LoginStore(Protocol):
    """Where a login is stored. Its text names the login in messages."""

    @property
    def platform(self) -> str: ...

    @property
    def next_step(self) -> str:
        """How to log in again, as a sentence."""

    def locked(self) -> AbstractAsyncContextManager[None]:
        """Keep all others that share the login from renewing it meanwhile."""

    async def read(self) -> Login:
        """Return the login as it is stored now. Raises ConfigurationError if it is gone."""

    async def renew(self, login: Login) -> Tokens:
        """Ask the identity provider for new tokens. Raises NotAuthorizedError if it refuses.

        Raises an error before anything is asked if the store surely could not be written.
        """

    async def write(self, tokens: Tokens) -> None:
        """Store new tokens. Raises ConfigurationError if that fails."""


class SharedToken:
    """The access token of a stored login.

    It is renewed under the store's lock, from the login as it is stored then, and written back. A refresh token may be
    valid for one use, and a provider may end the login of everybody who shares it at the second use. So the store says
    before a renewal that it cannot be written, and tries for as long as it may hold its lock. If it fails even so, this
    process keeps the new tokens, logs a warning, and writes after the next renewal.
    """

    refreshable = True

    def __init__(self, store: LoginStore, login: Login) -> None:
        self._store = store
        self._login = login
        self._spent: SecretStr | None = None
        """The refresh token that the store still contains after a newer one could not be written."""
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"SharedToken({self._store}, token=***)"

    def expired_at(self, moment: float) -> bool:
        return self._login.expires_at is not None and self._login.expires_at <= moment

    async def header(self, *, force: bool = False) -> str | None:
        """Return the header's value. Raises NotAuthorizedError if the login has ended, and ConfigurationError."""
        seen = self._login.access
        if force or self._login.due:
            async with self._lock:
                # Another task may have renewed the token while this one waited for the lock.
                if self._login.access == seen or self._login.due:
                    # Do not cancel half-way: a refresh token may be valid for a single use.
                    await asyncio.shield(self._renew(seen))
        assert self._login.access is not None
        return f"Bearer {self._login.access.get_secret_value()}"

    async def _renew(self, seen: SecretStr | None) -> None:
        # In a task of its own: whoever asked first, others wait for it, too.
        retry_until.set(math.inf)
        async with self._store.locked():
            login = await self._store.read()
            if not login.same_owner(self._login):
                raise ConfigurationError(
                    f"{self._store} has become a login of another deployment or account. Start again to work with that "
                    "one."
                )
            stored = login.refresh
            if self._spent is not None and stored == self._spent:
                login = self._login
            if login.due or login.access == seen:
                try:
                    tokens = await self._store.renew(login)
                except NotAuthorizedError as error:
                    raise login_ended(self._store, error.detail) from None
                login = _renewed(login, tokens)
                # Keep the tokens before anything can fail, since the old refresh token may be spent.
                self._login = login
                await self._write_back(replace(tokens, refresh=login.refresh), stored)
            self._login = login

    async def _write_back(self, tokens: Tokens, stored: SecretStr | None) -> None:
        try:
            await self._store.write(tokens)
        except ConfigurationError as error:
            self._spent = stored
            _log.warning(
                "%s was renewed, but this process alone has the new one: %s If the provider accepts a refresh token "
                "only once, others that use it have to log in again.",
                self._store,
                error,
            )
        else:
            self._spent = None


def _renewed(login: Login, tokens: Tokens) -> Login:
    for token in (tokens.access, tokens.refresh):
        if token is not None:
            hide(token.get_secret_value())
    return replace(login, access=tokens.access, refresh=tokens.refresh or login.refresh, expires_at=tokens.expires_at)


def login_ended(store: LoginStore, why: str) -> NotAuthorizedError:
    """Return the error for a login that cannot be renewed."""
    return NotAuthorizedError(
        f"{store} has ended and cannot be renewed ({why}). {store.next_step}",
        platform=store.platform,
        method="POST",
        path="",
        status=None,
        detail=why,
    )
