"""Texts as a record can hold them, whatever a file system has in its names."""

from __future__ import annotations

from typing import Any

__all__ = ["sayable"]


def sayable(value: Any) -> Any:
    """A JSON value whose texts UTF-8 can say: half a surrogate pair, which file names may hold, is escaped.

    So two names that differ in nothing else stay two.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {sayable(name): sayable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [sayable(inner) for inner in value]
    return value
