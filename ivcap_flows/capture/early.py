"""Task runs that begin before their flow has an attempt. They are kept until the flow has one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ivcap_flows.capture.attempts import turn
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.latest import Latest
from ivcap_flows.capture.recorder_registry import recorder
from ivcap_flows.identity import flows_urn

if TYPE_CHECKING:
    from ivcap_flows.journal import OpenedAttempt

__all__ = ["keep", "put", "put_kept"]

_MOST: Final = 1_000
"""The maximum number of flow runs to keep, and of the first task runs for each."""
_kept: Latest[str, list[Call]] = Latest(_MOST)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_kept.clear)


def put(call: Call, opened: OpenedAttempt) -> None:
    """Record a call as part of an attempt."""
    call.run_id, call.attempt_id = opened.run.id, opened.attempt.id
    call.parent = call.parent or flows_urn("attempt", opened.attempt.id)
    recorder().put(call)


def keep(call: Call, flow_run_id: str) -> bool:
    """Keep a call until `put_kept`. Return whether there is room. Hold `turn` from before you look for an attempt."""
    kept = _kept.get(flow_run_id)
    if kept is None:
        kept = []
        _kept.put(flow_run_id, kept)
    if call in kept:
        return True
    if len(kept) >= _MOST:
        return False
    kept.append(call)
    return True


def put_kept(opened: OpenedAttempt) -> None:
    """Record the calls that were kept for the flow run of an attempt that was just opened."""
    with turn():
        for call in _kept.pop(opened.attempt.flow_run_id) or ():
            put(call, opened)
