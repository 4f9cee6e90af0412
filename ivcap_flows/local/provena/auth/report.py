"""Access reports: the roles of each component, and which of them a user has."""

from __future__ import annotations

from typing import Any

from ivcap_flows.local.provena.shape import FLAG, TEXT, Choice, Many, Object, needed
from ivcap_flows.local.provena.users import COMPONENTS, User

__all__ = ["ACCESS_REPORT", "access_report"]

_LEVELS = ("READ", "WRITE", "ADMIN")
_FOR_ADMINISTRATORS = ["ADMINISTRATOR"]
_FOR_ALL = ["GENERAL", "ADMINISTRATOR"]

ACCESS_REPORT = Object(
    {
        "components": needed(
            Many(
                Object(
                    {
                        "component_name": needed(Choice(*COMPONENTS)),
                        "component_roles": needed(
                            Many(
                                Object(
                                    {
                                        "role_name": needed(TEXT),
                                        "role_display_name": needed(TEXT),
                                        "role_level": needed(Choice(*_LEVELS)),
                                        "description": needed(TEXT),
                                        "intended_users": needed(Many(Choice("GENERAL", "ADMINISTRATOR"))),
                                        "access_granted": needed(FLAG),
                                    }
                                )
                            )
                        ),
                    }
                )
            )
        )
    }
)


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
