"""How logs and messages say which things are meant: their number, and their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

__all__ = ["counted", "listed"]

_MOST: Final = 5
"""Maximum number of names in one line."""


def counted(count: int, nouns: str) -> str:
    """Return a number of things: "1 job", "3 jobs"."""
    return f"{count} {nouns if count != 1 else nouns.removesuffix('s')}"


def listed(names: Iterable[str]) -> str:
    """Return names in one line, each once: "north, south (2) and 3 more"."""
    counts = Counter(names)
    shown = [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
    left = sum(list(counts.values())[_MOST:])
    return ", ".join(shown[:_MOST]) + (f" and {left} more" if left else "")
