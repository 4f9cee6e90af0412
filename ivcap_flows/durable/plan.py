"""Plan mode: find out what a flow would send and what it already has, without sending anything."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from ivcap_flows.durable.earlier_successes import EarlierSuccesses
from ivcap_flows.journal import RunRow

__all__ = ["Plan", "Planned", "plan", "planning"]

Source = Literal["new", "kept", "adopted", "reused", "in doubt", "resubmitted"]
"""`new`: would be sent; `kept`: known from the journal; `adopted`: on the platform already; `reused`: an earlier one of
an equal request; `in doubt`: sent before, to be looked for first; `resubmitted`: would be sent again, since the earlier
one failed."""


@dataclass(frozen=True)
class Planned:
    """One effect of a plan.

    `origin` says where an effect that exists comes from. `equals` is the URN of an earlier order or job that succeeded
    with an equal request, if one would be new and was not to be reused.
    """

    noun: str
    subject: str | None
    name: str | None
    request: Any
    key: str
    source: Source
    urn: str | None = None
    origin: str | None = None
    equals: str | None = None

    def __str__(self) -> str:
        about = (f" {self.name}" if self.name else "") + (f" for {self.subject}" if self.subject else "")
        place = "".join(
            f", {part}" for part in (self.urn, self.origin, self.equals and f"equals {self.equals}") if part
        )
        return f"{self.source}: {self.noun}{about}{place}"


@dataclass
class Plan:
    """The effects that a flow requested while planning, each once.

    `run` is the logical run that would be continued, and `flow` is the name of the planned flow. The flow can read what
    would be made: `values` are the handles by URN, and `members` what each collection would get. `earlier` is what the
    journal has that new requests may equal.
    """

    run: RunRow | None = None
    flow: str | None = None
    effects: list[Planned] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict, repr=False)
    members: dict[str, list[Any]] = field(default_factory=dict, repr=False)
    earlier: EarlierSuccesses | None = field(default=None, repr=False)
    _new_run: str = field(default_factory=lambda: str(uuid.uuid4()), repr=False)

    @property
    def run_id(self) -> str:
        """The id of the run that would be continued, or a placeholder for a run that would be new."""
        return self._new_run if self.run is None else self.run.id

    @property
    def new(self) -> list[Planned]:
        """The effects that would be sent."""
        return [effect for effect in self.effects if effect.source in ("new", "resubmitted")]

    def add(self, effect: Planned) -> None:
        """Add an effect unless its key is in the plan."""
        if all(known.key != effect.key for known in self.effects):
            self.effects.append(effect)

    def __str__(self) -> str:
        return "\n".join(str(effect) for effect in self.effects)


_current: ContextVar[Plan | None] = ContextVar("ivcap_flows_plan", default=None)


@contextmanager
def plan(run: RunRow | None = None) -> Iterator[Plan]:
    """Collect effects instead of sending them, while the block runs: `with plan() as p: flow(); print(p)`.

    This includes tasks in threads and on the package's loop, which inherit the context, but not other processes.
    """
    planned = Plan(run)
    token = _current.set(planned)
    try:
        yield planned
    finally:
        _current.reset(token)


def planning() -> Plan | None:
    """Return the plan that is being made in this context, or None outside of `plan()`."""
    return _current.get()
