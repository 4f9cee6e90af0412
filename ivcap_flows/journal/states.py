"""The states of an intent and the arrows between them, each with its cause. The journal refuses any other change.

             ┌──────────── asked again ────────────┐
             ▼                                     │
(none) ─► claimed ── request leaves ──► sent ──► dropped    refused, failed, or written off
             │                          │
             └─── was there already ──► done ◄── reply, or found on the platform; missing there: sent, or dropped
"""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["ARROWS", "OPEN", "State", "allowed"]

State = Literal["claimed", "sent", "done", "dropped"]
"""`claimed`: nothing was sent; `sent`: a request may have been sent; `done`: the platform has the effect; `dropped`: no
effect, or given up. A sent intent is in doubt (`IntentRow.in_doubt`) once its reply was lost, its holder ended, or the
platform answered that it is missing."""

ARROWS: Final[dict[tuple[State | None, State], str]] = {
    (None, "claimed"): "requested for the first time",
    ("claimed", "claimed"): "its holder ended before sending, and another took over",
    ("claimed", "sent"): "the request is about to be sent, or another journal may have sent one",
    ("claimed", "done"): "the effect was on the platform already, or an earlier equal one is reused",
    ("claimed", "dropped"): "given up before anything was sent",
    ("sent", "sent"): "progress was stored, a doubt arose, or the request is sent again",
    ("sent", "done"): "the reply came, or the effect was found on the platform",
    ("sent", "dropped"): "the platform refused or failed, the request certainly was not sent, or the user wrote it off",
    ("done", "done"): "the platform's work ended, a further effect was found, or the user took it over",
    ("done", "sent"): "a later request found the upload missing on the platform",
    ("done", "dropped"): "the platform has lost it, and the user had it forgotten",
    ("dropped", "claimed"): "the same effect is requested again",
}

OPEN: Final = frozenset[State]({"claimed", "sent"})
"""The outcome is open: a process works on it, or one still has to."""


def allowed(before: State | None, after: State) -> bool:
    """Return whether the table has this arrow."""
    return (before, after) in ARROWS
