"""Locks of registry items (registry-api)."""

from __future__ import annotations

from ivcap_flows.provena.api import Api, members, parse
from ivcap_flows.provena.infos import Info
from ivcap_flows.provena.subtypes import kind_of, route
from ivcap_flows.provena.wire import Wire

__all__ = ["LockEvent", "LocksApi"]


class LockEvent(Wire):
    """A lock that was set (`action_type` LOCK) or removed (UNLOCK)."""

    action_type: str
    username: str | None = None
    email: str | None = None
    reason: str | None = None
    timestamp: int


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
