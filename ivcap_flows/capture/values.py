"""Read arguments and results once: as JSON, together with the handles and paths in them.

Tables and arrays are set aside and read separately. Lazy and unknown values are named by their type; they are never
computed, iterated or printed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import ParseResult, SplitResult
from uuid import UUID

from ivcap_flows.canonical import canonical_form
from ivcap_flows.capture.data import is_data, place_of
from ivcap_flows.capture.parts import MAX_DEPTH, may_be_path, parts_of, unwrapped
from ivcap_flows.capture.stand_ins import StandIns, block_of
from ivcap_flows.handles import Handle, Job, LocalFile
from ivcap_flows.identity import canonical
from ivcap_flows.secrets import HIDDEN, hide_within, is_secret_name, is_secret_type, scrub, scrub_text

__all__ = ["ValueScan"]

MAX_PARTS: Final = 20_000
"""The maximum number of parts of one call's values that are looked at."""
MAX_SHOWN: Final = 200
"""The maximum number of items of a container that are kept as JSON. Handles and paths are found in all of them."""
MAX_TEXT: Final = 4_000
MAX_NAME: Final = 200
MAX_ROOM: Final = 100_000
"""The maximum number of characters of one call's values that are kept as JSON."""
MAX_DATA: Final = 64
"""The maximum number of tables and arrays of one call that are read."""
MAX_FOUND: Final = 10_000
"""The maximum number of handles, and of paths, of one call that are kept."""
_AT_ONCE: Final = 1_000
"""The number of items that are not shown and are scrubbed together."""
_EXACT: Final = 2**53

_AS_IT_IS: Final = frozenset({bool, type(None)})
_AS_TEXT: Final = (datetime, date, time, timedelta, Decimal, UUID)


