"""The link between a user and a Person of the registry (auth-api)."""

from __future__ import annotations

from ivcap_flows.provena.api import Api

__all__ = ["AuthApi"]


class AuthApi(Api):
    """Who the caller is in the registry. Most creates there need a linked person; a link cannot be undone by a user."""

    async def linked_person(self, username: str | None = None) -> str | None:
        """The id of the person that a user (default: the caller) is linked to, or None."""
        body = await self.call(
            "GET",
            "/link/user/lookup",
            repeat="idempotent",
            params={"username": username} if username else None,
            status_decides=False,
        )
        person = body.get("person_id")
        return str(person) if person else None

    async def assign_person(self, person_id: str) -> None:
        """Link the caller to a person that the caller owns.

        Raises BadRequestError if a link is there already. After a lost reply `linked_person` tells whether it took.
        """
        await self.call("POST", "/link/user/assign", repeat="keyed", json={"person_id": person_id})
