"""The auth-api over HTTP."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import HTTPException, Query
from pydantic import TypeAdapter, ValidationError

from ivcap_flows.local.provena.auth.report import AccessReport, access_report
from ivcap_flows.local.provena.auth.requests import AccessRequests, State
from ivcap_flows.local.provena.auth.state import Group, Groups, GroupWithUsers, ImportMode, Links, Member
from ivcap_flows.local.provena.faults import first_fault
from ivcap_flows.local.provena.model import AnyDict, Id, Model, Whole
from ivcap_flows.local.provena.registry.state import Registry, UnsuccessfulError
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import Api, Desk, denied, fails, invalid, status

__all__ = ["api"]

_GroupId = Annotated[Id, Query(alias="id")]
_NO_MAIL = "No email is sent."
_GROUPS = TypeAdapter(list[GroupWithUsers])


class _Person(Model):
    person_id: Id


class _Assignment(Model):
    username: str
    person_id: Id
    validate_item: bool = True
    force: bool = False


class _Members(Model):
    group_id: Id
    member_usernames: list[str]


class _Restore(Model):
    import_mode: ImportMode
    parse_items: bool = True
    allow_entry_deletion: bool = False
    trial_mode: bool = True


class _Import(_Restore):
    items: list[AnyDict]


class _Request(Model):
    username: str
    request_id: Whole


class _Note(_Request):
    note: str


class _Decision(_Request):
    desired_state: State
    additional_note: str | None = None


def api(desk: Desk, registry: Registry) -> Api:
    """Return the auth-api. Its admin routes need only the one role of their level."""
    site = Api(desk, "auth-api", "sys-admin", single_role=True)

    @site.get("/check-access/public")
    def public() -> Any:
        return status(True, "Anybody may read this.")

    site.whoami("/check-access/general", site.general)
    _links(site, registry.links, registry)
    _user_groups(site, registry.groups)
    _group_administration(site, registry.groups)
    _requests(site, AccessRequests(desk.store))
    _request_administration(site, AccessRequests(desk.store))
    return site


def _links(site: Api, links: Links, registry: Registry) -> None:
    def found(username: str) -> dict[str, Any]:
        person = links.person_of(username)
        return {"person_id": person, "success": person is not None}

    def complaint(user: User, person: str) -> HTTPException | None:
        """Return why the caller cannot be linked to a person, or None."""
        if links.person_of(user.username) is not None:
            return invalid("You are already linked to a person; an administrator can change that.")
        entry = registry.get(person)
        if entry is None or entry.kind.subtype != "PERSON" or entry.is_seed:
            return HTTPException(
                500, f"The registry refused the person {person}: it is not the id of a complete PERSON."
            )
        if entry.item["owner_username"] != user.username:
            return denied(f"You do not own the person {person}.")
        return None

    @site.get("/link/user/lookup")
    def lookup(username: str | None = None, user: User = site.general) -> Any:
        return found(username or user.username)

    @site.post("/link/user/assign", responses=fails("The person is not in the registry."))
    def assign(wanted: _Person, user: User = site.general) -> Any:
        if refusal := complaint(user, wanted.person_id):
            raise refusal
        links.assign(user.username, wanted.person_id)
        return {}

    @site.post("/link/user/validate")
    def validate(wanted: _Person, user: User = site.general) -> Any:
        refusal = complaint(user, wanted.person_id)
        return {"status": status(refusal is None, refusal.detail if refusal else "The person can be linked.")}

    @site.get("/link/admin/lookup")
    def lookup_any(username: str, user: User = site.read) -> Any:
        return found(username)

    @site.post("/link/admin/assign")
    def assign_any(wanted: _Assignment, user: User = site.write) -> Any:
        if links.person_of(wanted.username) is not None and not wanted.force:
            raise invalid(f"{wanted.username} is already linked to a person.")
        if wanted.validate_item and registry.find("PERSON", wanted.person_id) is None:
            raise invalid(f"{wanted.person_id} is not the id of a complete PERSON.")
        links.assign(wanted.username, wanted.person_id)
        return {}

    @site.delete("/link/admin/clear")
    def clear(username: str, user: User = site.admin) -> Any:
        links.clear(username)
        return {}

    @site.get("/link/admin/reverse_lookup")
    def reverse_lookup(person_id: Id, user: User = site.read) -> Any:
        return {"usernames": links.usernames_of(person_id)}


def _said(success: bool, details: str, **more: Any) -> dict[str, Any]:
    return {"status": status(success, details)} | more


def _user_groups(site: Api, groups: Groups) -> None:
    def described(id: str) -> dict[str, Any]:  # noqa: A002 - the wire's own word
        group = groups.get(id)
        return _said(group is not None, "Found." if group else "There is no such group.", group=group)

    def members(id: str, *, seen_by: User | None = None) -> dict[str, Any]:  # noqa: A002
        group = groups.get(id)
        if group is None:
            return _said(False, "There is no such group.", group=None)
        if seen_by is not None and id not in groups.of_user(seen_by.username):
            raise denied(f"You are no member of the group {id}.")
        return _said(True, "Found.", group=group | {"users": groups.members(id)})

    def membership(username: str) -> dict[str, Any]:
        ids = groups.of_user(username)
        return _said(True, "Found.", groups=[group for group in groups.every() if group["id"] in ids])

    def checked(username: str, group: str) -> dict[str, Any]:
        if groups.get(group) is None:
            return _said(False, "There is no such group.", is_member=None)
        return _said(True, "Found.", is_member=group in groups.of_user(username))

    for audience, needs in (("user", site.general), ("admin", site.read)):

        @site.get(f"/groups/{audience}/list_groups")
        def list_groups(user: User = needs) -> Any:
            return _said(True, "Found.", groups=groups.every())

        @site.get(f"/groups/{audience}/describe_group")
        def describe_group(group: _GroupId, user: User = needs) -> Any:
            return described(group)

    @site.get("/groups/user/list_members")
    def list_members(group: _GroupId, user: User = site.general) -> Any:
        return members(group, seen_by=user)

    @site.get("/groups/admin/list_members")
    def list_any_members(group: _GroupId, user: User = site.read) -> Any:
        return members(group)

    @site.get("/groups/user/list_user_membership")
    def list_membership(user: User = site.general) -> Any:
        return membership(user.username)

    @site.get("/groups/admin/list_user_membership")
    def list_any_membership(username: str, user: User = site.read) -> Any:
        return membership(username)

    @site.get("/groups/user/check_membership")
    def check_membership(group_id: Id, user: User = site.general) -> Any:
        return checked(user.username, group_id)

    @site.get("/groups/admin/check_membership")
    def check_any_membership(group_id: Id, username: str, user: User = site.read) -> Any:
        return checked(username, group_id)


def _group_administration(site: Api, groups: Groups) -> None:
    prefix = "/groups/admin"

    @site.post(f"{prefix}/add_member")
    def add_member(group_id: Id, member: Member, user: User = site.write) -> Any:
        if groups.get(group_id) is None:
            return _said(False, "There is no such group.")
        groups.add_member(group_id, member.model_dump())
        return _said(True, "The user is a member.")

    @site.delete(f"{prefix}/remove_member")
    def remove_member(username: str, group_id: Id, user: User = site.write) -> Any:
        removed = groups.remove_member(group_id, username)
        return _said(removed, "The user was removed." if removed else "There is no such member.")

    @site.post(f"{prefix}/remove_members")
    def remove_members(wanted: _Members, user: User = site.write) -> Any:
        for username in wanted.member_usernames:
            groups.remove_member(wanted.group_id, username)
        return _said(True, "The users were removed.")

    @site.post(f"{prefix}/add_group")
    def add_group(group: Group, user: User = site.write) -> Any:
        if groups.get(group.id) is not None:
            return _said(False, "There is such a group already.")
        groups.put(group.model_dump())
        return _said(True, "The group was kept.")

    @site.put(f"{prefix}/update_group")
    def update_group(group: Group, user: User = site.write) -> Any:
        if groups.get(group.id) is None:
            return _said(False, "There is no such group.")
        groups.put(group.model_dump())
        return _said(True, "The group was kept.")

    @site.delete(f"{prefix}/remove_group")
    def remove_group(group: _GroupId, user: User = site.admin) -> Any:
        if groups.get(group) is None:
            return _said(False, "There is no such group.")
        groups.remove(group)
        return _said(True, "The group was removed.")

    @site.get(f"{prefix}/export")
    def export(user: User = site.read) -> Any:
        items = [group | {"users": groups.members(group["id"])} for group in groups.every()]
        return _said(True, "Exported.", items=items)

    @site.post(f"{prefix}/import")
    def import_(wanted: _Import, user: User = site.admin) -> Any:
        try:
            read = [group.model_dump() for group in _GROUPS.validate_python(wanted.items)]
            statistics = groups.merge(
                read, wanted.import_mode, deletes=wanted.allow_entry_deletion, trial=wanted.trial_mode
            )
        except ValidationError as error:
            first = first_fault(error)
            why = f"{['items', *first['loc']]}: {first['msg']}."
        except ValueError as error:
            why = str(error)
        else:
            return _said(True, "Imported.", trial_mode=wanted.trial_mode, statistics=statistics, failure_list=[])
        failed = [(why, item) for item in wanted.items]
        return _said(False, why, trial_mode=wanted.trial_mode, statistics=None, failure_list=failed)

    @site.post(
        f"{prefix}/restore_from_table",
        description="There are no tables to restore from.",
        responses=fails("The table cannot be read."),
    )
    def restore(table_name: str, wanted: _Restore, user: User = site.admin) -> Any:
        raise HTTPException(500, f"The table {table_name} could not be read.")


def _requests(site: Api, requests: AccessRequests) -> None:
    prefix = "/access-control/user"

    @site.get(f"{prefix}/generate-access-report")
    def report(user: User = site.general) -> Any:
        return _said(True, "Generated.", report=access_report(user))

    @site.post(f"{prefix}/request-change", description=_NO_MAIL)
    def request_change(wanted: AccessReport, send_email: bool = True, user: User = site.general) -> Any:
        work = functools.partial(requests.add, user, wanted.model_dump())
        return _done(work, "The request was kept for an administrator.")

    @site.get(f"{prefix}/request-history")
    def history(user: User = site.general) -> Any:
        return {"items": requests.every(user.username)}

    @site.get(f"{prefix}/pending-request-history")
    def pending(user: User = site.general) -> Any:
        return {"items": requests.every(user.username, pending=True)}


def _request_administration(site: Api, requests: AccessRequests) -> None:
    prefix = "/access-control/admin"

    @site.get(f"{prefix}/all-request-history")
    def history_of_all(user: User = site.read) -> Any:
        return {"items": requests.every()}

    @site.get(f"{prefix}/all-pending-request-history")
    def pending_of_all(user: User = site.read) -> Any:
        return {"items": requests.every(pending=True)}

    @site.get(f"{prefix}/user-request-history")
    def history_of_user(username: str, user: User = site.read) -> Any:
        return {"items": requests.every(username)}

    @site.get(f"{prefix}/user-pending-request-history")
    def pending_of_user(username: str, user: User = site.read) -> Any:
        return {"items": requests.every(username, pending=True)}

    @site.post(f"{prefix}/add-note")
    def add_note(wanted: _Note, user: User = site.write) -> Any:
        work = functools.partial(requests.note, wanted.username, wanted.request_id, wanted.note)
        return _done(work, "The note was added.")

    @site.post(f"{prefix}/change-request-state", description=_NO_MAIL)
    def change_state(wanted: _Decision, send_email_alert: bool = True, user: User = site.write) -> Any:
        def move() -> None:
            requests.move(wanted.username, wanted.request_id, wanted.desired_state)
            if wanted.additional_note:
                requests.note(wanted.username, wanted.request_id, wanted.additional_note)

        moved = _done(move, "The state was changed.")["status"]
        return {"state_change": moved, "email_alert": status(True, "There is nobody to write to.")}

    @site.post(f"{prefix}/delete-request")
    def delete_request(wanted: _Request, user: User = site.admin) -> Any:
        work = functools.partial(requests.remove, wanted.username, wanted.request_id)
        return _done(work, "The request was removed.")


def _done(work: Callable[[], None], details: str) -> dict[str, Any]:
    """Do it, and reply 200 without success if it cannot be done."""
    try:
        work()
    except UnsuccessfulError as error:
        return _said(False, str(error))
    return _said(True, details)
