"""Writes that need no key, since doing them again changes nothing: in a plan they are noted and not sent."""

from __future__ import annotations

from ivcap_flows.durable import Planned, planning
from ivcap_flows.identity import fingerprint

__all__ = ["only_planned"]


def only_planned(noun: str, subject: str) -> bool:
    """Whether a plan is being made, which then holds this write; nothing may be sent."""
    plan = planning()
    if plan is None:
        return False
    plan.add(Planned(noun, subject, None, {"subject": subject}, fingerprint([noun, subject]), "new"))
    return True
