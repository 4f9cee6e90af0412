"""The auth-api over HTTP."""

from __future__ import annotations

import json
from typing import Any

from ivcap_flows.local import clock
from ivcap_flows.local.provena.auth.report import ACCESS_REPORT, access_report
from ivcap_flows.local.provena.auth.state import Groups, Links
from ivcap_flows.local.provena.registry.state import Registry
from ivcap_flows.local.provena.shape import DICT, FLAG, TEXT, WHOLE, Many, Object, given, maybe, needed
from ivcap_flows.local.provena.store import dumps
from ivcap_flows.local.provena.web import Api, Call, Desk, Level, Refusal, denied, invalid, status

__all__ = ["api"]

_ID = Object({"id": needed(TEXT)})
_PERSON = Object({"person_id": needed(TEXT)})
_USERNAME = Object({"username": needed(TEXT)})
_GROUP = Object(
    {
        "id": needed(TEXT),
        "display_name": needed(TEXT),
        "description": needed(TEXT),
        "default_data_store_access": maybe(Many(TEXT)),
    }
)
_MEMBER = Object({"username": needed(TEXT), "email": maybe(TEXT), "first_name": maybe(TEXT), "last_name": maybe(TEXT)})


def api(desk: Desk, registry: Registry) -> Api:
    """The auth-api. Its admin routes need only the one role of their level."""
    site = Api(desk, "auth-api", "sys-admin", single_role=True)
    site.get("/check-access/public", "public", lambda call: {"success": True, "details": "Anybody may read this."})
    site.get(
        "/check-access/general", "general", lambda call: {"success": True, "details": f"You are {call.user.username}."}
    )
    _links(site, registry.links, registry)
    _user_groups(site, registry.groups)
    _group_administration(site, registry.groups)
    _access(site)
    return site


def _links(site: Api, links: Links, registry: Registry) -> None:
    def found(username: str) -> dict[str, Any]:
        person = links.person_of(username)
        return {"person_id": person, "success": person is not None}

    def complaint(call: Call) -> Refusal | None:
        """Why the caller cannot link itself to the person of the body."""
        person = call.body["person_id"]
        if links.person_of(call.user.username) is not None:
            return invalid("You are already linked to a person; an administrator can change that.")
        entry = registry.get(person)
        if entry is None or entry.kind.subtype != "PERSON" or entry.is_seed:
            return Refusal(500, f"The registry refused the person {person}: it is not the id of a complete PERSON.")
        if entry.item["owner_username"] != call.user.username:
            return denied(f"You do not own the person {person}.")
        return None

    def assign(call: Call) -> dict[str, Any]:
        if refusal := complaint(call):
            raise refusal
        links.assign(call.user.username, call.body["person_id"])
        return {}

    def validate(call: Call) -> dict[str, Any]:
        refusal = complaint(call)
        return {"status": status(refusal is None, str(refusal.detail) if refusal else "The person can be linked.")}

    def assign_any(call: Call) -> dict[str, Any]:
        wanted = call.body
        if links.person_of(wanted["username"]) is not None and not wanted["force"]:
            raise invalid(f"{wanted['username']} is already linked to a person.")
        if wanted["validate_item"] and registry.find("PERSON", wanted["person_id"]) is None:
            raise invalid(f"{wanted['person_id']} is not the id of a complete PERSON.")
        links.assign(wanted["username"], wanted["person_id"])
        return {}

    def clear(call: Call) -> dict[str, Any]:
        links.clear(call.query["username"])
        return {}

    anyone = Object({"username": maybe(TEXT)})
    assignment = Object(
        {
            "username": needed(TEXT),
            "person_id": needed(TEXT),
            "validate_item": given(FLAG, True),
            "force": given(FLAG, False),
        }
    )
    site.get("/link/user/lookup", "general", lambda call: found(call.query["username"] or call.user.username), anyone)
    site.post("/link/user/assign", "general", assign, _PERSON)
    site.post("/link/user/validate", "general", validate, _PERSON)
    site.get("/link/admin/lookup", "read", lambda call: found(call.query["username"]), _USERNAME)
    site.post("/link/admin/assign", "write", assign_any, assignment)
    site.on("DELETE", "/link/admin/clear", "admin", clear, query=_USERNAME)
    site.get(
        "/link/admin/reverse_lookup",
        "read",
        lambda call: {"usernames": links.usernames_of(call.query["person_id"])},
        _PERSON,
    )


def _said(success: bool, details: str, **more: Any) -> dict[str, Any]:
    return {"status": status(success, details)} | more


