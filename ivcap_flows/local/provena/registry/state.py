"""Registry items and the operations on them. Call it inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException

from ivcap_flows.local import clock
from ivcap_flows.local.provena.auth.state import Groups, Links
from ivcap_flows.local.provena.jobs.state import Jobs
from ivcap_flows.local.provena.registry.kinds import KINDS, Kind
from ivcap_flows.local.provena.store import Store, dumps, number_of
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import denied, invalid

__all__ = ["Entry", "Registry", "UnsuccessfulError"]

_ADMIN = "entity-registry-admin"
_READS = {"metadata-read", "metadata-write", "admin"}
_UNSEARCHED = "prov_serialisation"
_ENVELOPE = (
    *("id", "owner_username", "created_timestamp", "updated_timestamp", "item_category", "item_subtype"),
    *("record_type", "workflow_links", "versioning_info", "history"),
)


class UnsuccessfulError(Exception):
    """The failure of a 200 reply with `status.success` false."""


@dataclass
class Entry:
    """An item with its access settings and lock."""

    item: dict[str, Any]
    access: dict[str, Any]
    locked: bool
    lock_history: list[dict[str, Any]]
    visible_from: float
    """Seconds since 1970. Until then, reads and lists do not show it; a fault can set this later than its creation."""

    @property
    def id(self) -> str:
        return str(self.item["id"])

    @property
    def kind(self) -> Kind:
        return KINDS[self.item["item_subtype"]]

    @property
    def is_seed(self) -> bool:
        return bool(self.item["record_type"] == "SEED_ITEM")

    @property
    def info(self) -> dict[str, Any]:
        """The content alone, without the envelope."""
        return {key: value for key, value in self.item.items() if key not in _ENVELOPE}


class Registry:
    """All items."""

    def __init__(self, store: Store, links: Links, groups: Groups, jobs: Jobs) -> None:
        self.store, self.links, self.groups, self.jobs = store, links, groups, jobs

    # reading

    def get(self, id: str) -> Entry | None:  # noqa: A002 - the wire's own word
        """Return the entry of an id, or None."""
        row = self.store.row("SELECT * FROM items WHERE id=? AND visible_from <= ?", id, clock.seconds())
        return entry_of(row) if row else None

    def known(self, id: str) -> Entry:  # noqa: A002
        """Return the entry of an id. Raises a 400 refusal if there is none."""
        entry = self.get(id)
        if entry is None:
            raise invalid(f"There is no item with the id {id}.")
        return entry

    def find(self, subtype: str, id: str) -> dict[str, Any] | None:  # noqa: A002
        """Return a complete item of that subtype, or None."""
        entry = self.get(id)
        return entry.item if entry and entry.kind.subtype == subtype and not entry.is_seed else None

    def roles(self, user: User, entry: Entry) -> list[str]:
        """Return the roles that a user has on an item."""
        if user.username == entry.access["owner"] or _ADMIN in user.roles:
            return list(entry.kind.roles)
        granted = set(entry.access["general"])
        for group in self.groups.of_user(user.username):
            granted.update(entry.access["groups"].get(group, ()))
        return [role for role in entry.kind.roles if role in granted]

    def readable(self, user: User, entry: Entry) -> bool:
        """Return whether a user may see the item."""
        return not _READS.isdisjoint(self.roles(user, entry))

    def fetch(self, user: User, kind: Kind, id: str, *, seed_allowed: bool = False) -> Entry:  # noqa: A002
        """Return the item, if the user may see it. Raises UnsuccessfulError, or a refusal."""
        entry = self.get(id)
        if entry is None:
            raise UnsuccessfulError(f"There is no item with the id {id}.")
        if not self.readable(user, entry):
            raise denied(f"You may not read the item {id}.")
        if entry.is_seed and not seed_allowed:
            raise UnsuccessfulError(f"The item {id} is a seed, and seeds were not allowed.")
        if entry.kind is not kind:
            if entry.is_seed:
                raise invalid(f"The seed {id} is a {entry.kind.subtype}, not a {kind.subtype}.")
            raise UnsuccessfulError(f"The item {id} is a {entry.kind.subtype}, not a {kind.subtype}.")
        return entry

    def person_of(self, user: User) -> str:
        """Return the person linked to a user. Raises a 400 refusal if there is none."""
        person = self.links.person_of(user.username)
        if person is None:
            raise invalid("Your username is not linked to a registered person. Link one with the auth API first.")
        return person

    # writing

    def create(self, user: User, kind: Kind, info: dict[str, Any]) -> tuple[Entry, str | None]:
        """Create a complete item; return it, and the session of its create activity if the kind has one."""
        if user.email is None:
            raise invalid("Your token has no email address.")
        self._may_write(user, kind)
        self._sound(kind, info)
        entry = self.add(user.username, kind, info)
        return entry, self.record_creation(user, entry)

    def seed(self, user: User, kind: Kind) -> Entry:
        """Create an item without content."""
        self._may_write(user, kind)
        return self.add(user.username, kind, None)

    def update(
        self,
        user: User,
        kind: Kind,
        id: str,  # noqa: A002
        info: dict[str, Any],
        reason: str | None,
    ) -> str | None:
        """Replace the content of an item, or give a seed its first.

        Return the session of a create activity, if one starts.
        """
        self._may_write(user, kind)
        self._sound(kind, info)
        entry = self.unlocked(id)
        self._of_kind(entry, kind)
        self._needs_writer(user, entry)
        if not entry.is_seed and not reason:
            raise invalid("A reason is needed to update a complete item.")
        was_seed = entry.is_seed
        self.revise(entry, info, reason or "Initial record creation", user.username)
        return self.record_creation(user, entry) if was_seed else None

    def revert(self, user: User, kind: Kind, id: str, history_id: int, reason: str) -> Entry:  # noqa: A002
        """Restore an earlier content."""
        self._may_write(user, kind)
        entry = self.unlocked(id)
        self._needs_writer(user, entry)
        self._of_kind(entry, kind)
        if entry.is_seed:
            raise invalid(f"The item {id} is a seed, and has no history.")
        old = next((part["item"] for part in entry.item["history"] if part["id"] == history_id), None)
        if old is None:
            raise invalid(f"The item {id} has no history entry {history_id}.")
        self.revise(entry, old, f"(Reverted to version {history_id}): {reason}", user.username)
        return entry

    def version(
        self,
        user: User,
        kind: Kind,
        id: str,  # noqa: A002
        reason: str,
        new_info: dict[str, Any] | None = None,
    ) -> tuple[Entry, str]:
        """Create a new version of an item, by default with the same content.

        Return it, and the session of its version activity.
        """
        person = self.person_of(user)
        old = self.known(id)
        if old.is_seed:
            raise invalid(f"The item {id} is a seed, and cannot have versions.")
        if old.kind is not kind:
            raise HTTPException(500, f"The item {id} could not be read as a {kind.subtype}.")
        if "admin" not in self.roles(user, old):
            raise denied(f"You are no administrator of the item {id}.")
        following = old.item["versioning_info"]["next_version"]
        if following is not None:
            raise invalid(f"The item {id} is not the latest version; the next one is {following}.")
        number = old.item["versioning_info"]["version"] + 1
        new = self.add(user.username, kind, new_info or old.info)
        new.item["versioning_info"] |= {"previous_version": id, "version": number, "reason": reason}
        new.access |= {"general": old.access["general"], "groups": old.access["groups"]}
        old.item["versioning_info"]["next_version"] = new.id
        session = self.jobs.dispatch(
            user.username,
            "REGISTER_VERSION_ACTIVITY",
            {
                "reason": reason,
                "version_number": number,
                "from_version_id": id,
                "to_version_id": new.id,
                "linked_person_id": person,
                "item_subtype": kind.subtype,
            },
        )
        new.item["workflow_links"]["version_activity_workflow_id"] = session
        self.save(old)
        self.save(new)
        return new, session

    def delete(self, id: str) -> None:  # noqa: A002
        """Remove an item that is not locked."""
        self.unlocked(id)
        self.store.run("DELETE FROM items WHERE id=?", id)
        self.store.run("DELETE FROM item_words WHERE rowid=?", number_of(id))

    def unlocked(self, id: str) -> Entry:  # noqa: A002
        """Return the entry of an id. Raises a refusal if there is none (400) or if it is locked (401)."""
        entry = self.known(id)
        if entry.locked:
            raise denied(f"The item {id} is locked.")
        return entry

    # without access checks

    def add(self, username: str, kind: Kind, info: dict[str, Any] | None) -> Entry:
        """Add an item: complete with `info`, otherwise a seed."""
        now = int(clock.seconds())
        unversioned = {"previous_version": None, "version": 1, "reason": None, "next_version": None}
        links = {"create_activity_workflow_id": None, "version_activity_workflow_id": None}
        item: dict[str, Any] = {
            "id": self.store.new_handle(),
            "owner_username": username,
            "created_timestamp": now,
            "updated_timestamp": now,
            "item_category": kind.category,
            "item_subtype": kind.subtype,
            "record_type": "SEED_ITEM",
            "workflow_links": links if kind.versioned else None,
            "versioning_info": unversioned if kind.versioned else None,
        }
        access = {"owner": username, "general": kind.general, "groups": {}}
        entry = Entry(item, access, False, [], clock.visible_from() / 1000)
        if info is None:
            self.save(entry)
        else:
            self.revise(entry, info, "Initial record creation", username)
        return entry

    def revise(self, entry: Entry, info: dict[str, Any], reason: str, username: str) -> None:
        """Give an item new content, and its history one more entry."""
        now = int(clock.seconds())
        history = entry.item.get("history", [])
        event = {"id": len(history), "timestamp": now, "reason": reason, "username": username, "item": info}
        entry.item |= info | {"record_type": "COMPLETE_ITEM", "updated_timestamp": now, "history": [event, *history]}
        self.save(entry)

    def save(self, entry: Entry) -> None:
        """Store the current state of an entry."""
        item = entry.item
        self.store.run(
            "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(item["id"], item["item_subtype"], item["record_type"]),
            *(item["created_timestamp"], item["updated_timestamp"], item.get("display_name")),
            *(item.get("access_info_uri"), item.get("release_approver"), item.get("release_status")),
            item.get("release_timestamp"),
            *(dumps(item), dumps(entry.access), entry.locked, dumps(entry.lock_history), entry.visible_from),
        )
        if not entry.is_seed:
            self.store.run(
                "INSERT OR REPLACE INTO item_words (rowid, item_subtype, words) VALUES (?, ?, ?)",
                *(number_of(entry.id), item["item_subtype"], " ".join([entry.id, *_words(entry.info)])),
            )

    def record_creation(self, user: User, entry: Entry) -> str | None:
        """Start the jobs that record the creation of an item in the graph, for kinds that have one."""
        if not entry.kind.versioned:
            return None
        session = self.jobs.dispatch(
            user.username,
            "REGISTER_CREATE_ACTIVITY",
            {
                "created_item_id": entry.id,
                "created_item_subtype": entry.kind.subtype,
                "linked_person_id": self.person_of(user),
            },
        )
        entry.item["workflow_links"]["create_activity_workflow_id"] = session
        self.save(entry)
        return session

    def _may_write(self, user: User, kind: Kind) -> None:
        if kind.by_person:
            self.person_of(user)

    def _needs_writer(self, user: User, entry: Entry) -> None:
        if entry.kind.writers.isdisjoint(self.roles(user, entry)):
            raise denied(f"You may not change the item {entry.id}.")

    def _of_kind(self, entry: Entry, kind: Kind) -> None:
        if entry.kind is kind:
            return
        if not entry.is_seed:
            raise HTTPException(500, f"The item {entry.id} could not be read as a {kind.subtype}.")
        raise UnsuccessfulError(f"The seed {entry.id} is a {entry.kind.subtype}, not a {kind.subtype}.")

    def _sound(self, kind: Kind, info: dict[str, Any]) -> None:
        """Raise an error if an item with this content must not be written."""
        if complaint := kind.broken(info, self.find):
            raise UnsuccessfulError(complaint)
        if info["display_name"] == "":
            # The real server crashes when it writes such an item, since the name is a key of an index.
            raise invalid("The display_name is empty.")


def entry_of(row: sqlite3.Row) -> Entry:
    """Return the entry of a row of the table `items`."""
    item, access, history = (json.loads(row[column]) for column in ("item", "access", "lock_history"))
    return Entry(item, access, bool(row["locked"]), history, row["visible_from"])


def _words(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [word for key, inner in value.items() if key != _UNSEARCHED for word in _words(inner)]
    if isinstance(value, list):
        return [word for inner in value for word in _words(inner)]
    return [value] if isinstance(value, str) else []
