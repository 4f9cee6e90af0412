"""Projects in the store: their creator owns them, members see them, owners change them."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from ivcap_flows.local import clock, ids
from ivcap_flows.local.database import Store
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.tokens import Principal

__all__ = ["MEMBERSHIPS", "Projects"]

MEMBERSHIPS: Final = "(SELECT p.*, m.user, m.role FROM projects p JOIN members m ON m.project = p.id)"
"""One row for each project and member."""
_OWNER: Final = "owner"


class Projects:
    def __init__(self, store: Store) -> None:
        self._store = store

    def create(
        self,
        who: Principal,
        urn: str | None,
        *,
        name: str,
        account: str | None,
        parent: str | None,
        details: str | None,
    ) -> sqlite3.Row:
        """Create a project with the caller as its owner. Raises Problem 409 if the id is taken, 403, 404."""
        urn, made = urn or ids.new_urn("project"), clock.now()
        with self._store.transaction():
            if self._store.one("SELECT 1 FROM projects WHERE id = ?", (urn,)) is not None:
                raise errors.already_created("project", urn)
            if parent is not None:
                self.read(who, parent)
            self._store.insert(
                "projects",
                id=urn,
                account=_billable(who, account or who.account),
                name=name,
                parent=parent,
                details=details,
                status="active",
                created_at=made,
                modified_at=made,
                visible_from=clock.visible_from(),
            )
            self._store.insert("members", project=urn, user=who.subject, role=_OWNER)
            return self._membership(who, urn)

    def change(self, who: Principal, urn: str, **values: Any) -> sqlite3.Row:
        """Change columns of a project. Raises Problem 403, 404."""
        with self._store.transaction():
            self.own(who, urn)
            if values.get("parent") is not None:
                self.read(who, values["parent"])
            if "account" in values:
                _billable(who, values["account"])
            self._store.update("projects", urn, **values, modified_at=clock.now())
            return self._membership(who, urn)

    def read(self, who: Principal, urn: str) -> sqlite3.Row:
        """Return the project with the caller's `role` in it. Raises Problem 404 if the caller is not a member."""
        row = self._find(who, urn)
        if row is None or row["visible_from"] > clock.now():
            raise errors.not_found("project", urn)
        return row

    def own(self, who: Principal, urn: str) -> sqlite3.Row:
        """Return the project, for its owners only. Raises Problem 403, 404."""
        row = self.read(who, urn)
        if row["role"].lower() != _OWNER:
            raise errors.forbidden("Only owners may change a project.")
        return row

    def default(self, who: Principal) -> sqlite3.Row:
        """Return the caller's default project. Raises Problem 404 if there is none."""
        row = self._store.one("SELECT project FROM default_projects WHERE user = ?", (who.subject,))
        if row is None:
            raise errors.not_found("default project", who.subject)
        return self.read(who, row["project"])

    def set_default(self, who: Principal, urn: str) -> None:
        with self._store.transaction():
            self.read(who, urn)
            self._store.execute("INSERT OR REPLACE INTO default_projects VALUES (?, ?)", (who.subject, urn))

    def set_member(self, who: Principal, urn: str, user: str, role: str) -> None:
        with self._store.transaction():
            self.own(who, urn)
            self._store.execute(
                "INSERT INTO members (project, user, role) VALUES (?, ?, ?)"
                " ON CONFLICT (project, user) DO UPDATE SET role = excluded.role",
                (urn, user, role),
            )

    def remove_member(self, who: Principal, urn: str, user: str) -> None:
        """Remove a member. Raises Problem 404 if the user is not a member."""
        with self._store.transaction():
            self.own(who, urn)
            if not self._store.execute("DELETE FROM members WHERE project = ? AND user = ?", (urn, user)).rowcount:
                raise errors.not_found("member", user)

    def _find(self, who: Principal, urn: str) -> sqlite3.Row | None:
        return self._store.one(f"SELECT * FROM {MEMBERSHIPS} WHERE id = ? AND user = ?", (urn, who.subject))  # noqa: S608

    def _membership(self, who: Principal, urn: str) -> sqlite3.Row:
        row = self._find(who, urn)
        assert row is not None
        return row


def _billable(who: Principal, account: str) -> str:
    """Return the account. Raises Problem 403 if it is not the caller's."""
    if account != who.account:
        raise errors.forbidden("You can set only your own account as the one to bill.")
    return account
