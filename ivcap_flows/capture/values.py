"""Look at arguments and results once: what they are as JSON, and the handles and paths in them.

Data frames, lazy arrays and the like are named by their type and never computed or printed.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, SecretBytes, SecretStr

from ivcap_flows.handles import Handle, LocalFile
from ivcap_flows.secrets import HIDDEN

__all__ = ["Look"]

MAX_DEPTH: Final = 8
MAX_PARTS: Final = 20_000
"""How many parts of one call's values are looked at."""
MAX_SHOWN: Final = 200
"""How many items of a container are kept as JSON; handles and paths are found in all of them."""
MAX_TEXT: Final = 4_000
_EXACT: Final = 2**53

_AS_IT_IS: Final = frozenset({bool, type(None)})
_AS_TEXT: Final = (datetime, date, time, timedelta, Decimal, UUID)


@lru_cache(maxsize=4096)
def _is_secret_type(kind: type) -> bool:
    """Pydantic's secrets, and Prefect's `Secret` and `SecretDict` by name, since Prefect is not imported here."""
    names = {(base.__module__.partition(".")[0], base.__name__) for base in kind.__mro__}
    return issubclass(kind, SecretStr | SecretBytes) or bool(names & {("prefect", "Secret"), ("prefect", "SecretDict")})


@lru_cache(maxsize=4096)
def _is_block_type(kind: type) -> bool:
    return any(base.__name__ == "Block" and base.__module__.startswith("prefect.blocks") for base in kind.__mro__)


class Look:
    """The handles and paths found in one call's arguments or result, each with the name of its argument."""

    __slots__ = ("_left", "handles", "paths")

    def __init__(self) -> None:
        self.handles: list[tuple[str, Handle | LocalFile]] = []
        self.paths: list[tuple[str, str]] = []
        self._left = MAX_PARTS

    def at(self, role: str, value: Any, depth: int = 0) -> Any:
        """The JSON of a value, its handles and paths added to what was found."""
        kind = type(value)
        if kind in _AS_IT_IS:
            return value
        if kind is int:
            return value if -_EXACT < value < _EXACT else str(value)
        if kind is float:
            return value if math.isfinite(value) else str(value)
        if kind is str:
            return self._text(role, value)
        if self._left <= 0 or depth > MAX_DEPTH:
            return _named(value)
        self._left -= 1
        return self._object(role, value, depth)

    def _text(self, role: str, value: str) -> str:
        if _may_be_path(value):
            self.paths.append((role, value))
        return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + f"… ({len(value)} characters)"

    def _object(self, role: str, value: Any, depth: int) -> Any:
        kind: Any = type(value)
        if isinstance(value, Handle | LocalFile):
            self.handles.append((role, value))
            return value.urn if isinstance(value, Handle) else value.path
        if _is_secret_type(kind):
            return HIDDEN
        if _is_block_type(kind):
            return {"block": kind.__name__, "name": getattr(value, "_block_document_name", None)}
        if isinstance(value, Enum):
            return self.at(role, value.value, depth + 1)
        if isinstance(value, bool | int | float | str):
            plain = next(base for base in (bool, int, float, str) if isinstance(value, base))
            return self.at(role, plain(value), depth + 1)
        if isinstance(value, os.PathLike):
            return self._path(role, value)
        if isinstance(value, dict | Mapping):
            return self._mapping(role, value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._sequence(role, value, depth)
        if isinstance(value, BaseModel):
            fields = {name: getattr(value, name, None) for name in kind.model_fields}
            return self._mapping(role, fields, depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
            return self._mapping(role, fields, depth)
        if isinstance(value, _AS_TEXT):
            return value.isoformat() if isinstance(value, date | time) else str(value)
        return _named(value)

    def _path(self, role: str, value: os.PathLike[Any]) -> Any:
        path = os.fspath(value)
        if not isinstance(path, str):
            path = os.fsdecode(path)
        if "://" not in path:
            # A trailing separator tells a path that may be a folder from a text that may be a file.
            self.paths.append((role, os.path.join(path, "")))
        return path

    def _mapping(self, role: str, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for index, (name, inner) in enumerate(value.items()):
            if self._left <= 0:
                break
            json = self.at(role, inner, depth + 1)
            if index < MAX_SHOWN:
                shown[name if type(name) is str else str(self.at(role, name, depth + 1))] = json
        if len(value) > MAX_SHOWN:
            shown["…"] = f"{len(value)} items"
        return shown

    def _sequence(self, role: str, value: Any, depth: int) -> list[Any]:
        shown: list[Any] = []
        for index, inner in enumerate(value):
            if self._left <= 0:
                break
            json = self.at(role, inner, depth + 1)
            if index < MAX_SHOWN:
                shown.append(json)
        if len(value) > MAX_SHOWN:
            shown.append(f"… {len(value)} items")
        return shown


def _may_be_path(text: str) -> bool:
    return (
        0 < len(text) <= 1024
        and (os.sep in text or "." in text)
        and not any(part in text for part in ("\n", "\0", "://"))
        and not text.startswith("urn:")
    )


def _named(value: Any) -> dict[str, str]:
    """What is not looked into is named by its type; its data are recorded as not hashed."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"type": type(value).__name__, "unhashed": f"{len(value)} bytes in memory"}
    kind = type(value)
    return {"type": f"{kind.__module__}.{kind.__qualname__}", "unhashed": "not looked into"}
