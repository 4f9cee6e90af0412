"""The states of an intent and the arrows between them, each with its cause. The journal refuses any other change.

(none) ─claim→ intent ─send→ sent ─reply→ accepted ─finish→ terminal
                 │            │ └─doubt→ in_doubt ─adopt→ accepted
                 │            └─refuse→ abandoned    └─send again→ sent
"""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["ARROWS", "DONE", "OPEN", "State", "allowed"]

State = Literal["intent", "sent", "in_doubt", "accepted", "terminal", "abandoned"]
"""`intent`: nothing was sent; `sent`: a request may have been sent; `in_doubt`: it is not known whether it took effect;
`accepted`: the platform has the effect; `terminal`: the platform's work has ended; `abandoned`: no effect, or given up.
"""

ARROWS: Final[dict[tuple[State | None, State], str]] = {
    (None, "intent"): "requested for the first time",
    ("intent", "intent"): "its holder ended before sending, and another took over",
    ("intent", "sent"): "the request is about to be sent",
    ("intent", "accepted"): "the effect was on the platform already, or an earlier equal one is reused",
    ("intent", "in_doubt"): "the platform has an intent of another journal under the key",
    ("intent", "abandoned"): "given up before anything was sent",
    ("sent", "sent"): "a resumable effect stored its progress, or the claim was confirmed before a request",
    ("sent", "accepted"): "the reply came",
    ("sent", "in_doubt"): "the reply was lost, or the holder ended",
    ("sent", "abandoned"): "the platform refused, or the request certainly was not sent",
    ("in_doubt", "in_doubt"): "its holder ended and another took over, or the reply was lost again",
    ("in_doubt", "accepted"): "found on the platform, and adopted",
    ("in_doubt", "sent"): "not found on the platform after the visibility delay, or resumed",
    ("in_doubt", "abandoned"): "written off by the user, or found to have failed",
    ("accepted", "accepted"): "a further effect under the key was found and stored, or the user took it over",
    ("accepted", "terminal"): "the platform's work has ended, or the user wrote it off at its end",
    ("terminal", "terminal"): "its end was seen again",
    ("abandoned", "intent"): "the same effect is requested again",
}

DONE: Final = frozenset[State]({"accepted", "terminal"})
"""The effect exists; the journal answers further requests for it."""
OPEN: Final = frozenset[State]({"intent", "sent", "in_doubt"})
"""The outcome is open: a process works on it, or one still has to."""


def allowed(before: State | None, after: State) -> bool:
    """Return whether the table has this arrow."""
    return (before, after) in ARROWS
