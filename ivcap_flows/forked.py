"""What a process keeps for itself, made anew in a forked child: no thread of the parent, which may hold a lock, is
there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerProcess", "in_forked_child"]

T = TypeVar("T")


def in_forked_child(begin: Callable[[], object]) -> None:
    """Call `begin` in each child that this process forks, before anything else runs there."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=begin)


class PerProcess(Generic[T]):
    """A value of this process: `make` makes it, and makes it anew in a forked child."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._renew()
        in_forked_child(self._renew)

    def _renew(self) -> None:
        self._value = self._make()

    def __call__(self) -> T:
        """Return the value."""
        return self._value
