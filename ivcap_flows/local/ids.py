"""Ids: created as UUIDs, shown as URNs, and accepted as URN or bare id.

They are random, or derived from a seed and a counter that the platform stores, so that the same run on an empty
directory gives the same ids each time.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable

from ivcap_flows.identity import ivcap_urn

__all__ = ["account_urn", "as_urn", "derived", "new_id", "new_urn", "seeded", "use"]

_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,200}")
_make: Callable[[], uuid.UUID] = uuid.uuid4


def use(make: Callable[[], uuid.UUID]) -> None:
    """Set the source of this process's ids. A process serves one directory."""
    global _make
    _make = make


def seeded(seed: int, sequence: str, number: int) -> uuid.UUID:
    """Return the UUID with this number in a sequence of a seed."""
    return uuid.UUID(bytes=hashlib.sha256(f"{seed} {sequence} {number}".encode()).digest()[:16], version=4)


def new_id() -> str:
    """Return a new bare id. Call it in the state thread."""
    return str(_make())


def new_urn(noun: str) -> str:
    """As `new_id`, as the URN of a noun."""
    return ivcap_urn(noun, new_id())


def derived(instance: str, name: str) -> str:
    """Return a bare id that is always the same for a name in the same directory."""
    return str(uuid.uuid5(uuid.UUID(instance.rsplit(":", 1)[-1]), name))


def account_urn(account: str) -> str:
    return ivcap_urn("account", account)


def as_urn(noun: str, text: str) -> str | None:
    """Return the URN of a path or field, given as URN or bare id; None if it cannot be an id of this noun."""
    bare = text.removeprefix(f"urn:ivcap:{noun}:")
    return ivcap_urn(noun, bare) if _PLAIN.fullmatch(bare) else None
