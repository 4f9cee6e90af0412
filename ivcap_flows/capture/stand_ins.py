"""Stand-ins for values without a canonical form: by their content, their name, or where they are."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Final

from ivcap_flows.capture.data import is_data, place_of
from ivcap_flows.capture.parts import parts_of, unwrapped
from ivcap_flows.handles import Handle, LocalFile
from ivcap_flows.identity import digest, utf8_safe
from ivcap_flows.secrets import HIDDEN, is_secret_type

__all__ = ["StandIns", "block_of"]

_EXACT: Final = 2**53


def block_of(value: Any) -> dict[str, Any] | None:
    """Return the stand-in for a Prefect block: its type, and the name it is saved under. None if it is not a block."""
    kind: Any = type(value)
    return {"block": kind.__name__, "name": getattr(value, "_block_document_name", None)} if _is_block(kind) else None


@lru_cache(maxsize=4096)
def _is_block(kind: type) -> bool:
    return any(base.__name__ == "Block" and base.__module__.startswith("prefect.blocks") for base in kind.__mro__)


class StandIns:
    """Returns stand-ins to `canonical_form`, for each part of a value that is only compared and never sent.

    `contents` are the names of the tables and arrays that were read, by `id()`. `path` returns the text that counts for
    a text or path.
    """

    def __init__(self, contents: Mapping[int, str] | None = None, path: Callable[[str], str] = str.__str__) -> None:
        self._contents = contents or {}
        self._path = path

    def __call__(self, value: Any) -> Any:
        """Return the value or its stand-in. Raises ValueError for a value that must not be read."""
        value = unwrapped(value)
        kind: Any = type(value)
        if value is None or isinstance(value, bool | Handle):
            return value
        if isinstance(value, str):
            return utf8_safe(self._path(value))
        if isinstance(value, int):
            return value if -_EXACT < value < _EXACT else {"int": f"{value:x}"}
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": str(float(value))}
        if isinstance(value, bytes | bytearray | memoryview):
            return {"sha256": digest(bytes(value))}
        if isinstance(value, LocalFile):
            return {"path": value.path, "sha256": value.sha256}
        place = place_of(value)
        if place is not None:
            return {"path": place}
        if is_data(value):
            if id(value) not in self._contents:
                raise ValueError("whose content was not read")
            return {"content": self._contents[id(value)]}
        if is_secret_type(kind):
            return HIDDEN
        block = block_of(value)
        if block is not None and block["name"] is not None:
            return block
        if isinstance(value, os.PathLike):
            return self(value.as_posix() if isinstance(value, PurePath) else os.fsdecode(value))
        parts = parts_of(value)
        if parts is not None:
            return parts if isinstance(parts, Mapping | set | frozenset) else list(parts)
        if isinstance(value, Mapping):
            raise ValueError("whose items are not read")
        return value
