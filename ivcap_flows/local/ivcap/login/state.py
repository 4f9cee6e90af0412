"""Logins by device code (RFC 8628), and refresh tokens, of which the store has only hashes."""

from __future__ import annotations

import hashlib
import re
import secrets
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ivcap_flows.local import clock
from ivcap_flows.local.database import Store
from ivcap_flows.local.keys import RsaKey
from ivcap_flows.local.oauth import DEVICE_GRANT, GrantError
from ivcap_flows.local.tokens import Principal, Tokens, claims_of

__all__ = ["CLIENT", "LIFETIME", "LONGEST", "Logins"]

CLIENT: Final = "ivcap-flows"
LIFETIME: Final = 3600.0
"""Seconds for which an access token from a login is valid."""
LONGEST: Final = 365 * 24 * 3600.0
_DEVICE_SECONDS: Final = 600
_INTERVAL: Final = 1
_REFRESH_SECONDS: Final = 30 * 24 * 3600
_USER_CODE: Final = "BCDFGHJKLMNPQRSTVWXZ"
_USER_CODE_LENGTH: Final = 8
_REFUSED: Final = 403
"""The status with which ivcap-cli (cmd/login.go) reads a refusal's body."""


@dataclass(frozen=True)
class _Granted:
    """The account of a grant, its scope, the seconds for which each token is valid, and the login that began it."""

    account: str
    scope: str
    lifetime: float
    login: str


