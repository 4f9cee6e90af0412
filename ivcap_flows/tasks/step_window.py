"""Which of many steps to request next, so that only so many are on their way together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ivcap_flows.handles import Job, Order
from ivcap_flows.journal import IntentRow

__all__ = ["StepWindow"]

W = TypeVar("W", bound=Order | Job)


class StepWindow(Generic[W]):
    """A window over the steps, in their order: who ends makes place for the next, and one straggler holds one place.

    A step that failed is requested again, if it may be, before any other. If it may not, no further step is requested,
    unless the caller wants to `keep_going`. `known` is what the journal had under the keys of steps when the call
    began: it counts as requested, also if a smaller window or another order of the steps would leave it out.
    """

    def __init__(
        self,
        keys: Sequence[Any],
        size: int,
        *,
        max_resubmits: int,
        keep_going: bool,
        known: Mapping[Any, IntentRow],
    ) -> None:
        self._keys, self._size, self._max_resubmits = keys, size, max_resubmits
        self._keep_going, self._known = keep_going, known
        self._failed_before = [
            key
            for key, row in known.items()
            if row.has_ended and row.status != "succeeded" and row.generation < max_resubmits
        ]
        self._tries = Counter[Any]()
        self._failed_for_good: set[Any] = set()
        self.under_way: dict[Any, W] = {}
        self.ended: dict[Any, W] = {}
        self.unread: list[Any] = []
        """The steps of which the journal knew that they had ended. They were not waited for."""
        self.enough: int | None = None
        """How much of what is under way must have ended to wake a parked run; 0 to look once, None for all."""
        self.waits = True

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield the steps to request next. Then, if it `waits`, wait for `enough` of those under way."""
        self.enough, self.waits = 0, True
        if there := [key for key in self._keys if key in self._known and key not in self._failed_before]:
            yield there
        while True:
            if again := self._to_repeat()[: self._places]:
                # Whether they may be requested again decides whether any other step is.
                self.waits = False
                yield again
            wanted = [] if self.stops else self.untouched[: self._places]
            if not wanted and not self.under_way:
                return
            left = not self.stops and len(self.untouched) > len(wanted)
            # Each start of a parked run repeats the flow's body, so it wakes for a quarter of its window.
            self.enough, self.waits = -(-self._size // 4) if left else None, True
            yield wanted

    def requested(self, keys: Sequence[Any], work: Sequence[W]) -> None:
        """Note what was requested, or was there."""
        for key, each in zip(keys, work, strict=True):
            self._tries[key] += 1
            before, row = self.ended.get(key), self._known.get(key)
            if before is not None and before.urn == each.urn:
                self._failed_for_good.add(key)
            elif row is not None and row.has_ended and row.urn == each.urn and before is None:
                # What failed would have been requested again, if it might be.
                self.unread.append(key)
                self._end(key, each, for_good=True)
            else:
                self.ended.pop(key, None)
                self.under_way[key] = each

    def told(self, ended: Sequence[W]) -> None:
        """Note what has ended. Steps with equal requests share it."""
        by_urn = {each.urn: each for each in ended}
        for key in [key for key, each in self.under_way.items() if each.urn in by_urn]:
            each = by_urn[self.under_way.pop(key).urn]
            self._end(key, each, for_good=self._tries[key] > self._max_resubmits)

    def _end(self, key: Any, work: W, *, for_good: bool) -> None:
        self.ended[key] = work
        if for_good and not work.succeeded:
            self._failed_for_good.add(key)

    def _to_repeat(self) -> list[Any]:
        failed = [key for key, work in self.ended.items() if not work.succeeded and key not in self._failed_for_good]
        return failed + [key for key in self._failed_before if key not in self._tries]

    @property
    def _places(self) -> int:
        return max(0, self._size - len(self.under_way))

    @property
    def stops(self) -> bool:
        """Whether no further step is requested, since one has failed."""
        return not self._keep_going and bool(self._failed_for_good)

    @property
    def untouched(self) -> list[Any]:
        """The steps that were not requested."""
        return [key for key in self._keys if key not in self._tries and key not in self._known]
