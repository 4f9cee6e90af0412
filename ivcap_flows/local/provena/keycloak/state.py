"""The realm's key, the tokens signed with it, and the grants for them.

Offline and refresh tokens are signed with a secret derived from the realm key and contain no time of issue, so a
directory always has the same offline tokens, and they survive a restart. Access tokens are RS256.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from pathlib import Path
from typing import Any, Final

import jwt

from ivcap_flows.local import clock
from ivcap_flows.local.keys import RsaKey
from ivcap_flows.local.oauth import DEVICE_GRANT, GrantError
from ivcap_flows.local.provena.store import Store
from ivcap_flows.local.provena.users import ACCOUNTS, CLIENTS, Account, Client, User
from ivcap_flows.local.tokens import decoded

__all__ = ["ACCESS_SECONDS", "OFFLINE_CLIENT", "REALM", "Key", "Realm", "TokenError"]

REALM: Final = "provena"
OFFLINE_CLIENT: Final = "automated-access"
ACCESS_SECONDS: Final = 300
_REFRESH_SECONDS: Final = 1800
_DEVICE_SECONDS: Final = 600
_DEVICE_INTERVAL: Final = 1
_PATIENCE: Final = 0.9
"""The share of the interval after which a poll is not too early, since clocks differ."""
_USER_CODE: Final = "BCDFGHJKLMNPQRSTVWXZ"
_KEY_FILE: Final = "provena-realm.pem"


class TokenError(Exception):
    """An API does not accept a bearer token; the text is the `detail` of its 401."""


class Key(RsaKey):
    """The realm's key pair, stored in the directory, and the secrets derived from it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / _KEY_FILE, "the embedded realm")
        self._secret = hashlib.sha256(self.private_der).digest()

    def secret(self, purpose: str) -> str:
        """Return a secret derived from the key, a different one for each purpose."""
        return hmac.new(self._secret, purpose.encode(), hashlib.sha256).hexdigest()

    def offline_token(self, account: Account) -> str:
        """Return the account's offline token, which is always the same."""
        return self.refresh_token(account.username, OFFLINE_CLIENT, "roles offline_access", offline=True)

    def refresh_token(self, username: str, client_id: str, scope: str, *, offline: bool, jti: str | None = None) -> str:
        """Return a token for the refresh grant; an offline one never expires. Tokens of different `jti` differ."""
        claims: dict[str, Any] = {
            "typ": "Offline" if offline else "Refresh",
            "sub": _subject(username),
            "preferred_username": username,
            "azp": client_id,
            "scope": scope,
        }
        if jti is not None:
            claims["jti"] = jti
        if not offline:
            claims["exp"] = int(clock.seconds()) + _REFRESH_SECONDS
        return jwt.encode(claims, self.secret("refresh"), algorithm="HS256")

    def refreshable(self, token: str) -> dict[str, Any]:
        """Return the claims of a refresh token. Raises `jwt.InvalidTokenError`."""
        return decoded(token, self.secret("refresh"), "HS256")


