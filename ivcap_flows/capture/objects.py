"""What is known of objects in memory, as long as they live: one table for versions of data, one for makers of values.

An object is known by its identity. Equal objects may have nothing in common, and Python reuses the address of one that
is gone.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar

from ivcap_flows.forked import PerProcess

__all__ = ["Objects"]

T = TypeVar("T")


class Objects(Generic[T]):
    """A fact about each of many objects.

    Most are held by weak references. Lists, dicts, numbers and others that allow none are held strongly, and released
    when nothing else holds them. Each `update` checks a few of these, and `release` as many as it is told.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, bool, T]] = {}
        self._held: deque[int] = deque()
        self._lock = PerProcess(threading.RLock)

    def update(self, value: Any, decide: Callable[[T | None], T]) -> T:
        """Note what `decide` makes of the fact that was known about an object. Return it."""
        key = id(value)
        with self._lock():
            self._release(2)
            fact = decide(self.get(value))
            if type(value).__weakrefoffset__:
                self._known[key] = weakref.ref(value, partial(self._forget, key)), True, fact
                return fact
            known = self._known.get(key)
            if known is None or known[0] is not value:
                self._held.append(key)
            self._known[key] = value, False, fact
            return fact

    def get(self, value: Any) -> T | None:
        """Return the fact about this very object, or None if there is none."""
        known = self._known.get(id(value))
        if known is None:
            return None
        holder, weak, fact = known
        return fact if (holder() if weak else holder) is value else None

    def release(self, most: int = sys.maxsize) -> bool:
        """Release what nothing else holds among so many of the objects. Return whether any are held."""
        with self._lock():
            self._release(most)
            return bool(self._held)

    def _release(self, most: int) -> None:
        for _ in range(min(most, len(self._held))):
            key = self._held.popleft()
            known = self._known.get(key)
            if known is None or known[1]:
                continue
            if sys.getrefcount(known[0]) <= _HELD_ALONE:
                del self._known[key]
            else:
                self._held.append(key)

    def _forget(self, key: int, gone: Any) -> None:
        # Another object may have taken the address of the one that is gone.
        known = self._known.get(key)
        if known is not None and known[0] is gone:
            del self._known[key]


def _references_if_held() -> int:
    known = object(), False, ""
    return sys.getrefcount(known[0])


_HELD_ALONE: Final = _references_if_held()
"""`sys.getrefcount` of an object that nothing else refers to, where the code above counts it in the same words."""
