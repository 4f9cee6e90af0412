"""Task runs that begin before their flow has an attempt. They are kept until the flow has one.

Most flows never have one, and no hook tells when they end. So the oldest calls give way to new ones, of whatever flow.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ivcap_flows.capture.attempts import attempt_lock
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.recorder_registry import recorder
from ivcap_flows.forked import PerProcess
from ivcap_flows.identity import flows_urn

if TYPE_CHECKING:
    from ivcap_flows.journal import OpenedAttempt

__all__ = ["MOST", "keep", "put", "put_kept"]

MOST: Final = 10_000
"""The maximum number of calls to keep, of all flow runs together."""
_pending: PerProcess[OrderedDict[Call, str]] = PerProcess(OrderedDict)
"""The calls in the order of their begin, each with its flow run."""


def put(call: Call, opened: OpenedAttempt) -> None:
    """Record a call as part of an attempt."""
    call.run_id, call.attempt_id = opened.run.id, opened.attempt.id
    call.parent = call.parent or flows_urn("attempt", opened.attempt.id)
    recorder().put(call)


def keep(call: Call, flow_run_id: str) -> str | None:
    """Keep a call until `put_kept`. Return the flow run of an ended call that gave way to it, if any did.

    Hold `attempt_lock` from before you look for an attempt.
    """
    pending = _pending()
    pending[call] = flow_run_id
    if len(pending) <= MOST:
        return None
    oldest, its_flow_run = pending.popitem(last=False)
    # One that still runs is kept anew when it ends.
    return None if oldest.ended is None else its_flow_run


def put_kept(opened: OpenedAttempt) -> None:
    """Record the calls that were kept for the flow run of an attempt that was just opened."""
    with attempt_lock():
        for call in [call for call, of in _pending().items() if of == opened.attempt.flow_run_id]:
            del _pending()[call]
            put(call, opened)
