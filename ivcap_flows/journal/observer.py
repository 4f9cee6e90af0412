"""What a journal tells its observer: each change of an intent, a park, an attempt or a delivery, once it is on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ivcap_flows.errors import SpendLimitError
from ivcap_flows.journal.rows import AttemptRow, IntentRow

__all__ = ["AttemptEnded", "DeliveryRefused", "IntentMoved", "LimitReached", "Observer", "RunWoken", "Transition"]


@dataclass(frozen=True)
class IntentMoved:
    """The row of an intent changed."""

    before: IntentRow
    intent: IntentRow


@dataclass(frozen=True)
class AttemptEnded:
    """An attempt ended with the outcome of its row."""

    attempt: AttemptRow


@dataclass(frozen=True)
class RunWoken:
    """A run goes on that had parked in this attempt."""

    attempt: AttemptRow


@dataclass(frozen=True)
class DeliveryRefused:
    """A sink refused a delivery permanently."""

    sink: str
    run_id: str | None
    reason: str | None


@dataclass(frozen=True)
class LimitReached:
    """A run requested more orders and jobs than it may. Nothing was written, and nothing is sent."""

    run_id: str | None
    error: SpendLimitError


Transition: TypeAlias = IntentMoved | AttemptEnded | RunWoken | DeliveryRefused | LimitReached

Observer: TypeAlias = Callable[[Transition], None]
"""Called in the thread that wrote the change and in the context of its caller, which waits: so it must be quick."""
