"""Links from usernames to registered persons, and groups of users."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from ivcap_flows.local.provena.model import Model
from ivcap_flows.local.provena.store import Store, dumps

__all__ = ["Group", "GroupWithUsers", "Groups", "ImportMode", "Links", "Member"]


class Member(Model):
    """A user in a group."""

    username: str
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None


class Group(Model):
    """A group without its members."""

    id: str
    display_name: str
    description: str
    default_data_store_access: list[str] | None = None


class GroupWithUsers(Group):
    """A group with its members, as in an export."""

    users: list[Member] = Field(default_factory=list)


ImportMode = Literal["ADD_ONLY", "ADD_OR_OVERWRITE", "OVERWRITE_ONLY", "SYNC_ADD_OR_OVERWRITE", "SYNC_DELETION_ALLOWED"]
"""Which groups an import may add, overwrite and, with the last mode, delete."""


class Links:
    """The person that each username is linked to."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def person_of(self, username: str) -> str | None:
        """Return the id of the linked person, or None."""
        row = self._store.row("SELECT person_id FROM person_links WHERE username=?", username)
        return row["person_id"] if row else None

    def usernames_of(self, person_id: str) -> list[str]:
        """Return every username that is linked to a person."""
        rows = self._store.rows("SELECT username FROM person_links WHERE person_id=? ORDER BY username", person_id)
        return [row["username"] for row in rows]

    def assign(self, username: str, person_id: str) -> None:
        """Link a username, or change its link."""
        self._store.run("INSERT OR REPLACE INTO person_links VALUES (?, ?)", username, person_id)

    def clear(self, username: str) -> None:
        """Unlink a username."""
        self._store.run("DELETE FROM person_links WHERE username=?", username)


class Groups:
    """Groups and their members."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def every(self) -> list[dict[str, Any]]:
        """Return all groups, by id."""
        return [json.loads(row["body"]) for row in self._store.rows("SELECT body FROM user_groups ORDER BY id")]

    def get(self, id: str) -> dict[str, Any] | None:  # noqa: A002 - the wire's own word
        """Return one group, or None."""
        row = self._store.row("SELECT body FROM user_groups WHERE id=?", id)
        return json.loads(row["body"]) if row else None

    def put(self, group: dict[str, Any]) -> None:
        """Add or change a group."""
        self._store.run("INSERT OR REPLACE INTO user_groups VALUES (?, ?)", group["id"], dumps(group))

    def remove(self, id: str) -> None:  # noqa: A002
        """Remove a group and its members."""
        self._store.run("DELETE FROM group_members WHERE group_id=?", id)
        self._store.run("DELETE FROM user_groups WHERE id=?", id)

    def members(self, id: str) -> list[dict[str, Any]]:  # noqa: A002
        """Return the members of a group."""
        rows = self._store.rows("SELECT body FROM group_members WHERE group_id=? ORDER BY username", id)
        return [json.loads(row["body"]) for row in rows]

    def of_user(self, username: str) -> set[str]:
        """Return the ids of the groups that a user is in."""
        return {row["group_id"] for row in self._store.rows("SELECT * FROM group_members WHERE username=?", username)}

    def default_access(self, username: str, roles: set[str]) -> dict[str, list[str]]:
        """Return the roles, among `roles`, that a user's groups give their members on each other's new datasets."""
        ids = self.of_user(username)
        wanted = {group["id"]: group["default_data_store_access"] or [] for group in self.every() if group["id"] in ids}
        return {id: known for id, said in wanted.items() if (known := [role for role in said if role in roles])}  # noqa: A001

    def add_member(self, id: str, member: dict[str, Any]) -> None:  # noqa: A002
        """Add a user to a group."""
        self._store.run("INSERT OR REPLACE INTO group_members VALUES (?, ?, ?)", id, member["username"], dumps(member))

    def remove_member(self, id: str, username: str) -> bool:  # noqa: A002
        """Remove a user from a group; return False if the user was not in it."""
        return bool(self._store.run("DELETE FROM group_members WHERE group_id=? AND username=?", id, username))

    def merge(self, wanted: list[dict[str, Any]], mode: str, *, deletes: bool, trial: bool) -> dict[str, int]:
        """Import groups with their `users`; return what changed, or on a trial would change.

        A mode that deletes also needs `deletes`. Raises ValueError for a change that is not allowed.
        """
        old = {group["id"] for group in self.every()}
        new = {group["id"] for group in wanted}
        if mode == "ADD_ONLY" and old & new:
            raise ValueError(f"There are such groups already: {', '.join(sorted(old & new))}.")
        if mode == "OVERWRITE_ONLY" and new - old:
            raise ValueError(f"There are no such groups: {', '.join(sorted(new - old))}.")
        left_over = old - new if mode.startswith("SYNC") else set()
        if left_over and not (mode == "SYNC_DELETION_ALLOWED" and deletes):
            raise ValueError(f"The import lacks groups, and may not delete them: {', '.join(sorted(left_over))}.")
        if not trial:
            for id in left_over | (old & new):  # noqa: A001 - the wire's own word
                self.remove(id)
            for group in wanted:
                self.put({name: value for name, value in group.items() if name != "users"})
                for member in group["users"]:
                    self.add_member(group["id"], member)
        return {
            "old_size": len(old),
            "new_size": len((old | new) - left_over),
            "deleted_entries": len(left_over),
            "overwritten_entries": len(old & new),
            "new_entries": len(new - old),
        }
