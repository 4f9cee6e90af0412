"""Limit how deep JSON may be nested, since SQLite and recursive code must be able to read it again."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["DEEPEST", "NestingError", "loads"]

DEEPEST: Final = 200
"""Maximum nesting of arrays and objects. SQLite allows 1000, Python's recursion somewhat less."""


class NestingError(ValueError):
    """JSON that is nested too deep."""


def loads(data: bytes, **options: Any) -> Any:
    """As `json.loads`. Raises ValueError, and NestingError for more levels than `DEEPEST`."""
    try:
        value = json.loads(data, **options)
    except RecursionError:
        raise NestingError(f"JSON may be nested {DEEPEST} levels deep") from None
    # With few brackets it cannot be deep. The loop by levels needs no recursion.
    if data.count(b"[") + data.count(b"{") > DEEPEST:
        level, depth = [value], 0
        while level:
            depth += 1
            if depth > DEEPEST + 1:
                raise NestingError(f"JSON may be nested {DEEPEST} levels deep")
            level = [inner for one in level if isinstance(one, dict | list) for inner in _within(one)]
    return value


def _within(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value