class ValueScan:
    """The things found in one call's arguments or result, each with the name of its argument.

    `data` are tables and arrays, each with its stand-in in the JSON. `digest_values` reads them and completes the
    stand-ins. If the JSON is not `wanted`, as that of a result, it is not complete. `unread` counts the values that are
    not looked into: two that differ may have one JSON.
    """

    __slots__ = ("_left", "_room", "_shows", "_wanted", "data", "handles", "paths", "unread")

    def __init__(self, *, wanted: bool = True) -> None:
        # What is not shown of a container gets into its digest.
        self._wanted = self._shows = wanted
        self.handles: list[tuple[str, Handle | LocalFile]] = []
        self.paths: list[tuple[str, str]] = []
        self.data: list[tuple[str, Any, dict[str, Any]]] = []
        self.unread = 0
        self._left = MAX_PARTS
        self._room = MAX_ROOM

    @property
    def budget(self) -> tuple[int, int]:
        """The number of parts that may still be looked at, and of characters that may still be kept."""
        return self._left, self._room

    @budget.setter
    def budget(self, budget: tuple[int, int]) -> None:
        self._left, self._room = budget

    @property
    def weight(self) -> int:
        """The approximate number of bytes that everything found holds."""
        return 2 * (MAX_ROOM - self._room) + 500 * (len(self.handles) + len(self.paths) + MAX_PARTS - self._left)

    def named(self, role: str, name: str, value: Any, depth: int = 0) -> Any:
        """Return the JSON of a value, as `at` does. Hide a text under a secret name, here and in everything later."""
        if type(value) is str and is_secret_name(name):
            hidden: str = scrub({name: value})[name]
            return hidden
        return self.at(role, value, depth)

    def at(self, role: str, value: Any, depth: int = 0) -> Any:
        """Return the JSON of a value. Add its handles and paths to what was found."""
        kind = type(value)
        if kind in _AS_IT_IS:
            return value
        if kind is int:
            return value if -_EXACT < value < _EXACT else self._shown(_digits(value))
        if kind is float:
            return value if math.isfinite(value) else str(value)
        if kind is str:
            return self._text(role, value)
        if self._left <= 0 or depth > MAX_DEPTH:
            return self._unread(value)
        self._left -= 1
        try:
            return self._object(role, value, depth)
        except Exception as error:  # noqa: BLE001 - whatever a user's type does, the rest is looked at
            return {**self._unread(value), "unhashed": f"it raises {type(error).__name__}"}

    def _unread(self, value: Any) -> dict[str, str]:
        self.unread += 1
        return _named(value)

    def _text(self, role: str, value: str) -> str:
        if may_be_path(value) and len(self.paths) < MAX_FOUND:
            self.paths.append((role, value))
        return self._shown(value)

    def _shown(self, value: str) -> str:
        if not self._wanted:
            return ""
        most = min(MAX_TEXT, max(self._room, 0)) if self._shows else MAX_TEXT
        if len(value) > most:
            # The digest tells two texts apart that differ only in the hidden part. Scrub first: half a token is not
            # recognised.
            shown = scrub_text(value)
            sha256_ = sha256(shown.encode(errors="surrogatepass")).hexdigest()
            value = shown[:most] + f"… (sha256 {sha256_}, {len(value)} characters)"
        if self._shows:
            self._room -= len(value) + 8
        return value

    def _object(self, role: str, value: Any, depth: int) -> Any:
        kind: Any = type(value)
        if isinstance(value, Handle | LocalFile):
            if len(self.handles) < MAX_FOUND:
                # No record has a result, which may be large, and the call may wait in the queue.
                kept = value.model_copy(update={"result": None}) if isinstance(value, Job) else value
                self.handles.append((role, kept))
            return value.urn if isinstance(value, Handle) else self._path(role, value)
        place = place_of(value)
        if place is not None:
            return self._path(role, Path(place))
        if is_data(value):
            return self._data(role, value)
        if is_secret_type(kind):
            hide_within(value)
            return HIDDEN
        block = block_of(value)
        if block is not None:
            hide_within(value)
            return block
        inner = unwrapped(value)
        if inner is not value:
            return self.at(role, inner, depth + 1)
        if isinstance(value, bool | int | float | str):
            plain = next(base for base in (bool, int, float, str) if isinstance(value, base))
            return self.at(role, plain(value), depth + 1)
        if isinstance(value, os.PathLike):
            return self._path(role, value)
        if isinstance(value, ParseResult | SplitResult):
            # The user and password of an address are recognised in the whole of it.
            return self._text(role, value.geturl())
        parts = parts_of(value)
        if isinstance(parts, Mapping):
            return self._mapping(role, parts, depth)
        if parts is not None:
            return self._sequence(role, parts, depth)
        if isinstance(value, _AS_TEXT):
            return value.isoformat() if isinstance(value, date | time) else str(value)
        if kind.__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
            plain = value.item()
            return self._unread(value) if type(plain) is kind else self.at(role, plain, depth + 1)
        return self._unread(value)

    def _data(self, role: str, value: Any) -> dict[str, Any]:
        kind = type(value)
        slot = {"type": f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"}
        if len(self.data) < MAX_DATA:
            self.data.append((role, value, slot))
        else:
            slot["unhashed"] = f"one of more than {MAX_DATA}"
            self.unread += 1
        return slot

    def _path(self, role: str, value: os.PathLike[Any]) -> Any:
        path = os.fspath(value)
        if not isinstance(path, str):
            path = os.fsdecode(path)
        if "://" not in path:
            # The trailing separator tells a path, which may be a folder, from a text, which may be a file.
            self.paths.append((role, os.path.join(path, "")))
        return path

    def _mapping(self, role: str, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        rest: _Rest | None = None
        shows = self._shows
        for index, (name, inner) in enumerate(value.items()):
            if self._left <= 0:
                self.unread += 1
                break
            self._shows = shows and index < MAX_SHOWN and self._room > 0
            json = self.named(role, name, inner, depth + 1) if type(name) is str else self.at(role, inner, depth + 1)
            if shows and not self._shows:
                rest = rest or _Rest()
                rest.add({name: json} if type(name) is str else json)
                continue
            label = name if type(name) is str else str(self.at(role, name, depth + 1))
            label = label if len(label) <= MAX_NAME or not shows else scrub_text(label)[:MAX_NAME] + "…"
            if self._shows:
                self._room -= len(label) + 8
            shown[label] = json
        self._shows = shows
        if shows and (rest is not None or len(value) > MAX_SHOWN):
            shown["…"] = (rest or _Rest()).summary(len(value))
        return shown

    def _sequence(self, role: str, value: Any, depth: int) -> list[Any]:
        shown: list[Any] = []
        rest: _Rest | None = None
        shows = self._shows
        if isinstance(value, set | frozenset):
            # The order of a set differs between processes.
            value = sorted(value) if all(type(item) is str for item in value) else sorted(value, key=_rank)
        for index, inner in enumerate(value):
            if self._left <= 0:
                self.unread += 1
                break
            self._shows = shows and index < MAX_SHOWN and self._room > 0
            json = self.at(role, inner, depth + 1)
            if shows and not self._shows:
                rest = rest or _Rest()
                rest.add(json)
                continue
            if self._shows:
                self._room -= 8
            shown.append(json)
        self._shows = shows
        if shows and (rest is not None or len(value) > MAX_SHOWN):
            shown.append((rest or _Rest()).summary(len(value)))
        return shown


class _Rest:
    """The items of a container that are not shown. Its digest tells apart containers that differ only there.

    They are scrubbed many at once, since there may be a million, and each scrubbing takes long.
    """

    def __init__(self) -> None:
        self._hasher = sha256()
        self._items: list[Any] = []

    def add(self, item: Any) -> None:
        self._items.append(item)
        if len(self._items) >= _AT_ONCE:
            self._take()

    def _take(self) -> None:
        self._hasher.update(repr(scrub(self._items)).encode(errors="surrogatepass"))
        self._items.clear()

    def summary(self, count: int) -> str:
        """Return the stand-in for them in a container of `count` items."""
        self._take()
        return f"… the rest with sha256 {self._hasher.hexdigest()}, {count} items"


def _rank(item: Any) -> tuple[bool, bytes]:
    """Return the sort key for an item of a set. Items without a canonical form come last, by their types."""
    try:
        return False, canonical(canonical_form(item, "item", stand_in=StandIns()))
    except Exception:  # noqa: BLE001 - whatever a user's type does, it is recorded
        return True, f"{type(item).__module__}.{type(item).__qualname__}".encode()


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:
        # Python converts no more than some thousand digits.
        return hex(value)


def _named(value: Any) -> dict[str, str]:
    """Return the stand-in for a value that is not looked into: its type, and that it is not hashed."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"type": type(value).__name__, "unhashed": f"{len(value)} bytes in memory"}
    kind = type(value)
    return {"type": f"{kind.__module__}.{kind.__qualname__}", "unhashed": "not looked into"}
