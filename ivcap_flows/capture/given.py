"""What a running call was given: of which objects its arguments consist, and which of them it has changed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

from ivcap_flows.capture.parts import MAX_GIVEN, parts_of, within
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.handles import Handle

__all__ = ["Given"]

_CONTAINERS: Final = frozenset({dict, frozenset, list, set, tuple})
_IMMUTABLE: Final = (tuple, frozenset, str, bytes, Handle)


class Given:
    """The arguments of a call by name, and the `makers` of their values.

    An argument of which everything can be shown as JSON is compared when the call has ended: a list, a dict, a data
    class. Of any other, such as a model, it is not known whether the call has changed it. `function` is the called one.
    """

    def __init__(self, values: Mapping[str, Any], makers: Collection[str] = (), function: Any = None) -> None:
        self.values = values
        self.makers = makers
        self._function = function
        self._shown: dict[str, tuple[Any, tuple[int, int]]] = {}
        self._same: set[str] = set()
        self._objects: dict[int, bool] | None = None

    def shown(self, look: ValueScan) -> dict[str, Any]:
        """Return the arguments as JSON, and remember those that can be compared."""
        shown = {}
        for name, value in self.values.items():
            unread, budget = look.unread, look.budget
            shown[name] = look.named(name, name, value)
            if look.unread == unread and not isinstance(value, _IMMUTABLE[1:]) and parts_of(value) is not None:
                self._shown[name] = shown[name], budget
        return shown

    def changed(self, complete: Callable[[ValueScan], None]) -> list[Any]:
        """Compare the arguments with what they were. Return the lists, dicts and other objects that were changed.

        `complete` gives the tables and arrays that a scan has found their stand-ins.
        """
        changed: list[Any] = []
        for name, (before, budget) in self._shown.items():
            look, value = ValueScan(), self.values[name]
            # How much of a value is shown depends on those before it.
            look.budget = budget
            after = look.named(name, name, value)
            complete(look)
            if look.unread:
                continue
            if after == before:
                self._same.add(name)
            else:
                # Another thread may change a container meanwhile, and a user's type may raise.
                with suppress(Exception):
                    changed += _changed(value, before, after)
        return changed

    def is_constant(self, value: Any) -> bool:
        """Whether a list, a dict or the like has a name in the module of the function."""
        if type(value) not in _CONTAINERS:
            return False
        module: Mapping[str, Any] = getattr(inspect.unwrap(self._function), "__globals__", {})
        return any(each is value for each in list(module.values()))

    def state_of(self, value: Any) -> Literal["same", "perhaps changed"] | None:
        """Return whether the call may have changed an object that it was given; None for any other object."""
        if self._objects is None:
            self._objects = {}
            for name, given in self.values.items():
                may = name not in self._same
                for part in (given, *(part for part, _ in within(given, MAX_GIVEN))):
                    self._objects[id(part)] = may or self._objects.get(id(part), False)
        may_have = self._objects.get(id(value))
        return None if may_have is None else "perhaps changed" if may_have else "same"


def _changed(value: Any, before: Any, after: Any) -> Iterator[Any]:
    """Yield a container whose JSON has changed, and those in it that it still has at the same place."""
    if before == after:
        return
    parts = parts_of(value)
    if parts is None:
        return
    if not isinstance(value, _IMMUTABLE):
        yield value
    if isinstance(parts, Mapping) and isinstance(before, dict) and isinstance(after, dict):
        for name, part in parts.items():
            if name in before and name in after:
                yield from _changed(part, before[name], after[name])
    elif isinstance(before, list) and isinstance(after, list) and not isinstance(value, set | frozenset):
        for part, *shown in zip(parts, before, after, strict=False):
            yield from _changed(part, *shown)
