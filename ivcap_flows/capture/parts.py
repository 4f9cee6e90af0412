"""What a value consists of: the one definition for what is shown, compared, and searched for things.

Values of other types are not looked into: they might be views of files or of remote stores.
"""

from __future__ import annotations

import dataclasses
import os
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Collection, ItemsView, KeysView, Mapping, ValuesView
from enum import Enum
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final

from pydantic import BaseModel, RootModel

__all__ = ["MAX_DEPTH", "may_be_path", "parts_of", "unwrapped"]

MAX_DEPTH: Final = 8
"""The depth down to which values are looked into."""
_MAX_PATH: Final = 1_024

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
