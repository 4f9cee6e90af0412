"""Task runs that begin before their flow has an attempt. They are kept until the flow has one.

Most flows never have one, and no hook tells when they end. So the oldest calls give way to new ones, of whatever flow.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ivcap_flows.capture.attempts import turn
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.recorder_registry import recorder
from ivcap_flows.identity import flows_urn

if TYPE_CHECKING:
    from ivcap_flows.journal import OpenedAttempt

__all__ = ["ROOM", "keep", "put", "put_kept"]

ROOM: Final = 32 * 2**20
"""The approximate maximum number of bytes that the kept calls hold, of all flow runs together."""

_kept: OrderedDict[Call, tuple[str, int]] = OrderedDict()
"""The calls in the order of their begin, each with its flow run and weight."""
_held = 0


def _forget_parent() -> None:
    """Forget the parent's calls in a forked child: the parent records them."""
    global _held
    _kept.clear()
    _held = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def put(call: Call, opened: OpenedAttempt) -> None:
    """Record a call as part of an attempt."""
    call.run_id, call.attempt_id = opened.run.id, opened.attempt.id
    call.parent = call.parent or flows_urn("attempt", opened.attempt.id)
    recorder().put(call)


def keep(call: Call, flow_run_id: str) -> list[str]:
    """Keep a call until `put_kept`. Return the flow run of each ended call that gave way to it.

    Hold `turn` from before you look for an attempt.
    """
    global _held
    if call not in _kept:
        weight = call.weight
        _kept[call] = flow_run_id, weight
        _held += weight
    dropped: list[str] = []
    while _held > ROOM:
        oldest, (of, weight) = _kept.popitem(last=False)
        _held -= weight
        # One that still runs is kept anew when it ends.
        if oldest.ended is not None:
            dropped.append(of)
    return dropped


def put_kept(opened: OpenedAttempt) -> None:
    """Record the calls that were kept for the flow run of an attempt that was just opened."""
    global _held
    with turn():
        for call, (of, weight) in list(_kept.items()):
            if of == opened.attempt.flow_run_id:
                del _kept[call]
                _held -= weight
                put(call, opened)
