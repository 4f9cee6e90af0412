"""Plan idempotent writes: they need no key, since repeating them changes nothing. A plan lists them unsent."""

from __future__ import annotations

from ivcap_flows.durable import Planned, planning
from ivcap_flows.identity import fingerprint

__all__ = ["only_planned"]


def only_planned(noun: str, subject: str) -> bool:
    """If a plan is being made, add this write to it and return True; then the caller must not send anything."""
    plan = planning()
    if plan is None:
        return False
    plan.add(Planned(noun, subject, None, {"subject": subject}, fingerprint([noun, subject]), "new"))
    return True
