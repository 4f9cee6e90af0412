"""The calls that made a value: numbers, texts, containers and other objects that pass from one call to the next.

A value is known by the object, as long as the flow holds it. The call that first returned it made it. A call that was
given it and changed it, or may have, made its next version. Handles, files, tables and arrays are recorded as things
with an identity of their own, which leads to their makers.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from ivcap_flows.capture.data import is_data, place_of
from ivcap_flows.capture.given import Given
from ivcap_flows.capture.objects import Objects
from ivcap_flows.capture.parts import MAX_DEPTH, MAX_GIVEN, counted, may_be_path, parts_of, within
from ivcap_flows.handles import Handle, Job, LocalFile

__all__ = ["carry", "claimed", "makers_of", "note_changed", "raised", "release"]

MAX_PARTS: Final = 200
"""The maximum number of parts of one result whose maker is remembered, besides the result itself."""
MAX_COPIED: Final = 2**20
"""The maximum number of characters or bytes of a text that is copied."""
Wrote = Callable[[str], bool]
"""Whether a call made the file or folder at an absolute path."""
_PATH: Final = type(Path())
_OWNED: Final = frozenset({int, float, complex, str, bytes, _PATH, LocalFile})
"""Types whose values are followed as copies, of which the flow holds the only ones."""
_SHARED: Final = (
    *(type(None), bool, Enum, type, ModuleType, FunctionType, BuiltinFunctionType, MethodType),
    logging.Logger,
)
"""Types of objects that many hold, whoever returns them."""
_MARK: Final = "_ivcap_flows_maker"
"""The attribute of an error that names the calls which raised or returned it."""

_makers: Final = Objects[tuple[str, ...]]()


def claimed(value: Any, maker: str, given: Given, wrote: Wrote, *, of_flow: bool = False) -> Any:
    """Note what the call `maker` has made of a value that it returns. Return the value, or an equal text or number.

    `wrote` says whether the call made the file at a path: such a path leads to its maker by the file. A flow made only
    what no other call has: its tasks do the work. What the result of a job holds was made by the job.
    """
    if type(value) not in _OWNED:
        for part in (value, *(part for part, _ in within(value, MAX_PARTS))):
            # The only texts and numbers that a handle holds and a flow takes out of it.
            if isinstance(part, Job) and parts_of(part.result) is not None:
                _claim(part.result, part.urn, given, wrote, of_flow=False)
    if _is_followed(value, wrote):
        if type(value) not in _OWNED:
            _claim(value, maker, given, wrote, of_flow=of_flow)
        elif _of(value) is None or (given.state_of(value) is not None and not of_flow):
            copy = _copy_of(value)
            if copy is not value or (isinstance(value, str | bytes) and len(value) > MAX_COPIED):
                value = copy
                _note(value, maker)
    return value


def note_changed(value: Any, maker: str, given: Given, wrote: Wrote) -> None:
    """Note that the call `maker` has changed an object that it was given."""
    if _is_followed(value, wrote):
        _note_next(value, maker, given)


def carry(value: Any, copy: Any) -> None:
    """Note of a copy that a library has made of a value, part by part, who made the value."""
    queue, left = deque([(value, copy)]), MAX_GIVEN
    while queue and left:
        left -= 1
        original, other = queue.popleft()
        if other is original or type(other) in _OWNED:
            continue
        known = _of(original)
        if known is not None and _is_followed(other, lambda path: False):
            _makers.update(other, partial(_first, known))
        # A user's type may raise.
        with suppress(Exception):
            parts, copies = parts_of(original), parts_of(other)
            if isinstance(parts, Mapping) and isinstance(copies, Mapping):
                queue.extend((part, copies[name]) for name, part in islice(parts.items(), left) if name in copies)
            else:
                queue.extend(islice(zip(parts or (), copies or (), strict=False), left))


def _first(known: tuple[str, ...], before: tuple[str, ...] | None) -> tuple[str, ...]:
    return before or known


def raised(error: BaseException, maker: str) -> None:
    """Note that the call `maker` raised an error, which another call may receive instead of a result."""
    vars(error)[_MARK] = (maker,)


def makers_of(value: Any) -> dict[str, None]:
    """Return the calls that made a value and its parts, each once, in the order of the parts."""
    _makers.release(8)
    found = dict.fromkeys(_of(value) or ())
    for part, _ in within(value, MAX_GIVEN):
        found.update(dict.fromkeys(_of(part) or ()))
    return found


def release() -> bool:
    """Release all values that nothing else holds any more. Return whether any are held."""
    return _makers.release()


def _claim(value: Any, maker: str, given: Given, wrote: Wrote, *, of_flow: bool) -> None:
    """Note what a call has made of a container or another object that it returns, and of its parts."""
    state = given.state_of(value)
    if state == "perhaps changed" and not of_flow:
        _note_next(value, maker, given)
    if state is not None or _of(value) is not None or given.is_constant(value):
        return
    followed = [_is_followed(part, wrote) for part, _ in within(value, MAX_PARTS)]
    if followed and not any(followed):
        # What it holds leads to its makers.
        return
    _copy_items(value, given)
    _note(value, maker)
    for part, alone in within(value, MAX_PARTS):
        if not _is_followed(part, wrote):
            continue
        state = given.state_of(part)
        if state == "perhaps changed" and type(part) not in _OWNED and not of_flow:
            _note_next(part, maker, given)
        elif state is None and alone and _of(part) is None:
            # What something else refers to, too, may reach the next call in another way.
            _note(part, maker)


def _note(value: Any, maker: str) -> None:
    if isinstance(value, BaseException):
        raised(value, maker)
    else:
        _makers.update(value, lambda _: (maker,))


def _note_next(value: Any, maker: str, given: Given) -> None:
    """Note the next version of an object. What other calls have made of it since the call began is in it, too."""

    def decide(known: tuple[str, ...] | None) -> tuple[str, ...]:
        concurrent = (other for other in known or () if other not in given.makers and other != maker)
        return (*concurrent, maker)

    _makers.update(value, decide)


def _of(value: Any) -> tuple[str, ...] | None:
    return vars(value).get(_MARK) if isinstance(value, BaseException) else _makers.get(value)


def _is_followed(value: Any, wrote: Wrote) -> bool:
    """Whether a value leads to its makers by itself, and not as a thing, nor as what all hold."""
    if isinstance(value, str):
        return not (may_be_path(value) and wrote(os.path.abspath(value)))
    if isinstance(value, os.PathLike):
        return not wrote(os.path.abspath(os.fsdecode(value)))
    if type(value) in _OWNED:
        return True
    return not isinstance(value, Handle) and not _is_shared(value) and not is_data(value) and place_of(value) is None


def _is_shared(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        # Python has one empty one.
        return not len(value)
    kind: Any = type(value)
    return isinstance(value, _SHARED) or _is_settings(kind)


@lru_cache(maxsize=4096)
def _is_settings(kind: type) -> bool:
    return any(base.__name__ == "BaseSettings" for base in kind.__mro__)


def _copy_of(value: Any) -> Any:
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


def _copy_items(value: Any, given: Given, depth: int = 0) -> None:
    """Replace the shared texts and numbers in a list or dict, and in the lists and dicts within it, by equal copies."""
    places: Iterable[Any]
    parts: Iterable[Any]
    if type(value) is dict:
        places, parts = value, value.values()
    elif type(value) is list:
        places, parts = range(len(value)), value
    else:
        return
    for place, (part, alone) in islice(zip(list(places), counted(parts), strict=False), MAX_PARTS):
        kind = type(part)
        if kind in _OWNED:
            if not alone and (_of(part) is None or given.state_of(part) is not None):
                copy = _copy_of(part)
                # Another thread may have put something else there meanwhile.
                with suppress(LookupError):
                    if value[place] is part:
                        value[place] = copy
        elif (kind is dict or kind is list) and depth < MAX_DEPTH and alone:
            _copy_items(part, given, depth + 1)
