"""Secrets in the store: one row for each name and account, with the value encrypted."""

from __future__ import annotations

import json
from typing import Any

from ivcap_flows.local import clock
from ivcap_flows.local.database import Store
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.secrets.seal import SealKey
from ivcap_flows.local.tokens import Principal

__all__ = ["RAW", "Secrets"]

RAW = "raw"
"""The default type of a secret; services read secrets as `raw` (ivcap-service)."""


class Secrets:
    def __init__(self, store: Store, key: SealKey) -> None:
        self._store, self._key = store, key

    def put(self, who: Principal, name: str, value: str, expires: int, kind: str) -> None:
        """Create or replace a secret. `expires` is in Unix seconds, 0 for never."""
        seal = self._key.need()
        with self._store.transaction():
            self._store.execute("DELETE FROM secrets WHERE expires BETWEEN 1 AND ?", (clock.now() // 1000,))
            self._store.execute("DELETE FROM secrets WHERE account = ? AND name = ?", (who.account, name))
            self._store.insert(
                "secrets",
                account=who.account,
                name=name,
                type=kind,
                sealed=seal.close(value, _place(who, name)),
                key=seal.id,
                expires=expires,
                visible_from=clock.visible_from(),
            )

    def read(self, who: Principal, name: str, kind: str | None) -> tuple[str, int]:
        """Return value and expiry. Raises Problem 404, also for a secret that has expired or has another type."""
        where, values = self.readable(who)
        row = self._store.one(f"SELECT * FROM secrets WHERE {where} AND name = ?", (*values, name))  # noqa: S608 - values are parameters
        seal = self._key.find()
        if row is None or seal is None or kind not in (None, row["type"]):
            raise errors.not_found("secret", name[:200])
        return seal.open(row["sealed"], _place(who, name)), row["expires"]

    def readable(self, who: Principal) -> tuple[str, list[Any]]:
        """Return the SQL condition, and its values, for the secrets that an account can read now."""
        seal = self._key.find()
        now = [clock.now(), clock.now() // 1000]
        where = "account = ? AND key = ? AND visible_from <= ? AND (expires = 0 OR expires > ?)"
        return where, [who.account, seal.id if seal else "", *now]


def _place(who: Principal, name: str) -> str:
    """Return what a value is bound to, so that it cannot be moved to another name or account."""
    return json.dumps([who.account, name])
