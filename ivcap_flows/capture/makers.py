"""The calls that made a value: numbers, texts, containers and other objects that pass from one call to the next.

A value is identified by the object, as long as the flow holds it. It counts only if nothing else referred to it when
the call returned it: a constant of the code, for example, may reach the next call in another way. So a shared text or
number is replaced by an equal copy. Handles, files, tables and arrays are recorded as things with their own identity,
which leads to their makers.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from ivcap_flows.capture.data import is_data, place_of
from ivcap_flows.capture.parts import MAX_DEPTH, may_be_path, parts_of, unwrapped
from ivcap_flows.forked import PerProcess
from ivcap_flows.handles import Handle, LocalFile

__all__ = ["claim_result", "makers_of", "raised", "release"]

MAX_PARTS: Final = 200
"""The maximum number of parts of one result whose maker is remembered, besides the result itself."""
MAX_GIVEN: Final = 20_000
"""The maximum number of parts of one call's arguments that are looked up."""
MAX_COPIED: Final = 2**20
"""The maximum number of characters or bytes of a text that is copied."""
Wrote = Callable[[str], bool]
"""Whether a call made the file or folder at an absolute path."""
_PATH: Final = type(Path())
_OWNED: Final = frozenset({int, float, complex, str, bytes, _PATH, LocalFile})
_MARK: Final = "_ivcap_flows_maker"
"""The attribute of an error that names the call which raised or returned it."""
_PLAIN: Final = _OWNED | {bool, type(None)}
"""Types that have no parts. Most values are of these types, and further checks take long."""


def claim_result(held: list[Any], maker: str, wrote: Wrote, *, first: bool = False) -> None:
    """Note that the call `maker` made a value and its parts. Replace a shared text or number by an equal copy.

    `held` holds the value, and no variable does. `wrote` says whether the call made the file at a path: such a path
    leads to its maker by the file. With `first`, a value that an earlier call made stays that call's.
    """
    if first and _known.maker_of(held[0]) is not None:
        return
    if sys.getrefcount(held[0]) > _IN_LIST:
        held[0] = _private_copy(held[0])
        if held[0] is None or sys.getrefcount(held[0]) > _IN_LIST:
            return
    _made(held[0], maker, wrote)


def _made(value: Any, maker: str, wrote: Wrote) -> None:
    """Note that the call `maker` made a value, and those of its parts that nothing else refers to.

    Nothing else refers to the value, so shared texts and numbers in its lists and dicts are replaced by equal copies.
    """
    if value is None or _is_thing(value, wrote):
        return
    _copy_items(value)
    within = list(_within(value, MAX_PARTS))
    parts = [(part, alone) for part, alone in within if not _is_thing(part, wrote)]
    if within and not parts:
        return
    _known.note([value, *(part for part, alone in parts if alone)], maker)


def raised(error: BaseException, maker: str) -> None:
    """Note that the call `maker` raised an error, which another call may receive instead of a result."""
    _known.note([error], maker)


def makers_of(value: Any) -> dict[str, None]:
    """Return the calls that made a value and its parts, each once, in the order of the parts."""
    found: dict[str, None] = {}
    _known.sweep(8)
    maker = _known.maker_of(value)
    if maker is not None:
        found[maker] = None
    for part, _ in _within(value, MAX_GIVEN):
        maker = _known.maker_of(part)
        if maker is not None:
            found[maker] = None
    return found


def release() -> bool:
    """Release all values that nothing else holds any more. Return whether any are held."""
    return _known.sweep(sys.maxsize)


def _private_copy(value: Any) -> Any:
    """Return an equal text, path or number that nothing else refers to; the value itself if Python keeps only one."""
    kind = type(value)
    if kind is _PATH:
        return _PATH(value)
    if kind is LocalFile:
        return value.model_copy()
    if kind is int or kind is float or kind is complex:
        negative = -value
        return -negative
    if kind is str and len(value) <= MAX_COPIED:
        return (value + " ")[:-1]
    if kind is bytes and len(value) <= MAX_COPIED:
        return (value + b" ")[:-1]
    return value


