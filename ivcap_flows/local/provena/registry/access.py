"""Access settings and locks of items."""

from __future__ import annotations

from typing import Any

from ivcap_flows.local import clock
from ivcap_flows.local.provena.model import Mapping, Model
from ivcap_flows.local.provena.registry.kinds import Kind
from ivcap_flows.local.provena.registry.state import Entry, Registry
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import denied, invalid

__all__ = ["AccessSettings", "administered", "configure", "described_roles", "lock"]


class AccessSettings(Model):
    """Who may do what with an item."""

    owner: str
    general: list[str]
    groups: Mapping[list[str]]


_ROLES = {
    "metadata-read": ("See the item and its metadata.", []),
    "metadata-write": ("Change the item's metadata.", ["metadata-read"]),
    "admin": ("Do everything with the item, its access settings included.", ["metadata-read", "metadata-write"]),
    "dataset-data-read": ("Download the dataset's files.", ["metadata-read"]),
    "dataset-data-write": (
        "Add, change and remove the dataset's files.",
        ["metadata-read", "metadata-write", "dataset-data-read"],
    ),
}


def described_roles(kind: Kind) -> list[dict[str, Any]]:
    """Return the roles that exist for items of a kind."""
    return [
        {
            "role_display_name": name.replace("-", " ").title(),
            "role_name": name,
            "description": _ROLES[name][0],
            "also_grants": _ROLES[name][1],
        }
        for name in kind.roles
    ]


def administered(registry: Registry, user: User, kind: Kind, id: str) -> Entry:  # noqa: A002 - the wire's own word
    """Return the entry of an id, for its administrators only."""
    entry = registry.known(id)
    if "admin" not in registry.roles(user, entry):
        raise denied(f"You are no administrator of the item {id}.")
    if entry.kind is not kind:
        raise invalid(f"The item {id} is a {entry.kind.subtype}, not a {kind.subtype}.")
    return entry


def configure(registry: Registry, entry: Entry, settings: AccessSettings) -> None:
    """Replace the access settings of an item."""
    if settings.owner != entry.access["owner"]:
        raise invalid("The owner of an item cannot be changed.")
    named = {role for roles in (settings.general, *settings.groups.values()) for role in roles}
    if unknown := sorted(named - set(entry.kind.roles)):
        raise invalid(f"There are no such roles: {', '.join(unknown)}.")
    entry.access = settings.model_dump()
    registry.save(entry)


def lock(registry: Registry, user: User, entry: Entry, *, on: bool, reason: str) -> None:
    """Lock or unlock an item."""
    if entry.locked == on:
        raise invalid(f"The item {entry.id} is {'already' if on else 'not'} locked.")
    entry.locked = on
    entry.lock_history.append(
        {
            "action_type": "LOCK" if on else "UNLOCK",
            "username": user.username,
            "email": user.email,
            "reason": reason,
            "timestamp": int(clock.seconds()),
        }
    )
    registry.save(entry)
