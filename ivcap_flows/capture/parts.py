"""What a value consists of: the one definition for what is shown, compared, and searched for things and makers.

Values of other types are not looked into: they might be views of files or of remote stores.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Collection, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final

from pydantic import BaseModel, RootModel

from ivcap_flows.handles import Handle, LocalFile

__all__ = ["MAX_DEPTH", "MAX_GIVEN", "counted", "may_be_path", "parts_of", "unwrapped", "within"]

MAX_DEPTH: Final = 8
"""The depth down to which values are looked into."""
MAX_GIVEN: Final = 20_000
"""The maximum number of parts of one call's arguments that are looked up."""
_MAX_PATH: Final = 1_024
_PLAIN: Final = frozenset({int, float, complex, str, bytes, bool, type(None), type(Path()), LocalFile})
"""Types that have no parts. Most values are of these types, and further checks take long."""

_MAPPINGS: Final = (dict, MappingProxyType, ChainMap, UserDict)
_COLLECTIONS: Final = (list, tuple, set, frozenset, deque, UserList, KeysView, ValuesView, ItemsView)


def unwrapped(value: Any) -> Any:
    """Return the value that an enum member or a root model only wraps, or else the value itself."""
    if isinstance(value, Enum):
        return value.value
    return value.root if isinstance(value, RootModel) else value


def parts_of(value: Any) -> Mapping[Any, Any] | Collection[Any] | None:
    """Return the parts of a value by name, or one after the other, or None for a value that is not looked into."""
    kind: Any = type(value)
    if isinstance(value, _MAPPINGS):
        return value
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return dict(zip(kind._fields, value, strict=False))
    if isinstance(value, _COLLECTIONS):
        return value
    if isinstance(value, BaseModel):
        return _attributes(value, kind.model_fields) | (value.__pydantic_extra__ or {})
    if isinstance(value, SimpleNamespace):
        return dict(vars(value))
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return _attributes(value, (field.name for field in dataclasses.fields(value)))
    if hasattr(kind, "__attrs_attrs__"):
        return _attributes(value, (attribute.name for attribute in kind.__attrs_attrs__))
    return None


def _attributes(value: Any, names: Any) -> dict[str, Any]:
    return {name: getattr(value, name, None) for name in names}


def may_be_path(text: str) -> bool:
    """Whether a text may be the path of a file."""
    return (
        0 < len(text) <= _MAX_PATH
        and (os.sep in text or "." in text)
        and not any(part in text for part in ("\0", "://"))
        and not text.startswith("urn:")
    )


def within(value: Any, most: int) -> Iterator[tuple[Any, bool]]:
    """Yield the parts of a value at any depth, each with whether only its container refers to it."""
    queue: deque[tuple[Any, int]] = deque([(value, 0)])
    entered: set[int] = set()
    while queue:
        holder, depth = queue.popleft()
        if type(holder) in _PLAIN or isinstance(holder, Handle):
            continue
        if id(holder) in entered or depth >= MAX_DEPTH:
            continue
        entered.add(id(holder))
        # Another thread may change a container meanwhile, and a user's type may raise.
        with suppress(Exception):
            for part, alone in counted(*_listed(holder)):
                if most <= 0:
                    return
                most -= 1
                yield part, alone
                queue.append((part, depth + 1))


def counted(parts: Iterable[Any], holders: int = 1) -> Iterator[tuple[Any, bool]]:
    """Yield parts, each with whether no more than so many containers refer to it.

    Reference counts are those of CPython.
    """
    for part, references in _references(parts):
        yield part, references < _IN_CONTAINER + holders


def _references(parts: Iterable[Any]) -> Iterator[tuple[Any, int]]:
    for part in parts:
        yield part, sys.getrefcount(part)


def _listed(value: Any) -> tuple[Iterable[Any], int]:
    """Return the parts of a value, and how many containers hold them: also one that is made to list them."""
    inner = unwrapped(value)
    parts = parts_of(value) if inner is value else (inner,)
    listed = parts.values() if isinstance(parts, Mapping) else parts or ()
    return listed, 1 if parts is value else 2


_IN_CONTAINER: Final = next(references for _, references in _references([object()]))
"""`sys.getrefcount` of an object that only a container refers to."""
