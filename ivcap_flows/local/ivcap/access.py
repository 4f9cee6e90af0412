"""Access: an account sees its own items, and everybody sees items with an `ivcap.open.*` policy."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from ivcap_flows.local import clock
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.tokens import Principal

__all__ = ["OPEN_METADATA", "POLICY", "checked_policy", "may_read", "readable", "to_write"]

OPEN: Final = "urn:ivcap:policy:ivcap.open."
OPEN_METADATA: Final = "urn:ivcap:policy:ivcap.open.metadata"
POLICY: Final = {
    "artifact": "urn:ivcap:policy:ivcap.base.artifact",
    "aspect": "urn:ivcap:policy:ivcap.base.metadata",
    "order": "urn:ivcap:policy:ivcap.base.order",
    "job": "urn:ivcap:policy:ivcap.base.service",
    "service": "urn:ivcap:policy:ivcap.base.service",
    "queue": "urn:ivcap:policy:ivcap.base.queue",
}
"""The default policy of each noun that has one: private to the account."""


def readable(who: Principal) -> tuple[str, list[Any]]:
    """Return the SQL condition, and its values, for the items that a caller may see in lists now."""
    now = clock.now()
    return f"(account = ? OR policy GLOB '{OPEN}*') AND visible_from BETWEEN ? AND ?", [who.account, -now, now]


def may_read(row: sqlite3.Row, who: Principal) -> bool:
    own = row["account"] == who.account or str(row["policy"]).startswith(OPEN)
    return own and row["visible_from"] <= clock.now()


def to_write(row: sqlite3.Row | None, noun: str, urn: str, who: Principal) -> sqlite3.Row:
    """Return the row, for its owner. Raises Problem 404 if the caller cannot see it, 403 if another account owns it."""
    if row is None or not may_read(row, who):
        raise errors.not_found(noun, urn)
    if row["account"] != who.account:
        raise errors.forbidden(f"This {noun} belongs to another account.")
    return row


def checked_policy(policy: Any, noun: str, name: str = "policy") -> str:
    """Return a given policy, or the default of the noun. Raises Problem 422."""
    if policy is None or policy == "":
        return POLICY[noun]
    if not isinstance(policy, str) or not policy.startswith("urn:ivcap:policy:"):
        raise errors.parameter(name, f"{name} must be a URN that begins with urn:ivcap:policy:.", policy)
    return policy
