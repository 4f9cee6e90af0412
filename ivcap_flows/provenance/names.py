"""One name for each thing in every form: the URI of an id, and the namespace that it is in."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

__all__ = ["NAMESPACES", "split", "uri"]

NAMESPACES: Final = {
    "ivcap": "urn:ivcap:",
    "type": "urn:ivcap-flows:type:",
    "about": "urn:ivcap-flows:attribute:",
    "flows": "urn:ivcap-flows:",
    "handle": "https://hdl.handle.net/",
    "urn": "urn:",
    "http": "http://",
    "https": "https://",
    "other": "urn:ivcap-flows:other:",
}
"""Namespaces by prefix, the more specific ones first."""

_HANDLE_DIGITS: Final = frozenset("0123456789.")


def split(id: str) -> tuple[str, str]:  # noqa: A002
    """Return the prefix of an id's namespace, and the rest of its URI."""
    if not id.startswith(("urn:", "http://", "https://")):
        bare = "/" in id and set(id.partition("/")[0]) <= _HANDLE_DIGITS
        return ("handle", id) if bare else ("other", quote(id, safe=""))
    prefix = next(prefix for prefix, start in NAMESPACES.items() if id.startswith(start))
    return prefix, id[len(NAMESPACES[prefix]) :]


def uri(id: str) -> str:  # noqa: A002
    """Return the URI of an id: a URN or URL itself, or `https://hdl.handle.net/<handle>` for a handle of Provena."""
    prefix, rest = split(id)
    return NAMESPACES[prefix] + rest
