"""Access reports: the roles of each component, and which of them a user has."""

from __future__ import annotations

from typing import Any, Literal

from ivcap_flows.local.provena.model import Model
from ivcap_flows.local.provena.users import COMPONENTS, User

__all__ = ["AccessReport", "access_report"]

_LEVELS = ("READ", "WRITE", "ADMIN")
_FOR_ADMINISTRATORS = ["ADMINISTRATOR"]
_FOR_ALL = ["GENERAL", "ADMINISTRATOR"]


class _Role(Model):
    role_name: str
    role_display_name: str
    role_level: Literal["READ", "WRITE", "ADMIN"]
    description: str
    intended_users: list[Literal["GENERAL", "ADMINISTRATOR"]]
    access_granted: bool


class _Component(Model):
    component_name: Literal["entity-registry", "handle-service", "job-service", "sys-admin"]
    component_roles: list[_Role]


class AccessReport(Model):
    """The roles of each component, as a user has or wants them."""

    components: list[_Component]


def access_report(user: User) -> dict[str, Any]:
    """Return the report about a user."""
    return {
        "components": [
            {"component_name": name, "component_roles": [_role(stem, level, user) for level in _LEVELS]}
            for name, stem in COMPONENTS.items()
        ]
    }


def _role(stem: str, level: str, user: User) -> dict[str, Any]:
    name = f"{stem}-{level.lower()}"
    return {
        "role_name": name,
        "role_display_name": name.replace("-", " ").title(),
        "role_level": level,
        "description": f"Gives {level.lower()} access to what {stem} holds.",
        "intended_users": _FOR_ALL if stem == "entity-registry" and level != "ADMIN" else _FOR_ADMINISTRATORS,
        "access_granted": name in user.roles,
    }