def _subject(username: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:ivcap-flows:embedded:{username}"))


class Realm:
    """The token endpoint, and the check of its tokens."""

    def __init__(self, key: Key, store: Store, issuer: str) -> None:
        self.key, self.issuer, self._store = key, issuer, store

    def grant(self, form: dict[str, str]) -> dict[str, Any]:
        """Return the reply of the token endpoint. Raises GrantError."""
        client = self._client(form)
        kind = form.get("grant_type")
        if kind == "refresh_token":
            return self._refresh(client, form.get("refresh_token", ""))
        if kind == "client_credentials":
            if not client.confidential:
                raise GrantError("unauthorized_client", "Client not enabled to retrieve service account", 401)
            return self._tokens(client, f"service-account-{client.client_id}", form.get("scope", ""), refresh=False)
        if kind == DEVICE_GRANT:
            return self._device(client, form.get("device_code", ""))
        raise GrantError("unsupported_grant_type", f"Unsupported grant_type {kind!r}")

    def device_code(self, form: dict[str, str]) -> dict[str, Any]:
        """Start a device grant, which is decided by its user code. Raises GrantError."""
        client = self._client(form)
        code, user_code = secrets.token_urlsafe(32), "".join(secrets.choice(_USER_CODE) for _ in range(8))
        self._store.run("DELETE FROM device_codes WHERE expires < ?", clock.seconds() - _DEVICE_SECONDS)
        self._store.run(
            "INSERT INTO device_codes (device_code, user_code, client_id, scope, expires) VALUES (?, ?, ?, ?, ?)",
            *(_hash(code), user_code, client.client_id, form.get("scope", ""), clock.seconds() + _DEVICE_SECONDS),
        )
        page, shown = f"{self.issuer}/device", f"{user_code[:4]}-{user_code[4:]}"
        return {
            "device_code": code,
            "user_code": shown,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={shown}",
            "expires_in": _DEVICE_SECONDS,
            "interval": _DEVICE_INTERVAL,
        }

    def decide(self, user_code: str, username: str, *, deny: bool = False) -> bool:
        """Confirm a device login as an account, or refuse it. Return False if no grant with that code waits."""
        bare = re.sub(r"[^A-Z]", "", user_code.upper())
        return username in ACCOUNTS and bool(
            self._store.run(
                "UPDATE device_codes SET username=?, denied=? WHERE user_code=? AND username IS NULL AND expires >= ?",
                *(username, deny, bare, clock.seconds()),
            )
        )

    def bearer(self, token: str) -> User:
        """Return the user of an access token. Raises TokenError with the message of Provena's APIs."""
        try:
            claims = decoded(token, self.key.public_pem, "RS256")
        except jwt.InvalidTokenError as error:
            raise TokenError("Could not validate credentials") from error
        access = claims.get("realm_access")
        if not isinstance(access, dict) or not isinstance(access.get("roles"), list):
            raise TokenError("Token had incorrect structure.")
        return User(claims["preferred_username"], claims.get("email"), frozenset(access["roles"]))

    def _client(self, form: dict[str, str]) -> Client:
        client = CLIENTS.get(form.get("client_id", ""))
        if client is None:
            raise GrantError("invalid_client", "Invalid client credentials", 401)
        secret = self.key.secret(f"client {client.client_id}")
        if client.confidential and not hmac.compare_digest(form.get("client_secret", "").encode(), secret.encode()):
            raise GrantError("unauthorized_client", "Invalid client secret", 401)
        return client

    def _refresh(self, client: Client, token: str) -> dict[str, Any]:
        try:
            claims = self.key.refreshable(token)
        except jwt.InvalidTokenError as error:
            raise GrantError("invalid_grant", "Invalid refresh token") from error
        if claims.get("azp") != client.client_id or claims.get("preferred_username") not in ACCOUNTS:
            raise GrantError("invalid_grant", "Invalid refresh token. Token client and authorized client don't match")
        # As Keycloak by default: a new refresh token each time, also for an offline one. The old one stays valid.
        return self._tokens(client, claims["preferred_username"], claims["scope"], refresh=True)

    def _device(self, client: Client, code: str) -> dict[str, Any]:
        row = self._store.row("SELECT * FROM device_codes WHERE device_code=?", _hash(code))
        if row is None or row["client_id"] != client.client_id:
            raise GrantError("invalid_grant", "Device code not valid")
        if row["expires"] < clock.seconds():
            raise GrantError("expired_token", "Device code is expired")
        if row["username"] is None:
            since = clock.machine() - (row["polled"] or 0.0)
            if 0 <= since < _DEVICE_INTERVAL * _PATIENCE:
                raise GrantError("slow_down", "Slow down")
            raise GrantError("authorization_pending", "The authorization request is still pending")
        if row["denied"]:
            raise GrantError("access_denied", "The end user denied the authorization request")
        self._store.run("DELETE FROM device_codes WHERE device_code=?", row["device_code"])
        return self._tokens(client, row["username"], row["scope"], refresh=True)

    def polled(self, form: dict[str, str]) -> None:
        """Record when a device grant was polled, by the machine's time.

        With a stopped clock, every poll would be too early.
        """
        code = _hash(form.get("device_code", ""))
        self._store.run("UPDATE device_codes SET polled=? WHERE device_code=?", clock.machine(), code)

    def _tokens(self, client: Client, username: str, scope: str, *, refresh: bool) -> dict[str, Any]:
        account = ACCOUNTS[username]
        asked = [word for word in scope.split() if word in client.optional_scopes]
        scopes = [*client.default_scopes, *asked]
        now = int(clock.seconds())
        claims: dict[str, Any] = {
            "exp": now + ACCESS_SECONDS,
            "iat": now,
            "jti": str(uuid.uuid4()),
            "iss": self.issuer,
            "sub": _subject(username),
            "typ": "Bearer",
            "azp": client.client_id,
            "scope": " ".join(scopes),
            "preferred_username": username,
        }
        if "email" in scopes:
            claims |= {"email": account.email, "email_verified": True}
        if "profile" in scopes:
            claims |= {"given_name": account.first_name, "family_name": account.last_name}
        if "roles" in scopes:
            claims["realm_access"] = {"roles": sorted(account.roles)}
        answer: dict[str, Any] = {
            "access_token": self.key.sign(claims),
            "expires_in": ACCESS_SECONDS,
            "token_type": "Bearer",
            "not-before-policy": 0,
            "scope": " ".join(scopes),
        }
        if refresh:
            offline = "offline_access" in scopes
            new = self.key.refresh_token(username, client.client_id, scope, offline=offline, jti=str(uuid.uuid4()))
            answer["refresh_token"] = new
            answer["refresh_expires_in"] = 0 if offline else _REFRESH_SECONDS
        return answer


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()
