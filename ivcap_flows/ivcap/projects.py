"""Projects, their accounts and members (IVCAP OpenAPI 0.48, `/1/project`).

This part of the API has its own conventions: field names are in snake_case, a list is under `projects` or `members`,
and the cursor of the next page is beside it as `page`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ConfigDict

from ivcap_flows.errors import InputError, NotFoundError
from ivcap_flows.http.paging import walked
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.ivcap.wire import Instant, Text, Wire, instant, record_of, replied, segment, urn_argument

__all__ = ["MemberRecord", "ProjectRecord", "Projects"]


class _Snake(Wire):
    model_config = ConfigDict(alias_generator=lambda name: name)


class ProjectRecord(_Snake):
    """A project. `status` is `active`, `disabled`, `deleted` or `unknown`; `properties` may hold `details`."""

    urn: str
    name: Text = None
    account: Text = None
    parent: Text = None
    role: Text = None
    status: Text = None
    created_at: Instant = None
    modified_at: Instant = None
    properties: dict[str, Any] | None = None


class MemberRecord(_Snake):
    """A user who belongs to a project."""

    urn: Text = None
    email: Text = None
    role: Text = None


class _Account(_Snake):
    account_urn: str


R = TypeVar("R", bound=Wire)


class Projects:
    """`/1/project`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(
        self,
        name: str,
        *,
        account: str | None = None,
        parent: str | None = None,
        details: str | None = None,
    ) -> ProjectRecord:
        """Create a project; `account` pays for it. Unsafe: names are not unique, so a duplicate cannot be detected."""
        body = _body(name=name, account=account, parent=parent, details=details)
        reply = await self._session.request("POST", "/1/project", json=body, repeat="unsafe", expect=(200, 201))
        return replied(ProjectRecord, reply, self._session)

    async def read(self, urn: str) -> ProjectRecord:
        """Read a project."""
        reply = await self._session.request("GET", f"/1/project/{segment(urn)}", repeat="idempotent")
        return replied(ProjectRecord, reply, self._session)

    def list(
        self,
        *,
        filter: str | None = None,  # noqa: A002 - the API's word
        order_by: str | None = None,
        order_desc: bool | None = None,
        at_time: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[ProjectRecord]:
        """Yield the projects that the user belongs to; `limit` is the total."""
        params = {"filter": filter, "order-by": order_by, "order-desc": order_desc, "at-time": instant(at_time)}
        return self._listed(ProjectRecord, "/1/project", "projects", params, limit)

    async def update(
        self,
        urn: str,
        *,
        name: str | None = None,
        account: str | None = None,
        parent: str | None = None,
        details: str | None = None,
    ) -> ProjectRecord:
        """Change the given fields and leave the rest."""
        body = _body(name=name, account=account, parent=parent, details=details)
        reply = await self._session.request("PUT", f"/1/project/{segment(urn)}", json=body, repeat="idempotent")
        return replied(ProjectRecord, reply, self._session)

    async def delete(self, urn: str) -> None:
        """Delete a project. Idempotent."""
        try:
            await self._session.request("DELETE", f"/1/project/{segment(urn)}", repeat="idempotent")
        except NotFoundError:
            return

    async def default(self) -> ProjectRecord:
        """Read the user's default project."""
        reply = await self._session.request("GET", "/1/project/default", repeat="idempotent")
        return replied(ProjectRecord, reply, self._session)

    async def set_default(self, urn: str, *, user: str | None = None) -> None:
        """Make a project the default of a user, which is the caller by default."""
        body = {"project_urn": urn_argument(urn, "project")} | ({} if user is None else {"user_urn": user})
        await self._session.request("PUT", "/1/project/default", json=body, repeat="idempotent")

    async def account(self, urn: str) -> str:
        """Return the URN of the account that pays for a project."""
        reply = await self._session.request("GET", f"/1/project/{segment(urn)}/account", repeat="idempotent")
        return replied(_Account, reply, self._session).account_urn

    async def set_account(self, urn: str, account: str) -> None:
        """Set the account that pays for a project."""
        body = {"account_urn": urn_argument(account, "account")}
        await self._session.request("PUT", f"/1/project/{segment(urn)}/account", json=body, repeat="idempotent")

    def members(self, urn: str, *, role: str | None = None, limit: int | None = None) -> AsyncIterator[MemberRecord]:
        """Yield the members of a project, or only those with a `role`; `limit` is the total."""
        return self._listed(MemberRecord, f"/1/project/{segment(urn)}/members", "members", {"role": role}, limit)

    async def set_member(self, urn: str, user: str, role: str) -> None:
        """Give a user a role in a project."""
        if not role:
            raise InputError("The role of a member must not be empty.")
        path = f"/1/project/{segment(urn)}/memberships/{segment(user)}"
        await self._session.request("PUT", path, json={"role": role}, repeat="idempotent")

    async def remove_member(self, urn: str, user: str) -> None:
        """Remove a user from a project. Idempotent."""
        path = f"/1/project/{segment(urn)}/memberships/{segment(user)}"
        try:
            await self._session.request("DELETE", path, repeat="idempotent")
        except NotFoundError:
            return

    async def _listed(
        self, cls: type[R], path: str, items: str, params: Mapping[str, Any], limit: int | None
    ) -> AsyncIterator[R]:
        async def ask(asked: Mapping[str, Any]) -> Reply:
            return await self._session.request("GET", path, params={**params, **asked}, repeat="idempotent")

        async for item in walked(self._session, ask, dict, items=items, following=_following, limit=limit):
            yield record_of(cls, item, session=self._session, path=path)


def _following(body: Mapping[str, Any]) -> str | None:
    page = body.get("page")
    return page if isinstance(page, str) else None


def _body(*, name: str | None, account: str | None, parent: str | None, details: str | None) -> dict[str, Any]:
    properties = None if details is None else {"details": details}
    given = {"name": name, "account": account, "parent": parent, "properties": properties}
    return {key: value for key, value in given.items() if value is not None}
