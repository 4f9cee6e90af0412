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

__all__ = ["MOST", "keep", "put", "put_kept"]

MOST: Final = 10_000
"""The maximum number of calls to keep, of all flow runs together."""
_kept: OrderedDict[Call, str] = OrderedDict()
"""The calls in the order of their begin, each with its flow run."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_kept.clear)


def put(call: Call, opened: OpenedAttempt) -> None:
    """Record a call as part of an attempt."""
    call.run_id, call.attempt_id = opened.run.id, opened.attempt.id
    call.parent = call.parent or flows_urn("attempt", opened.attempt.id)
    recorder().put(call)


def keep(call: Call, flow_run_id: str) -> str | None:
    """Keep a call until `put_kept`. Return the flow run of an ended call that gave way to it, if any did.

    Hold `turn` from before you look for an attempt.
    """
    _kept[call] = flow_run_id
    if len(_kept) <= MOST:
        return None
    oldest, its_flow_run = _kept.popitem(last=False)
    # One that still runs is kept anew when it ends.
    return None if oldest.ended is None else its_flow_run


def put_kept(opened: OpenedAttempt) -> None:
    """Record the calls that were kept for the flow run of an attempt that was just opened."""
    with turn():
        for call in [call for call, of in _kept.items() if of == opened.attempt.flow_run_id]:
            del _kept[call]
            put(call, opened)
