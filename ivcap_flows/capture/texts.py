"""Texts that a record can hold, whatever a file system allows in names."""

from __future__ import annotations

from typing import Any

__all__ = ["sayable"]


def sayable(value: Any) -> Any:
    """Return a JSON value whose texts UTF-8 can encode. Half surrogate pairs, which file names may hold, are escaped.

    So two names that differ only in these stay different.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {sayable(name): sayable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [sayable(inner) for inner in value]
    return value
