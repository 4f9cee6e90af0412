"""The auth-api over HTTP."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ivcap_flows.local.provena.auth.report import ACCESS_REPORT, access_report
from ivcap_flows.local.provena.auth.requests import STATES, AccessRequests
from ivcap_flows.local.provena.auth.state import GROUP, IMPORT_MODES, MEMBER, Groups, Links, read_groups
from ivcap_flows.local.provena.operation import Call, Level
from ivcap_flows.local.provena.registry.state import Registry, UnsuccessfulError
from ivcap_flows.local.provena.shape import DICT, FLAG, ID, TEXT, WHOLE, Choice, Many, Object, given, maybe, needed
from ivcap_flows.local.provena.web import Api, Desk, Refusal, denied, invalid, status

__all__ = ["api"]

_ID = Object({"id": needed(ID)})
_PERSON = Object({"person_id": needed(ID)})
_USERNAME = Object({"username": needed(TEXT)})
_IMPORT = {
    "import_mode": needed(Choice(*IMPORT_MODES)),
    "parse_items": given(FLAG, True),
    "allow_entry_deletion": given(FLAG, False),
    "trial_mode": given(FLAG, True),
}


def api(desk: Desk, registry: Registry) -> Api:
    """Return the auth-api. Its admin routes need only the one role of their level."""
    site = Api(desk, "auth-api", "sys-admin", single_role=True)
    flat = ("success", "details")
    site.get("/check-access/public", "public", lambda call: status(True, "Anybody may read this."), gives=flat)
    site.whoami("/check-access/general", "general")
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
        """Return why the caller cannot be linked to the person in the body, or None."""
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
            "person_id": needed(ID),
            "validate_item": given(FLAG, True),
            "force": given(FLAG, False),
        }
    )
    lookup = ("person_id", "success")
    site.get(
        "/link/user/lookup",
        "general",
        lambda call: found(call.query["username"] or call.user.username),
        anyone,
        gives=lookup,
    )
    unknown = "The person is not in the registry."
    site.post("/link/user/assign", "general", assign, _PERSON, gives=(), fails=unknown)
    site.post("/link/user/validate", "general", validate, _PERSON)
    site.get("/link/admin/lookup", "read", lambda call: found(call.query["username"]), _USERNAME, gives=lookup)
    site.post("/link/admin/assign", "write", assign_any, assignment, gives=())
    site.on("DELETE", "/link/admin/clear", "admin", clear, query=_USERNAME, gives=())
    site.get(
        "/link/admin/reverse_lookup",
        "read",
        lambda call: {"usernames": links.usernames_of(call.query["person_id"])},
        _PERSON,
        gives=("usernames",),
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

    one = Object({"group_id": needed(ID)})
    any_one = Object({"group_id": needed(ID), "username": needed(TEXT)})
    several, one_group, member = ("status", "groups"), ("status", "group"), ("status", "is_member")
    audiences: tuple[tuple[str, Level], ...] = (("user", "general"), ("admin", "read"))
    for audience, level in audiences:
        prefix = f"/groups/{audience}"
        site.on(
            "GET",
            f"{prefix}/list_groups",
            level,
            lambda call: _said(True, "Found.", groups=groups.every()),
            gives=several,
        )
        site.on("GET", f"{prefix}/describe_group", level, describe, query=_ID, gives=one_group)
    site.get(
        "/groups/user/list_members", "general", lambda call: members(call, members_only=True), _ID, gives=one_group
    )
    site.get("/groups/admin/list_members", "read", lambda call: members(call, members_only=False), _ID, gives=one_group)
    site.get("/groups/user/list_user_membership", "general", lambda call: membership(call.user.username), gives=several)
    site.get(
        "/groups/admin/list_user_membership",
        "read",
        lambda call: membership(call.query["username"]),
        _USERNAME,
        gives=several,
    )
    site.get(
        "/groups/user/check_membership",
        "general",
        lambda call: check(call.user.username, call.query["group_id"]),
        one,
        gives=member,
    )
    site.get(
        "/groups/admin/check_membership",
        "read",
        lambda call: check(call.query["username"], call.query["group_id"]),
        any_one,
        gives=member,
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
        said = call.body
        try:
            wanted = read_groups(said["items"])
            statistics = groups.merge(
                wanted, said["import_mode"], deletes=said["allow_entry_deletion"], trial=said["trial_mode"]
            )
        except ValueError as error:
            failed = [(str(error), item) for item in said["items"]]
            return _said(False, str(error), trial_mode=said["trial_mode"], statistics=None, failure_list=failed)
        return _said(True, "Imported.", trial_mode=said["trial_mode"], statistics=statistics, failure_list=[])

    def restore(call: Call) -> dict[str, Any]:
        raise Refusal(500, f"The table {call.query['table_name']} could not be read.")

    one = Object({"group_id": needed(ID)})
    one_member = Object({"username": needed(TEXT), "group_id": needed(ID)})
    several = Object({"group_id": needed(ID), "member_usernames": needed(Many(TEXT))})
    prefix = "/groups/admin"
    site.post(f"{prefix}/add_member", "write", add_member, MEMBER, query=one)
    site.on("DELETE", f"{prefix}/remove_member", "write", remove_member, query=one_member)
    site.post(f"{prefix}/remove_members", "write", remove_members, several)
    site.post(f"{prefix}/add_group", "write", put(new=True), GROUP)
    site.on("PUT", f"{prefix}/update_group", "write", put(new=False), body=GROUP)
    site.on("DELETE", f"{prefix}/remove_group", "admin", remove, query=_ID)
    site.get(f"{prefix}/export", "read", export, gives=("status", "items"))
    gives = ("status", "trial_mode", "statistics")
    site.post(f"{prefix}/import", "admin", take, Object(_IMPORT | {"items": needed(Many(DICT))}), gives=gives)
    site.post(
        f"{prefix}/restore_from_table",
        "admin",
        restore,
        Object(_IMPORT),
        query=Object({"table_name": needed(TEXT)}),
        gives=gives,
        fails="The table cannot be read.",
        missing="There are no tables to restore from.",
    )


def _access(site: Api) -> None:
    requests = AccessRequests(site.desk.store)

    def report(call: Call) -> dict[str, Any]:
        return _said(True, "Generated.", report=access_report(call.user))

    def listed(username: str | None, *, pending: bool) -> dict[str, Any]:
        return {"items": requests.every(username, pending=pending)}

    def done(work: Callable[[Call], None], details: str) -> Callable[[Call], dict[str, Any]]:
        def handler(call: Call) -> dict[str, Any]:
            try:
                work(call)
            except UnsuccessfulError as error:
                return _said(False, str(error))
            return _said(True, details)

        return handler

    def change_state(call: Call) -> dict[str, Any]:
        said = call.body

        def move(call: Call) -> None:
            requests.move(said["username"], said["request_id"], said["desired_state"])
            if said["additional_note"]:
                requests.note(said["username"], said["request_id"], said["additional_note"])

        moved = done(move, "The state was changed.")(call)["status"]
        return {"state_change": moved, "email_alert": status(True, "There is nobody to write to.")}

    user, admin = "/access-control/user", "/access-control/admin"
    report_gives, list_gives = ("status", "report"), ("items",)
    site.get(f"{user}/generate-access-report", "general", report, gives=report_gives)
    no_mail = "No email is sent."
    site.post(
        f"{user}/request-change",
        "general",
        done(lambda call: requests.add(call.user, call.body), "The request was kept for an administrator."),
        ACCESS_REPORT,
        query=Object({"send_email": given(FLAG, True)}),
        missing=no_mail,
    )
    username = Object({"username": needed(TEXT)})
    for prefix, pending in (("", False), ("pending-", True)):
        whose = functools.partial(listed, pending=pending)
        own, each = (lambda call, whose=whose: whose(call.user.username)), (lambda call, whose=whose: whose(None))
        one = lambda call, whose=whose: whose(call.query["username"])  # noqa: E731
        site.get(f"{user}/{prefix}request-history", "general", own, gives=list_gives)
        site.get(f"{admin}/all-{prefix}request-history", "read", each, gives=list_gives)
        site.get(f"{admin}/user-{prefix}request-history", "read", one, username, gives=list_gives)
    about = {"username": needed(TEXT), "request_id": needed(WHOLE)}
    site.post(
        f"{admin}/add-note",
        "write",
        done(lambda call: requests.note(*_request(call), call.body["note"]), "The note was added."),
        Object(about | {"note": needed(TEXT)}),
    )
    site.post(
        f"{admin}/change-request-state",
        "write",
        change_state,
        Object(about | {"desired_state": needed(Choice(*STATES)), "additional_note": maybe(TEXT)}),
        query=Object({"send_email_alert": given(FLAG, True)}),
        gives=("state_change", "email_alert"),
        missing=no_mail,
    )
    site.post(
        f"{admin}/delete-request",
        "admin",
        done(lambda call: requests.remove(*_request(call)), "The request was removed."),
        Object(about),
    )


def _request(call: Call) -> tuple[str, int]:
    return call.body["username"], call.body["request_id"]
