"""What a plan keeps of the tasks: writes that need no key, which it lists unsent, and handles of what would be made."""

from __future__ import annotations

from typing import TypeVar

from ivcap_flows.durable import Planned, planning
from ivcap_flows.durable.plan import Source
from ivcap_flows.handles import Handle
from ivcap_flows.identity import fingerprint

__all__ = ["only_planned", "planned", "planned_members"]

H = TypeVar("H", bound=Handle)


def only_planned(noun: str, subject: str, *made: Handle, origin: str | None = None) -> bool:
    """If a plan is being made, add this write, which makes handles, to it and return True: send nothing then.

    The write is idempotent: repeating it changes nothing. `origin` says where all that it makes exists already.
    """
    plan = planning()
    if plan is None:
        return False
    source: Source = "new" if origin is None else "kept"
    plan.add(Planned(noun, subject, None, {"subject": subject}, fingerprint([noun, subject]), source, origin=origin))
    plan.values |= {handle.urn: handle for handle in made}
    return True


def planned_members(collection: str, *more: Handle) -> list[Handle]:
    """Return what a collection would get, after it would get `more`. Without a plan, that is nothing."""
    plan = planning()
    if plan is None:
        return []
    found = plan.members.setdefault(collection, [])
    found += [each for each in more if each not in found]
    return found


def planned(urn: str, kind: type[H]) -> H | None:
    """Return the handle of what would be made under a URN, or None if no plan is being made or it has no such thing."""
    plan = planning()
    value = None if plan is None else plan.values.get(urn)
    return value if isinstance(value, kind) else None
