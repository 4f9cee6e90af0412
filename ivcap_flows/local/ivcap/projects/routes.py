"""`/1/project` (IVCAP OpenAPI 0.48). Its lists have their items as `projects` and `members`, their cursor as `page`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from starlette.responses import Response

from ivcap_flows.local import clock, ids
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.filters import Column
from ivcap_flows.local.ivcap.paging import Listing, page_of
from ivcap_flows.local.ivcap.projects import shapes
from ivcap_flows.local.ivcap.projects.state import MEMBERSHIPS
from ivcap_flows.local.ivcap.replies import reply, without_none
from ivcap_flows.local.ivcap.routing import LIST, Call, Operation, Param

__all__ = ["OPERATIONS"]

_SHORTEST_NAME: Final = 3

LISTING: Final = Listing(
    "projects",
    MEMBERSHIPS,
    {
        "urn": Column("id"),
        "name": Column("name"),
        "status": Column("status"),
        "account": Column("account"),
        "parent": Column("parent"),
        "role": Column("role"),
        "created-at": Column("created_at", "time"),
        "modified-at": Column("modified_at", "time"),
    },
    "created-at",
    since="created_at",
)
MEMBERS: Final = Listing("members", "members", {"role": Column("role"), "urn": Column("user")}, "urn")


def _record(row: sqlite3.Row) -> dict[str, Any]:
    return without_none(
        {
            "urn": row["id"],
            "name": row["name"],
            "status": row["status"],
            "role": row["role"],
            "account": row["account"],
            "parent": row["parent"],
            "properties": None if row["details"] is None else {"details": row["details"]},
            "created_at": clock.stamp(row["created_at"]),
            "modified_at": clock.stamp(row["modified_at"]),
            "at-time": clock.stamp(clock.now()),
        }
    )


def _urn(body: Mapping[str, Any], field: str, noun: str) -> str | None:
    """Return a URN of the body; None if it is not given. Raises Problem 422."""
    given = body.get(field)
    if given is None:
        return None
    urn = ids.as_urn(noun, given) if isinstance(given, str) else None
    if urn is None:
        raise errors.parameter(field, f"{field} must be the URN of a {noun}.")
    return urn


def _text(body: Mapping[str, Any], field: str, least: int = 1) -> str:
    """Return a text of the body. Raises Problem 422."""
    text = body.get(field)
    if not isinstance(text, str) or len(text) < least:
        raise errors.parameter(field, f"{field} must be a text of at least {least} characters.")
    return text


def _details(body: Mapping[str, Any]) -> str | None:
    properties = body.get("properties")
    details = properties.get("details") if isinstance(properties, dict) else None
    if not isinstance(properties, dict | None) or not isinstance(details, str | None):
        raise errors.parameter("properties", "properties must be an object whose details are a text.")
    return details


def create(call: Call) -> Response:
    body = call.object()
    row = call.platform.projects.create(
        call.who,
        _urn(body, "urn", "project"),
        name=_text(body, "name", _SHORTEST_NAME),
        account=_urn(body, "account", "account"),
        parent=_urn(body, "parent", "project"),
        details=_details(body),
    )
    return reply(_record(row))


def change(call: Call) -> Response:
    """Change the fields in the body; the others stay."""
    body = call.object()
    read: dict[str, Callable[[], Any]] = {
        "name": lambda: _text(body, "name", _SHORTEST_NAME),
        "account": lambda: _urn(body, "account", "account"),
        "parent": lambda: _urn(body, "parent", "project"),
        "properties": lambda: _details(body),
    }
    values = {name: value() for name, value in read.items() if body.get(name) is not None}
    if "properties" in values:
        values["details"] = values.pop("properties")
    return reply(_record(call.platform.projects.change(call.who, call.id("project"), **values)))


def read(call: Call) -> Response:
    return reply(_record(call.platform.projects.read(call.who, call.id("project"))))


def delete(call: Call) -> Response:
    """Mark a project as deleted: it stays readable, but is no longer in any list."""
    call.platform.projects.change(call.who, call.id("project"), status="deleted")
    return Response(status_code=204)


def default(call: Call) -> Response:
    return reply(_record(call.platform.projects.default(call.who)))


def set_default(call: Call) -> Response:
    body = call.object()
    project, user = _urn(body, "project_urn", "project"), _urn(body, "user_urn", "user")
    if project is None:
        raise errors.parameter("project_urn", "project_urn is missing.")
    if user not in (None, call.who.subject):
        raise errors.forbidden("You can set only your own default project.")
    call.platform.projects.set_default(call.who, project)
    return Response(status_code=204)


def account(call: Call) -> Response:
    return reply({"account_urn": call.platform.projects.read(call.who, call.id("project"))["account"]})


def set_account(call: Call) -> Response:
    account = _urn(call.object(), "account_urn", "account")
    if account is None:
        raise errors.parameter("account_urn", "account_urn is missing.")
    call.platform.projects.change(call.who, call.id("project"), account=account)
    return Response(status_code=204)


def set_member(call: Call) -> Response:
    project, user = call.id("project"), call.id("user", "user")
    call.platform.projects.set_member(call.who, project, user, _text(call.object(), "role"))
    return Response(status_code=204)


def remove_member(call: Call) -> Response:
    call.platform.projects.remove_member(call.who, call.id("project"), call.id("user", "user"))
    return Response(status_code=204)


def list_all(call: Call) -> Response:
    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        return ["user = ?", "status <> 'deleted'", "visible_from <= ?"], [call.who.subject, clock.now()]

    page = page_of(call, LISTING, conditions, lambda row, question: _record(row))
    return reply(_named(page, "projects"))


def members(call: Call) -> Response:
    project = call.id("project")
    call.platform.projects.read(call.who, project)
    known = {one.subject: one.email for one in (call.platform.first, call.platform.second, call.platform.provider)}

    def conditions(question: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        role = question["role"]
        return ["project = ?", *(["role = ?"] if role else [])], [project, *([role] if role else [])]

    def item(row: sqlite3.Row, question: Mapping[str, Any]) -> dict[str, Any]:
        return without_none({"urn": row["user"], "role": row["role"], "email": known.get(row["user"])})

    return reply(_named(page_of(call, MEMBERS, conditions, item), "members"))


def _named(page: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a page in the form of these lists."""
    following = [one["href"] for one in page["links"] if one["rel"] == "next"]
    cursor = {"page": parse_qs(urlsplit(following[0]).query)["page"][0]} if following else {}
    return {name: page["items"], "at-time": page["at-time"], **cursor}


