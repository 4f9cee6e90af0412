"""The caller's roles, groups, and link to a Person of the registry (auth-api)."""

from __future__ import annotations

from typing import Any

from ivcap_flows.errors import InputError
from ivcap_flows.http.session import Session
from ivcap_flows.provena.accounts import AccessReport, AccessRequest, Group, GroupMember
from ivcap_flows.provena.api import Api, members, parse, refusal_of

__all__ = ["AuthApi", "GroupsApi"]


class GroupsApi(Api):
    """Groups as their members see them. An unknown group raises NotFoundError."""

    async def describe(self, id: str) -> Group:  # noqa: A002 - the platform's own word
        """Read one group, without its members."""
        return parse(Group, (await self._asked("describe_group", {"id": id})).get("group"), f"group {id}")

    async def members(self, id: str) -> list[GroupMember]:  # noqa: A002
        """Return the members of one of the caller's groups.

        Raises NotAuthorizedError (about "item") if the caller is not in it.
        """
        group = parse(Group, (await self._asked("list_members", {"id": id})).get("group"), f"group {id}")
        return group.users or []

    async def mine(self) -> list[Group]:
        """Return the groups that the caller is in."""
        return _groups(await self.call("GET", "/groups/user/list_user_membership", repeat="idempotent"))

    async def is_member(self, id: str) -> bool:  # noqa: A002
        """Return whether the caller is in a group."""
        return bool((await self._asked("check_membership", {"group_id": id})).get("is_member"))

    async def list(self) -> list[Group]:
        """Return all groups."""
        return _groups(await self.call("GET", "/groups/user/list_groups", repeat="idempotent"))

    async def _asked(self, route: str, params: dict[str, Any]) -> dict[str, Any]:
        return await self.call("GET", f"/groups/user/{route}", repeat="idempotent", params=params, absent=(200,))


class AuthApi(Api):
    """The caller's identity in the registry and the caller's roles. Most creates there need a linked person.

    `groups` has the groups of users.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.groups = GroupsApi(session)

    async def linked_person(self, username: str | None = None) -> str | None:
        """Return the id of the person that a user (default: the caller) is linked to, or None."""
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
        """Link the caller to a person that the caller owns. Users cannot undo this.

        Raises BadRequestError if the caller has a link already. After a lost reply, `linked_person` tells whether it
        was made.
        """
        await self.call("POST", "/link/user/assign", repeat="keyed", json={"person_id": person_id})

    async def validate_person(self, person_id: str) -> str | None:
        """Return why the caller cannot be linked to a person, in Provena's words; None if nothing prevents it.

        For a caller who is already linked, it returns a reason for every person.
        """
        path = "/link/user/validate"
        body = await self.call("POST", path, repeat="idempotent", json={"person_id": person_id}, status_decides=False)
        return refusal_of(body)

    async def access_report(self) -> AccessReport:
        """Return all roles, and which of them the caller has."""
        body = await self.call("GET", "/access-control/user/generate-access-report", repeat="idempotent")
        return parse(AccessReport, body.get("report"), "access report")

    async def request_change(self, report: AccessReport, *, send_email: bool = True) -> None:
        """Ask the administrators for the roles that a report marks as granted (see `AccessReport.asking_for`).

        With `send_email`, they are notified by e-mail. A second call makes a second request; `pending_requests` shows
        both.
        """
        if not report.components:
            raise InputError("The access report is empty; take the one of `access_report()` and ask for roles in it.")
        await self.call(
            "POST",
            "/access-control/user/request-change",
            repeat="unsafe",
            params={"send_email": send_email},
            json=report.body(unknown=True),
        )

    async def request_history(self) -> list[AccessRequest]:
        """Return all role requests of the caller."""
        return _requests(await self.call("GET", "/access-control/user/request-history", repeat="idempotent"))

    async def pending_requests(self) -> list[AccessRequest]:
        """Return the caller's role requests that no administrator has decided yet."""
        return _requests(await self.call("GET", "/access-control/user/pending-request-history", repeat="idempotent"))


def _groups(body: dict[str, Any]) -> list[Group]:
    return [parse(Group, group, "group") for group in members(body, "groups", "list of groups")]


def _requests(body: dict[str, Any]) -> list[AccessRequest]:
    return [parse(AccessRequest, item, "access request") for item in members(body, "items", "list of access requests")]