class Logins:
    def __init__(self, store: Store, tokens: Tokens, key: Path, accounts: Mapping[str, Principal]) -> None:
        self._store, self._tokens, self._key, self._accounts = store, tokens, key, accounts

    @property
    def accounts(self) -> list[str]:
        """Return the names of the accounts that can log in."""
        return list(self._accounts)

    @cached_property
    def key(self) -> RsaKey:
        """Return the key that signs id tokens. It takes a moment to create at the first use."""
        return RsaKey(self._key, "the embedded login")

    def begin(self, client: str, scope: str) -> dict[str, Any]:
        """Start a device login, which is decided by its user code. Raises GrantError."""
        _check_client(client)
        code, user_code = (
            secrets.token_urlsafe(32),
            "".join(secrets.choice(_USER_CODE) for _ in range(_USER_CODE_LENGTH)),
        )
        with self._store.transaction():
            self._store.execute("DELETE FROM device_logins WHERE expires < ?", (_now() - _DEVICE_SECONDS,))
            self._store.insert(
                "device_logins",
                code=_hash(code),
                user_code=user_code,
                client=client,
                scope=scope,
                expires=_now() + _DEVICE_SECONDS,
            )
        shown = f"{user_code[:4]}-{user_code[4:]}"
        return {"device_code": code, "user_code": shown, "expires_in": _DEVICE_SECONDS, "interval": _INTERVAL}

    def decide(self, user_code: str, account: str, *, deny: bool = False, lifetime: float = LIFETIME) -> bool:
        """Confirm a device login as an account, or refuse it. Return False if no login with that code waits."""
        if account not in self._accounts:
            return False
        bare = re.sub(r"[^A-Z]", "", user_code.upper())
        done = self._store.execute(
            "UPDATE device_logins SET account = ?, denied = ?, lifetime = ?"
            " WHERE user_code = ? AND account IS NULL AND expires >= ?",
            (account, int(deny), lifetime, bare, _now()),
        )
        return done.rowcount == 1

    def grant(self, form: Mapping[str, str], issuer: str) -> dict[str, Any]:
        """Return the reply of the token endpoint. Raises GrantError."""
        client, kind = form.get("client_id", ""), form.get("grant_type")
        _check_client(client)
        if kind == DEVICE_GRANT:
            return self._tokens_for(self._poll(client, form.get("device_code", "")), client, issuer)
        if kind == "refresh_token":
            return self._tokens_for(self._spend(client, form.get("refresh_token", "")), client, issuer)
        raise GrantError("unsupported_grant_type", "Only device codes and refresh tokens are accepted here.")

    def _poll(self, client: str, code: str) -> _Granted:
        """Return the grant of a device login, once. Raises GrantError until it is decided, and if it was refused."""
        row = self._store.one("SELECT * FROM device_logins WHERE code = ?", (_hash(code),))
        if row is None or row["client"] != client:
            raise GrantError("invalid_grant", "There is no such device code.", _REFUSED)
        if row["expires"] < _now():
            raise GrantError("expired_token", "The device code has expired.", _REFUSED)
        if row["account"] is None:
            raise self._pending(row)
        self._store.execute("DELETE FROM device_logins WHERE code = ?", (row["code"],))
        if row["denied"]:
            raise GrantError("access_denied", "The login was refused.", _REFUSED)
        return _Granted(row["account"], row["scope"], row["lifetime"], row["code"])

    def _pending(self, row: sqlite3.Row) -> GrantError:
        # Use the machine's time: with a stopped clock, every poll would be too early.
        now, last = round(time.time() * 1000), row["polled_at"]
        self._store.execute("UPDATE device_logins SET polled_at = ? WHERE code = ?", (now, row["code"]))
        if last is not None and 0 <= now - last < _INTERVAL * 900:
            return GrantError("slow_down", f"Ask every {_INTERVAL} s at most.", _REFUSED)
        return GrantError("authorization_pending", "The user has not decided on the login yet.", _REFUSED)

    def _spend(self, client: str, token: str) -> _Granted:
        """Return the grant of a refresh token, which can be used once. Raises GrantError.

        A second use shows that somebody else has the token, so it ends the login, as RFC 9700 (section 4.14.2) asks.
        """
        row = self._store.one("SELECT * FROM refresh_tokens WHERE hash = ?", (_hash(token),))
        if row is None or row["client"] != client or row["expires"] < _now():
            raise GrantError("invalid_grant", "The refresh token is unknown or expired.", _REFUSED)
        first = self._store.execute("UPDATE refresh_tokens SET spent = 1 WHERE hash = ? AND spent = 0", (row["hash"],))
        if first.rowcount != 1:
            self._store.execute("DELETE FROM refresh_tokens WHERE login = ?", (row["login"],))
            raise GrantError("invalid_grant", "The refresh token was used before, so the login has ended.", _REFUSED)
        return _Granted(row["account"], row["scope"], row["lifetime"], row["login"])

    def _tokens_for(self, granted: _Granted, client: str, issuer: str) -> dict[str, Any]:
        who, scope = self._accounts[granted.account], granted.scope.split()
        reply: dict[str, Any] = {
            "access_token": self._tokens.issue(who, lifetime=granted.lifetime),
            "expires_in": int(granted.lifetime),
            "scope": granted.scope,
            "token_type": "Bearer",
        }
        if "openid" in scope:
            account = who.account.rsplit(":", 1)[-1]
            platform = {"ivcap/claims/provider": account, "ivcap/claims/groupIds": [], "email_verified": True}
            named = claims_of(who, granted.lifetime) | {"iss": issuer, "aud": client} | platform
            reply["id_token"] = self.key.sign(named)
        if "offline_access" in scope:
            reply["refresh_token"] = self._refresh_token(granted, client)
        return reply

    def _refresh_token(self, granted: _Granted, client: str) -> str:
        token = secrets.token_urlsafe(32)
        with self._store.transaction():
            self._store.execute("DELETE FROM refresh_tokens WHERE expires < ?", (_now(),))
            self._store.insert(
                "refresh_tokens",
                hash=_hash(token),
                account=granted.account,
                client=client,
                scope=granted.scope,
                lifetime=granted.lifetime,
                expires=_now() + _REFRESH_SECONDS,
                login=granted.login,
            )
        return token


def _check_client(client: str) -> None:
    if client != CLIENT:
        raise GrantError("invalid_client", "There is no such client.", 401)


def _now() -> int:
    return int(clock.seconds())


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
