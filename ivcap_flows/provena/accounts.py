"""Groups of users, and the roles that a user has or asks for (auth-api)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ivcap_flows.provena.wire import Wire

__all__ = ["AccessComponent", "AccessReport", "AccessRequest", "AccessRole", "Group", "GroupMember"]


class GroupMember(Wire):
    """A user as a member of a group."""

    username: str
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None


class Group(Wire):
    """A group of users. `users` are its members, if they were requested.

    `default_data_store_access` are the roles that the group gets on the datasets that its members mint.
    """

    id: str
    display_name: str | None = None
    description: str | None = None
    default_data_store_access: list[str] | None = None
    users: list[GroupMember] | None = None


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
    """The roles of a user. With changed values of `access_granted`, it is a request for these roles."""

    components: list[AccessComponent]

    def granted(self) -> list[str]:
        """Return the names of the roles that the user has."""
        return [role.role_name for part in self.components for role in part.component_roles if role.access_granted]

    def asking_for(self, *roles: str) -> AccessReport:
        """Return a copy of the report in which these roles are granted too."""
        asked = self.model_copy(deep=True)
        for part in asked.components:
            for role in part.component_roles:
                role.access_granted = role.access_granted or role.role_name in roles
        return asked


class AccessRequest(Wire):
    """A request for other roles, as an administrator sees it. Times are Unix seconds."""

    request_id: int
    username: str
    status: str | None = None
    ui_friendly_status: str | None = None
    created_timestamp: int | None = None
    updated_timestamp: int | None = None
    notes: Any = None