OPERATIONS: Final = (
    Operation(
        "GET",
        "/1/project",
        list_all,
        "List the caller's projects",
        LIST,
        answers=(200, 400, 422),
        gives=shapes.LIST,
    ),
    Operation(
        "POST",
        "/1/project",
        create,
        "Create a project",
        body=True,
        answers=(200, 400, 403, 404, 409, 422),
        takes=shapes.DEFINITION,
        gives=shapes.RECORD,
    ),
    Operation(
        "GET",
        "/1/project/default",
        default,
        "Read the caller's default project",
        answers=(200, 404),
        gives=shapes.RECORD,
    ),
    Operation(
        "PUT",
        "/1/project/default",
        set_default,
        "Set the caller's default project",
        body=True,
        answers=(204, 400, 403, 404, 422),
        takes=shapes.DEFAULT,
    ),
    Operation(
        "GET",
        "/1/project/{id}",
        read,
        "Read a project",
        answers=(200, 404),
        gives=shapes.RECORD,
    ),
    Operation(
        "PUT",
        "/1/project/{id}",
        change,
        "Change a project",
        body=True,
        answers=(200, 400, 403, 404, 422),
        takes=shapes.CHANGE,
        gives=shapes.RECORD,
    ),
    Operation("DELETE", "/1/project/{id}", delete, "Delete a project", answers=(204, 403, 404)),
    Operation(
        "GET",
        "/1/project/{id}/account",
        account,
        "Read the account of a project",
        answers=(200, 404),
        gives=shapes.ACCOUNT,
    ),
    Operation(
        "PUT",
        "/1/project/{id}/account",
        set_account,
        "Set the account of a project",
        body=True,
        answers=(204, 400, 403, 404, 422),
        missing="Only the caller's own account can be set; nothing is billed.",
        takes=shapes.ACCOUNT,
    ),
    Operation(
        "GET",
        "/1/project/{id}/members",
        members,
        "List the members of a project",
        (Param("role"), Param("limit", "integer", 10, least=1, most=50), Param("page")),
        answers=(200, 400, 404, 422),
        gives=shapes.MEMBERS,
    ),
    Operation(
        "PUT",
        "/1/project/{id}/memberships/{user}",
        set_member,
        "Add a member or change its role",
        body=True,
        answers=(204, 400, 403, 404, 422),
        missing="A role other than owner gives access only to the project's record, and to nothing else.",
        takes=shapes.ROLE,
    ),
    Operation(
        "DELETE", "/1/project/{id}/memberships/{user}", remove_member, "Remove a member", answers=(204, 403, 404)
    ),
)
