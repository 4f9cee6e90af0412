"""Tables that decide: rows of conditions on facts, of which the first that holds decides."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["holds"]


def holds(conditions: Iterable[object], facts: Iterable[object]) -> bool:
    """Whether each fact is what its condition wants: a value, one of a frozenset, or anything for None."""
    return all(
        wanted is None or (found in wanted if isinstance(wanted, frozenset) else found == wanted)
        for wanted, found in zip(conditions, facts, strict=True)
    )
