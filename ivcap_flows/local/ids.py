"""Ids: made as UUIDs, told as URNs, and accepted as URN or bare id."""

from __future__ import annotations

import re
import uuid

from ivcap_flows.identity import ivcap_urn

__all__ = ["account_urn", "as_urn", "derived", "new_urn"]

_PLAIN = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,200}")


def new_urn(noun: str) -> str:
    return ivcap_urn(noun, str(uuid.uuid4()))


def derived(instance: str, name: str) -> str:
    """A bare id that is the same whenever the same directory is served."""
    return str(uuid.uuid5(uuid.UUID(instance.rsplit(":", 1)[-1]), name))


def account_urn(account: str) -> str:
    return ivcap_urn("account", account)


def as_urn(noun: str, text: str) -> str | None:
    """The URN that a path or field means, given as URN or bare id; None for what can't be an id of this noun."""
    bare = text.removeprefix(f"urn:ivcap:{noun}:")
    return ivcap_urn(noun, bare) if _PLAIN.fullmatch(bare) else None
