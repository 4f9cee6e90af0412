"""Links from usernames to registered persons, and groups of users."""

from __future__ import annotations

import json
from typing import Any

from ivcap_flows.local.provena.store import Store, dumps

__all__ = ["Groups", "Links"]


class Links:
    """Which person a username stands for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def person_of(self, username: str) -> str | None:
        """The id of the linked person."""
        row = self._store.row("SELECT person_id FROM person_links WHERE username=?", username)
        return row["person_id"] if row else None

    def usernames_of(self, person_id: str) -> list[str]:
        """Every username that is linked to a person."""
        rows = self._store.rows("SELECT username FROM person_links WHERE person_id=? ORDER BY username", person_id)
        return [row["username"] for row in rows]

    def assign(self, username: str, person_id: str) -> None:
        """Link, or relink, a username."""
        self._store.run("INSERT OR REPLACE INTO person_links VALUES (?, ?)", username, person_id)

    def clear(self, username: str) -> None:
        """Unlink a username."""
        self._store.run("DELETE FROM person_links WHERE username=?", username)


class Groups:
    """Groups and their members."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def every(self) -> list[dict[str, Any]]:
        """All groups, by id."""
        return [json.loads(row["body"]) for row in self._store.rows("SELECT body FROM user_groups ORDER BY id")]

    def get(self, id: str) -> dict[str, Any] | None:  # noqa: A002 - the wire's own word
        """One group."""
        row = self._store.row("SELECT body FROM user_groups WHERE id=?", id)
        return json.loads(row["body"]) if row else None

    def put(self, group: dict[str, Any]) -> None:
        """Add a group, or change one."""
        self._store.run("INSERT OR REPLACE INTO user_groups VALUES (?, ?)", group["id"], dumps(group))

    def remove(self, id: str) -> None:  # noqa: A002
        """Remove a group and its members."""
        self._store.run("DELETE FROM group_members WHERE group_id=?", id)
        self._store.run("DELETE FROM user_groups WHERE id=?", id)

    def members(self, id: str) -> list[dict[str, Any]]:  # noqa: A002
        """The members of a group."""
        rows = self._store.rows("SELECT body FROM group_members WHERE group_id=? ORDER BY username", id)
        return [json.loads(row["body"]) for row in rows]

    def of_user(self, username: str) -> set[str]:
        """Ids of the groups that a user is in."""
        return {row["group_id"] for row in self._store.rows("SELECT * FROM group_members WHERE username=?", username)}

    def add_member(self, id: str, member: dict[str, Any]) -> None:  # noqa: A002
        """Add a user to a group."""
        self._store.run("INSERT OR REPLACE INTO group_members VALUES (?, ?, ?)", id, member["username"], dumps(member))

    def remove_member(self, id: str, username: str) -> bool:  # noqa: A002
        """Take a user out of a group; False if it was not in it."""
        return bool(self._store.run("DELETE FROM group_members WHERE group_id=? AND username=?", id, username))
