"""Who may do what with registry items, and their locks (registry-api).

Roles on items are `metadata-read`, `metadata-write` and `admin`, for datasets also `dataset-data-read` and
`dataset-data-write`. An item's owner and the registry's administrators have all.
"""

from __future__ import annotations

from pydantic import Field

from ivcap_flows.provena.api import Api, members, parse
from ivcap_flows.provena.infos import Info
from ivcap_flows.provena.subtypes import kind_of, route
from ivcap_flows.provena.wire import Wire

__all__ = ["AccessApi", "AccessSettings", "ItemRole", "LockEvent", "LocksApi"]


class AccessSettings(Wire):
    """Which roles everybody has on an item (`general`), and which the members of groups (group id to roles)."""

    owner: str
    general: list[str] = Field(default_factory=list)
    groups: dict[str, list[str]] = Field(default_factory=dict)


class ItemRole(Wire):
    """A role that can be given on items of a subtype. What it `also_grants` is told, and not granted by itself."""

    role_name: str
    role_display_name: str | None = None
    description: str | None = None
    also_grants: list[str] = Field(default_factory=list)


class LockEvent(Wire):
    """A lock that was put on (`action_type` LOCK) or taken off (UNLOCK)."""

    action_type: str
    username: str | None = None
    email: str | None = None
    reason: str | None = None
    timestamp: int


class AccessApi(Api):
    """Access to items. All but `roles` raise BadRequestError for an unknown id."""

    async def evaluate(self, subtype: type[Info] | str, id: str) -> list[str]:  # noqa: A002 - the platform's own word
        """The roles that the caller has on an item; none at all is no error."""
        path = f"{route(kind_of(subtype))}/auth/evaluate"
        body = await self.call("GET", path, repeat="idempotent", params={"id": id})
        return [str(role) for role in members(body, "roles", "answer about access")]

    async def configuration(self, subtype: type[Info] | str, id: str) -> AccessSettings:  # noqa: A002
        """Who has which roles on an item. Raises NotAuthorizedError for who is no admin of it."""
        path = f"{route(kind_of(subtype))}/auth/configuration"
        return parse(AccessSettings, await self.call("GET", path, repeat="idempotent", params={"id": id}), "access")

    async def modify(self, subtype: type[Info] | str, id: str, settings: AccessSettings) -> None:  # noqa: A002
        """Replace who has which roles on an item. The owner cannot be changed (BadRequestError).

        Raises NotAuthorizedError for who is no admin of it.
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
        """The roles that there are on items of a subtype."""
        body = await self.call("GET", f"{route(kind_of(subtype))}/auth/roles", repeat="idempotent")
        return [parse(ItemRole, role, "role") for role in members(body, "roles", "answer about roles")]


class LocksApi(Api):
    """Locks of items. A locked one cannot be changed by anybody: NotAuthorizedError about "item".

    All raise BadRequestError for an unknown id; to change a lock takes an admin of the item.
    """

    async def lock(self, subtype: type[Info] | str, id: str, *, reason: str) -> None:  # noqa: A002
        """Lock an item. Raises BadRequestError for one that is locked already."""
        kind = kind_of(subtype)
        await self.call("PUT", f"{route(kind)}/locks/lock", repeat="keyed", json={"id": id, "reason": reason})

    async def unlock(self, subtype: type[Info] | str, id: str, *, reason: str) -> None:  # noqa: A002
        """Unlock an item. Raises BadRequestError for one that is not locked."""
        kind = kind_of(subtype)
        await self.call("PUT", f"{route(kind)}/locks/unlock", repeat="keyed", json={"id": id, "reason": reason})

    async def locked(self, subtype: type[Info] | str, id: str) -> bool:  # noqa: A002
        """Whether an item is locked."""
        path = f"{route(kind_of(subtype))}/locks/locked"
        return bool((await self.call("GET", path, repeat="idempotent", params={"id": id})).get("locked"))

    async def history(self, subtype: type[Info] | str, id: str) -> list[LockEvent]:  # noqa: A002
        """When an item was locked and unlocked, by whom and why; the oldest first."""
        path = f"{route(kind_of(subtype))}/locks/history"
        body = await self.call("GET", path, repeat="idempotent", params={"id": id})
        return [parse(LockEvent, event, "lock") for event in members(body, "history", "history of locks")]
