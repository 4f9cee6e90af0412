"""The states of an intent and every arrow between them, each with its cause. The journal refuses any other.

(none) ─claim→ intent ─send→ sent ─reply→ accepted ─finish→ terminal
                 │            │ └─doubt→ in_doubt ─adopt→ accepted
                 │            └─refuse→ abandoned    └─send again→ sent
"""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["ARROWS", "DONE", "OPEN", "State", "allowed"]

State = Literal["intent", "sent", "in_doubt", "accepted", "terminal", "abandoned"]
"""`intent`: nothing has left; `sent`: a request may have left; `in_doubt`: it is not known whether it took effect;
`accepted`: the platform has the effect; `terminal`: its work has ended; `abandoned`: surely no effect came of it."""

ARROWS: Final[dict[tuple[State | None, State], str]] = {
    (None, "intent"): "asked for the first time",
    ("intent", "intent"): "its holder left before sending, another took over",
    ("intent", "sent"): "the request is about to leave",
    ("intent", "accepted"): "the effect was on the platform already, or an equal one of before is reused",
    ("intent", "in_doubt"): "the platform holds an intent of another journal under the key",
    ("intent", "abandoned"): "given up before anything left",
    ("sent", "sent"): "a resumable effect stored how far it is, or the claim was confirmed before a request",
    ("sent", "accepted"): "the reply came",
    ("sent", "in_doubt"): "the reply was lost, or the holder is gone",
    ("sent", "abandoned"): "the platform refused, or the request surely did not leave",
    ("in_doubt", "in_doubt"): "its holder is gone, another took over; or the reply was lost again",
    ("in_doubt", "accepted"): "looked for and found, so adopted",
    ("in_doubt", "sent"): "looked for and not found after the visibility delay, or resumed",
    ("in_doubt", "abandoned"): "written off by the user, or found to have failed",
    ("accepted", "accepted"): "a further effect under the key was found and noted, or the user took it over",
    ("accepted", "terminal"): "the platform's work has ended, or was written off by the user at its end",
    ("terminal", "terminal"): "seen to have ended once more",
    ("abandoned", "intent"): "the same is asked for again",
}

DONE: Final = frozenset[State]({"accepted", "terminal"})
"""The effect exists; a further request is answered from the journal."""
OPEN: Final = frozenset[State]({"intent", "sent", "in_doubt"})
"""Somebody is at it, or has to be."""


def allowed(before: State | None, after: State) -> bool:
    """Whether the table has this arrow."""
    return (before, after) in ARROWS
