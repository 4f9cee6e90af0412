"""Access to registry items, and their locks (registry-api).

Roles on items are `metadata-read`, `metadata-write` and `admin`, for datasets also `dataset-data-read` and
`dataset-data-write`. An item's owner and the registry's administrators have all of them.
"""

from __future__ import annotations

from pydantic import Field

from ivcap_flows.provena.api import Api, members, parse
from ivcap_flows.provena.infos import Info
from ivcap_flows.provena.subtypes import kind_of, route
from ivcap_flows.provena.wire import Wire

__all__ = ["AccessApi", "AccessSettings", "ItemRole", "LockEvent", "LocksApi"]


class AccessSettings(Wire):
    """The roles that everybody has on an item (`general`), and those of groups (group id to roles)."""

    owner: str
    general: list[str] = Field(default_factory=list)
    groups: dict[str, list[str]] = Field(default_factory=dict)


class ItemRole(Wire):
    """A role that can be given on items of a subtype. The roles in `also_grants` are not granted automatically."""

    role_name: str
    role_display_name: str | None = None
    description: str | None = None
    also_grants: list[str] = Field(default_factory=list)


class LockEvent(Wire):
    """A lock that was set (`action_type` LOCK) or removed (UNLOCK)."""

    action_type: str
    username: str | None = None
    email: str | None = None
    reason: str | None = None
    timestamp: int


class AccessApi(Api):
    """Access to items. All methods but `roles` raise BadRequestError for an unknown id."""

    async def evaluate(self, subtype: type[Info] | str, id: str) -> list[str]:  # noqa: A002 - the platform's own word
        """Return the roles that the caller has on an item; empty if the caller has none."""
        path = f"{route(kind_of(subtype))}/auth/evaluate"
        body = await self.call("GET", path, repeat="idempotent", params={"id": id})
        return [str(role) for role in members(body, "roles", "answer about access")]

    async def configuration(self, subtype: type[Info] | str, id: str) -> AccessSettings:  # noqa: A002
        """Return the roles that users and groups have on an item.

        Raises NotAuthorizedError if the caller is not its admin.
        """
        path = f"{route(kind_of(subtype))}/auth/configuration"
        return parse(AccessSettings, await self.call("GET", path, repeat="idempotent", params={"id": id}), "access")

    async def modify(self, subtype: type[Info] | str, id: str, settings: AccessSettings) -> None:  # noqa: A002
        """Replace the roles that users and groups have on an item. The owner cannot be changed (BadRequestError).

        Raises NotAuthorizedError if the caller is not an admin of the item.
        """
        kind = kind_of(subtype)
        await self.call(
            "PUT",
            f"{route(kind)}/auth/configuration",
            repeat="idempotent",
            params={"id": id},
            json=settings.body(unknown=True),
        )

    async def roles(self, subtype: type[Info] | str) -> list[ItemRole]:
        """Return the roles that exist for items of a subtype."""
        body = await self.call("GET", f"{route(kind_of(subtype))}/auth/roles", repeat="idempotent")
        return [parse(ItemRole, role, "role") for role in members(body, "roles", "answer about roles")]


class LocksApi(Api):
    """Locks of items. Nobody can change a locked item: NotAuthorizedError about "item".

    All methods raise BadRequestError for an unknown id. Only an admin of the item can change its lock.
    """

    async def lock(self, subtype: type[Info] | str, id: str, *, reason: str) -> None:  # noqa: A002
        """Lock an item. Raises BadRequestError if it is locked already."""
        kind = kind_of(subtype)
        await self.call("PUT", f"{route(kind)}/locks/lock", repeat="keyed", json={"id": id, "reason": reason})

    async def unlock(self, subtype: type[Info] | str, id: str, *, reason: str) -> None:  # noqa: A002
        """Unlock an item. Raises BadRequestError if it is not locked."""
        kind = kind_of(subtype)
        await self.call("PUT", f"{route(kind)}/locks/unlock", repeat="keyed", json={"id": id, "reason": reason})

    async def locked(self, subtype: type[Info] | str, id: str) -> bool:  # noqa: A002
        """Return whether an item is locked."""
        path = f"{route(kind_of(subtype))}/locks/locked"
        return bool((await self.call("GET", path, repeat="idempotent", params={"id": id})).get("locked"))

    async def history(self, subtype: type[Info] | str, id: str) -> list[LockEvent]:  # noqa: A002
        """Return when an item was locked and unlocked, by whom and why, oldest first."""
        path = f"{route(kind_of(subtype))}/locks/history"
        body = await self.call("GET", path, repeat="idempotent", params={"id": id})
        return [parse(LockEvent, event, "lock") for event in members(body, "history", "history of locks")]
