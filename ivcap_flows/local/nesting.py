"""How deep JSON may be nested: what is taken in once has to be read again from any depth of calls, and by SQLite."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["DEEPEST", "NestingError", "loads"]

DEEPEST: Final = 200
"""Arrays and objects within each other; SQLite takes 1000, Python's recursion not quite as many."""


class NestingError(ValueError):
    """JSON that is nested too deep."""


def loads(data: bytes, **options: Any) -> Any:
    """As `json.loads`. Raises ValueError, and NestingError for more levels than `DEEPEST`."""
    try:
        value = json.loads(data, **options)
    except RecursionError:
        raise NestingError(f"JSON may be nested {DEEPEST} levels deep") from None
    # Few brackets cannot be deep, and a list by levels takes no recursion.
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
