"""Secrets of the account (IVCAP OpenAPI 0.48, `/1/secrets`). No log, repr or error contains a value.

Inside an IVCAP container, secrets are found as the service SDK finds them (ivcap-service `secret.py`): first in an
environment variable with the secret's name, then at the container's secret manager.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import SecretStr

from ivcap_flows.errors import InputError
from ivcap_flows.http.paging import walked
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.ivcap.wire import Wire, record_of
from ivcap_flows.secrets import hide

__all__ = ["SecretRecord", "Secrets"]

_CURSORS: Final = ("page", "offset")
_LATEST: Final = int(datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp())


class SecretRecord(Wire):
    """A secret's name, and its value if it was read. `expiry_time` is in seconds since the epoch, 0 for never."""

    secret_name: str
    secret_value: SecretStr | None = None
    expiry_time: int = 0
    secret_type: str | None = None

    @property
    def expires_at(self) -> datetime | None:
        """When it expires; None for never. A time beyond the range of datetime becomes the end of the year 9999."""
        return datetime.fromtimestamp(min(self.expiry_time, _LATEST), timezone.utc) if self.expiry_time else None


class Secrets:
    """`/1/secrets`, or the secret manager of a container if one is given."""

    def __init__(self, session: Session, manager: Session | None = None) -> None:
        self._session = session
        self._manager = manager

    def list(self, *, filter: str | None = None, limit: int | None = None) -> AsyncIterator[SecretRecord]:  # noqa: A002
        """Yield the account's secrets without their values; `filter` is a pattern of names, `limit` the total."""
        return self._listed(filter, limit)

    async def _listed(self, pattern: str | None, limit: int | None) -> AsyncIterator[SecretRecord]:
        path = "/1/secrets/list"

        async def ask(asked: Mapping[str, Any]) -> Reply:
            cursor = dict(parse_qsl(asked["page"] or ""))
            params = {"filter": pattern, "limit": asked["limit"], **cursor}
            return await self._session.request("GET", path, params=params, repeat="idempotent")

        async for item in walked(self._session, ask, dict, cursor_in=_cursor, limit=limit):
            named = {name: value for name, value in item.items() if name != "secret-value"}
            yield record_of(SecretRecord, named, session=self._session, path=path)

    async def get(self, name: str) -> SecretRecord:
        """Read a secret. Raises NotFoundError if the account has none of this name."""
        if self._manager is not None:
            found = os.environ.get(name)
            if found:
                return _record(name, found, 0)
            params = {"secret-name": _name(name), "secret-type": "raw", "token-type": "M2M"}
            reply = await self._manager.request("GET", "/1/secret", params=params, repeat="idempotent")
        else:
            reply = await self._session.request(
                "GET", "/1/secrets", params={"secret-name": _name(name)}, repeat="idempotent"
            )
        # Checked by hand, since a pydantic error would show the value.
        body = reply.json()
        value, expiry = (body.get("secret-value"), body.get("expiry-time", 0)) if isinstance(body, dict) else (None, 0)
        if not isinstance(value, str):
            raise reply.violation("holds no secret-value")
        return _record(name, value, expiry if isinstance(expiry, int) else 0)

    async def set(self, name: str, value: SecretStr, *, expires_at: datetime | None = None) -> None:
        """Create or replace a secret; without `expires_at` it never expires.

        The value must be a SecretStr, so that nothing on its way shows it. Raises InputError for a plain text.
        """
        if not isinstance(value, SecretStr):
            raise InputError(f"The value of the secret {name!r} must be a SecretStr. Wrap it: SecretStr(value).")
        if expires_at is not None and expires_at.tzinfo is None:
            raise InputError(f"The time {expires_at.isoformat()} has no offset; give it one, such as timezone.utc.")
        if expires_at is not None and expires_at <= datetime.now(timezone.utc):
            raise InputError(f"The secret {name!r} would expire in the past, at {expires_at.isoformat()}.")
        plain = value.get_secret_value()
        hide(plain)
        body = {
            "secret-name": _name(name),
            "secret-value": plain,
            "expiry-time": int(expires_at.timestamp()) if expires_at else 0,
        }
        await self._session.request(
            "POST", "/1/secrets", json=body, repeat="idempotent", expect=(200, 201, 204), discreet=True
        )


def _record(name: str, value: str, expiry: int) -> SecretRecord:
    hide(value)
    return SecretRecord(secret_name=name, secret_value=SecretStr(value), expiry_time=expiry)


def _name(name: str) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise InputError(f"A secret's name must not be empty nor hold control characters, as in {name!r}.")
    return name


def _cursor(link: str) -> str | None:
    """Return the `page` or `offset` of a link, with the parameter's name."""
    query = dict(parse_qsl(urlsplit(link).query))
    return urlencode({name: query[name] for name in _CURSORS if query.get(name)}) or None
