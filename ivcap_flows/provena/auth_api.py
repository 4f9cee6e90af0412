"""The caller's roles, and link to a Person of the registry (auth-api)."""

from __future__ import annotations

from pydantic import Field

from ivcap_flows.provena.api import Api, parse
from ivcap_flows.provena.wire import Wire

__all__ = ["AccessReport", "AuthApi"]


class AccessRole(Wire):
    """A role of a component, and whether the user has it. `role_level` is READ, WRITE or ADMIN."""

    role_name: str
    role_display_name: str | None = None
    role_level: str | None = None
    description: str | None = None
    intended_users: list[str] = Field(default_factory=list)
    access_granted: bool


class AccessComponent(Wire):
    """A part of Provena with its own roles, such as `entity-registry`."""

    component_name: str
    component_roles: list[AccessRole]


class AccessReport(Wire):
    """The roles of a user."""

    components: list[AccessComponent]

    def granted(self) -> list[str]:
        """Return the names of the roles that the user has."""
        return [role.role_name for part in self.components for role in part.component_roles if role.access_granted]


class AuthApi(Api):
    """The caller's identity in the registry and the caller's roles. Most creates there need a linked person."""

    async def linked_person(self) -> str | None:
        """Return the id of the person that the caller is linked to, or None."""
        body = await self.call("GET", "/link/user/lookup", repeat="idempotent", status_decides=False)
        person = body.get("person_id")
        return str(person) if person else None

    async def access_report(self) -> AccessReport:
        """Return all roles, and which of them the caller has."""
        body = await self.call("GET", "/access-control/user/generate-access-report", repeat="idempotent")
        return parse(AccessReport, body.get("report"), "access report")