def _user_groups(site: Api, groups: Groups) -> None:
    def describe(call: Call) -> dict[str, Any]:
        group = groups.get(call.query["id"])
        return _said(group is not None, "Found." if group else "There is no such group.", group=group)

    def members(call: Call, *, members_only: bool) -> dict[str, Any]:
        group = groups.get(call.query["id"])
        if group is None:
            return _said(False, "There is no such group.", group=None)
        if members_only and group["id"] not in groups.of_user(call.user.username):
            raise denied(f"You are no member of the group {group['id']}.")
        return _said(True, "Found.", group=group | {"users": groups.members(group["id"])})

    def membership(username: str) -> dict[str, Any]:
        ids = groups.of_user(username)
        return _said(True, "Found.", groups=[group for group in groups.every() if group["id"] in ids])

    def check(username: str, group: str) -> dict[str, Any]:
        if groups.get(group) is None:
            return _said(False, "There is no such group.", is_member=None)
        return _said(True, "Found.", is_member=group in groups.of_user(username))

    one = Object({"group_id": needed(TEXT)})
    any_one = Object({"group_id": needed(TEXT), "username": needed(TEXT)})
    audiences: tuple[tuple[str, Level], ...] = (("user", "general"), ("admin", "read"))
    for audience, level in audiences:
        prefix = f"/groups/{audience}"
        site.on("GET", f"{prefix}/list_groups", level, lambda call: _said(True, "Found.", groups=groups.every()))
        site.on("GET", f"{prefix}/describe_group", level, describe, query=_ID)
    site.get("/groups/user/list_members", "general", lambda call: members(call, members_only=True), _ID)
    site.get("/groups/admin/list_members", "read", lambda call: members(call, members_only=False), _ID)
    site.get("/groups/user/list_user_membership", "general", lambda call: membership(call.user.username))
    site.get("/groups/admin/list_user_membership", "read", lambda call: membership(call.query["username"]), _USERNAME)
    site.get(
        "/groups/user/check_membership", "general", lambda call: check(call.user.username, call.query["group_id"]), one
    )
    site.get(
        "/groups/admin/check_membership",
        "read",
        lambda call: check(call.query["username"], call.query["group_id"]),
        any_one,
    )


def _group_administration(site: Api, groups: Groups) -> None:
    def add_member(call: Call) -> dict[str, Any]:
        if groups.get(call.query["group_id"]) is None:
            return _said(False, "There is no such group.")
        groups.add_member(call.query["group_id"], call.body)
        return _said(True, "The user is a member.")

    def remove_member(call: Call) -> dict[str, Any]:
        removed = groups.remove_member(call.query["group_id"], call.query["username"])
        return _said(removed, "The user was removed." if removed else "There is no such member.")

    def remove_members(call: Call) -> dict[str, Any]:
        for username in call.body["member_usernames"]:
            groups.remove_member(call.body["group_id"], username)
        return _said(True, "The users were removed.")

    def put(*, new: bool) -> Any:
        def handler(call: Call) -> dict[str, Any]:
            if (groups.get(call.body["id"]) is None) != new:
                return _said(False, "There is such a group already." if new else "There is no such group.")
            groups.put(call.body)
            return _said(True, "The group was kept.")

        return handler

    def remove(call: Call) -> dict[str, Any]:
        if groups.get(call.query["id"]) is None:
            return _said(False, "There is no such group.")
        groups.remove(call.query["id"])
        return _said(True, "The group was removed.")

    def export(call: Call) -> dict[str, Any]:
        items = [group | {"users": groups.members(group["id"])} for group in groups.every()]
        return _said(True, "Exported.", items=items)

    def take(call: Call) -> dict[str, Any]:
        for item in call.body["items"]:
            users = item.pop("users", [])
            groups.put(item)
            for user in users:
                groups.add_member(item["id"], user)
        return _said(True, f"Imported {len(call.body['items'])} groups.")

    one = Object({"group_id": needed(TEXT)})
    one_member = Object({"username": needed(TEXT), "group_id": needed(TEXT)})
    several = Object({"group_id": needed(TEXT), "member_usernames": needed(Many(TEXT))})
    prefix = "/groups/admin"
    site.post(f"{prefix}/add_member", "write", add_member, _MEMBER, query=one)
    site.on("DELETE", f"{prefix}/remove_member", "write", remove_member, query=one_member)
    site.post(f"{prefix}/remove_members", "write", remove_members, several)
    site.post(f"{prefix}/add_group", "write", put(new=True), _GROUP)
    site.on("PUT", f"{prefix}/update_group", "write", put(new=False), body=_GROUP)
    site.on("DELETE", f"{prefix}/remove_group", "admin", remove, query=_ID)
    site.get(f"{prefix}/export", "read", export)
    site.post(f"{prefix}/import", "admin", take, Object({"items": needed(Many(DICT))}))


def _access(site: Api) -> None:
    store = site.desk.store

    def report(call: Call) -> dict[str, Any]:
        return _said(True, "Generated.", report=access_report(call.user))

    def request(call: Call) -> dict[str, Any]:
        asked = {
            "components": call.body["components"],
            "created_timestamp": int(clock.seconds()),
            "request_status": "PENDING",
        }
        store.run("INSERT INTO access_requests (username, body) VALUES (?, ?)", call.user.username, dumps(asked))
        return _said(True, "The request was kept for an administrator.")

    def history(where: str, *values: str) -> dict[str, Any]:
        rows = store.rows(f"SELECT * FROM access_requests {where} ORDER BY id DESC", *values)  # noqa: S608
        items = [json.loads(row["body"]) | {"request_id": row["id"], "username": row["username"]} for row in rows]
        return _said(True, "Listed.", items=items)

    def remove(call: Call) -> dict[str, Any]:
        store.run(
            "DELETE FROM access_requests WHERE username=? AND id=?", call.query["username"], call.query["request_id"]
        )
        return _said(True, "The request was removed.")

    user, admin = "/access-control/user", "/access-control/admin"
    site.get(f"{user}/generate-access-report", "general", report)
    site.post(
        f"{user}/request-change", "general", request, ACCESS_REPORT, query=Object({"send_email": given(FLAG, True)})
    )
    for name in ("request-history", "pending-request-history"):
        site.get(f"{user}/{name}", "general", lambda call: history("WHERE username=?", call.user.username))
    site.get(f"{admin}/all-request-history", "read", lambda call: history(""))
    site.get(f"{admin}/all-pending-request-history", "read", lambda call: history(""))
    one = Object({"username": needed(TEXT), "request_id": needed(WHOLE)})
    site.on("DELETE", f"{admin}/delete-request", "admin", remove, query=one)