def _copy_items(value: Any, depth: int = 0) -> None:
    """Replace the shared texts and numbers in a list or dict, and in the lists and dicts within it, by equal copies."""
    places: Iterable[Any]
    parts: Iterable[Any]
    if type(value) is dict:
        places, parts = value, value.values()
    elif type(value) is list:
        places, parts = range(len(value)), value
    else:
        return
    for place, (part, references) in islice(zip(places, _counted(parts), strict=False), MAX_PARTS):
        kind = type(part)
        if kind in _OWNED:
            if references > _IN_CONTAINER:
                value[place] = _private_copy(part)
        elif (kind is dict or kind is list) and depth < MAX_DEPTH and references <= _IN_CONTAINER:
            _copy_items(part, depth + 1)


def _is_thing(value: Any, wrote: Wrote) -> bool:
    if isinstance(value, str):
        return may_be_path(value) and wrote(os.path.abspath(value))
    if isinstance(value, os.PathLike):
        return wrote(os.path.abspath(os.fsdecode(value)))
    if type(value) in _PLAIN:
        return False
    return isinstance(value, Handle) or is_data(value) or place_of(value) is not None


def _within(value: Any, most: int) -> Iterator[tuple[Any, bool]]:
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
            parts, holders = _parts(holder)
            for part, references in _counted(parts):
                if most <= 0:
                    return
                most -= 1
                yield part, references < _IN_CONTAINER + holders
                queue.append((part, depth + 1))


def _parts(value: Any) -> tuple[Iterable[Any], int]:
    """Return the parts of a value, and how many containers hold them: also one that is made to list them."""
    inner = unwrapped(value)
    parts = parts_of(value) if inner is value else (inner,)
    listed = parts.values() if isinstance(parts, Mapping) else parts or ()
    return listed, 1 if parts is value else 2


def _counted(parts: Iterable[Any]) -> Iterator[tuple[Any, int]]:
    for part in parts:
        yield part, sys.getrefcount(part)


class _Known:
    """The values whose makers are known.

    Most are held by weak references. Lists, dicts, numbers and others that allow none are held strongly, and released
    when nothing else holds them. Each `note` checks a few of these, and `sweep` as many as it is told. Errors are not
    held but marked: the frames of its traceback often refer to an error, so it would never be released, nor all that
    they hold.
    """

    def __init__(self) -> None:
        self._makers: dict[int, tuple[Any, bool, str]] = {}
        self._held: deque[int] = deque()
        self._lock = PerProcess(threading.RLock)

    def note(self, values: list[Any], maker: str) -> None:
        """Note the maker of each value."""
        with self._lock():
            self._sweep(2 * len(values))
            for value in values:
                if isinstance(value, BaseException):
                    vars(value)[_MARK] = maker
                    continue
                key = id(value)
                if type(value).__weakrefoffset__:
                    self._makers[key] = weakref.ref(value, partial(self._forget, key)), True, maker
                    continue
                known = self._makers.get(key)
                if known is None or known[0] is not value:
                    self._held.append(key)
                self._makers[key] = value, False, maker

    def maker_of(self, value: Any) -> str | None:
        """Return the call that made this very object, or None if it is unknown."""
        if isinstance(value, BaseException):
            return vars(value).get(_MARK)
        known = self._makers.get(id(value))
        if known is None:
            return None
        holder, weak, maker = known
        return maker if (holder() if weak else holder) is value else None

    def sweep(self, most: int) -> bool:
        """Release what nothing else holds among so many of the values. Return whether any are held."""
        with self._lock():
            self._sweep(most)
            return bool(self._held)

    def _sweep(self, most: int) -> None:
        for _ in range(min(most, len(self._held))):
            key = self._held.popleft()
            known = self._makers.get(key)
            if known is None or known[1]:
                continue
            if sys.getrefcount(known[0]) <= _HELD_ALONE:
                del self._makers[key]
            else:
                self._held.append(key)

    def _forget(self, key: int, gone: Any) -> None:
        # Another object may have taken the address of the one that is gone.
        known = self._makers.get(key)
        if known is not None and known[0] is gone:
            del self._makers[key]


def _references_if_held() -> int:
    known = object(), False, ""
    return sys.getrefcount(known[0])


_ALONE: Final = [object()]
_IN_LIST: Final = sys.getrefcount(_ALONE[0])
_IN_CONTAINER: Final = next(references for _, references in _counted([object()]))
_HELD_ALONE: Final = _references_if_held()
"""`sys.getrefcount` of an object that nothing else refers to, where the code above counts it in the same words."""

_known: Final = _Known()
