"""A bounded mapping for what a long-lived process remembers of many runs: the entries that were used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Counts", "LruCache"]

K = TypeVar("K")
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """A mapping that forgets the entry that was unused for the longest time. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[K, V] = OrderedDict()

    def put(self, key: K, value: V) -> None:
        """Remember a value."""
        with self._lock:
            self._put(key, value)

    def _put(self, key: K, value: V) -> None:
        self._known[key] = value
        self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None if it is unknown."""
        with self._lock:
            if key not in self._known:
                return None
            self._known.move_to_end(key)
            return self._known[key]

    def pop(self, key: K) -> V | None:
        """Return the value of a key, or None if it is unknown, and forget it."""
        with self._lock:
            return self._known.pop(key, None)

    def __contains__(self, key: K) -> bool:
        with self._lock:
            return key in self._known

    def __len__(self) -> int:
        return len(self._known)


class Counts(LruCache[K, int]):
    """A mapping of numbers that begin at 0."""

    def add(self, key: K, more: int) -> int:
        """Add to the number of a key, and return it."""
        with self._lock:
            count = self._known.get(key, 0) + more
            self._put(key, count)
        return count
