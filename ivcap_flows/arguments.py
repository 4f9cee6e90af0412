"""Arguments that take several values: the one law for tasks, blocks and clients. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from ivcap_flows.errors import InputError

__all__ = ["is_several", "several", "texts"]

T = TypeVar("T")


def is_several(value: object) -> bool:
    """Return whether a value has several others. A text or a mapping has, but not those that a caller means."""
    return isinstance(value, Collection) and not isinstance(value, str | bytes | bytearray | Mapping)


def several(values: Collection[T], name: str, function: str) -> list[T]:
    """Return the argument `name` of a function as a list. Raise InputError for one value alone, such as a text.

    A text would be taken for a list of its characters without a word.
    """
    if is_several(values):
        return list(values)
    given: Any = values
    shown = repr(given[:100]) if isinstance(given, str | bytes) else type(given).__name__
    raise InputError(f"`{name}` of `{function}` is a list: pass `{name}=[…]`, not {shown} alone.")


def texts(values: Collection[str], name: str, function: str) -> list[str]:
    """Return an argument that takes several texts as `several` does. Raise InputError for what is no text."""
    found = several(values, name, function)
    for each in found:
        if not isinstance(each, str):
            raise InputError(f"`{name}` of `{function}` are texts, not {type(each).__name__}.")
    return found
