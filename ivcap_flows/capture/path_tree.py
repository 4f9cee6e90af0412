"""Values by absolute path, kept as a file system keeps them: a folder moves with all that is in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["PathTree"]

V = TypeVar("V")


class _Node(Generic[V]):
    __slots__ = ("inner", "value")

    def __init__(self) -> None:
        self.inner: dict[str, _Node[V]] = {}
        self.value: V | None = None


class PathTree(Generic[V]):
    """A mapping from absolute paths to values."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()

    def put(self, path: str, value: V) -> bool:
        """Set the value of a path; those of the paths below it stay. Return whether it had none before."""
        node = self._made(_names(path))
        new, node.value = node.value is None, value
        return new

    def get(self, path: str) -> V | None:
        """Return the value of a path, or None."""
        node = self._found(_names(path))
        return None if node is None else node.value

    def around(self, path: str) -> Iterator[tuple[V, str]]:
        """Yield the values of a path and of the folders around it, innermost first, each with the rest of the path."""
        names, node, found = _names(path), self._root, []
        for depth, name in enumerate(names, start=1):
            inner = node.inner.get(name)
            if inner is None:
                break
            node = inner
            if node.value is not None:
                found.append((node.value, depth))
        for value, depth in reversed(found):
            yield value, os.sep.join(names[depth:])

    def below(self, path: str) -> Iterator[V]:
        """Yield the values of all paths below a folder."""
        top = self._found(_names(path))
        left = [] if top is None else list(top.inner.values())
        while left:
            node = left.pop()
            left += node.inner.values()
            if node.value is not None:
                yield node.value

    def move(self, source: str, target: str) -> None:
        """Put a path, with all that is below it, in the place of another."""
        moved = self._take(source)
        *folder, name = _names(target)
        self._made(folder).inner[name] = moved or _Node()

    def forget(self, path: str) -> None:
        """Forget a path, with all that is below it."""
        self._take(path)

    def _take(self, path: str) -> _Node[V] | None:
        *folder, name = _names(path)
        place = self._found(folder)
        return place.inner.pop(name, None) if place is not None else None

    def _found(self, names: list[str]) -> _Node[V] | None:
        node = self._root
        for name in names:
            inner = node.inner.get(name)
            if inner is None:
                return None
            node = inner
        return node

    def _made(self, names: list[str]) -> _Node[V]:
        node = self._root
        for name in names:
            node = node.inner.get(name) or node.inner.setdefault(name, _Node())
        return node


def _names(path: str) -> list[str]:
    inner = path.strip(os.sep)
    return inner.split(os.sep) if inner else []
