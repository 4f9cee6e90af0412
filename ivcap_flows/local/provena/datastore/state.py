"""Datasets: minted, changed, versioned, opened and released."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta, timezone
from typing import Any

from fastapi import HTTPException

from ivcap_flows.local import clock
from ivcap_flows.local.provena.bucket import NAME, Bucket
from ivcap_flows.local.provena.files import Files
from ivcap_flows.local.provena.registry.kinds import KINDS
from ivcap_flows.local.provena.registry.state import Entry, Registry, UnsuccessfulError
from ivcap_flows.local.provena.store import Store, dumps
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import CrashError, denied, invalid

__all__ = ["Datasets"]

_DATASET = KINDS["DATASET"]
_SESSION = timedelta(hours=8)
_UNRELEASED: dict[str, Any] = {
    "release_history": [],
    "release_status": "NOT_RELEASED",
    "release_approver": None,
    "release_timestamp": None,
}


class Datasets:
    """The data-store-api's work on DATASET items and their files."""

    def __init__(self, registry: Registry, store: Store, files: Files | Bucket) -> None:
        self.registry, self._store, self._files = registry, store, files

    def mint(self, user: User, collection: dict[str, Any]) -> tuple[Entry, str | None]:
        """Mint a dataset. Raises UnsuccessfulError for a broken rule, and a 500 refusal for a user without a person."""
        if user.email is None:
            raise CrashError
        try:
            self.registry.person_of(user)
        except HTTPException as refusal:
            detail = (
                f"The registry refused the seed of the dataset. It answered {refusal.status_code}: {refusal.detail}"
            )
            raise HTTPException(500, detail) from refusal
        self.check(collection)
        entry = self.registry.add(user.username, _DATASET, None)
        entry.access["groups"] = self.registry.groups.default_access(user.username, set(_DATASET.roles))
        info = self._info(collection, {"s3": _place(entry.id)} | _UNRELEASED)
        self.registry.revise(entry, info, "Initial record creation", user.username)
        self._write_metadata(entry)
        return entry, self.registry.record_creation(user, entry)

    def check(self, collection: dict[str, Any]) -> None:
        """Raise UnsuccessfulError for the first rule that a CollectionFormat breaks."""
        if complaint := _DATASET.broken({"collection_format": collection}, self.registry.find):
            raise UnsuccessfulError(complaint)

    def update(self, user: User, id: str, collection: dict[str, Any], reason: str) -> Entry:  # noqa: A002
        """Replace the metadata of a dataset."""
        now = self._changeable(user, id)
        info = self._info(collection, now.info)
        try:
            self.registry.update(user, _DATASET, id, info, reason)
        except UnsuccessfulError as error:
            raise invalid(str(error)) from error
        entry = self.registry.known(id)
        self._write_metadata(entry)
        return entry

    def revert(self, user: User, id: str, history_id: int, reason: str) -> None:  # noqa: A002
        """Restore earlier metadata. Raises a 400 refusal for an item that is not a dataset."""
        entry = self._changeable(user, id)
        if entry.kind is not _DATASET:
            raise invalid(f"The item {id} is a {entry.kind.subtype}, not a {_DATASET.subtype}.")
        now = entry.info
        entry = self.registry.revert(user, _DATASET, id, history_id, reason)
        # only the metadata is restored: the location of the files and the release status stay
        entry.item |= {name: now[name] for name in ("s3", *_UNRELEASED)}
        self.registry.save(entry)
        self._write_metadata(entry)

    def version(self, user: User, id: str, reason: str) -> tuple[Entry, str]:  # noqa: A002
        """Create a new version with its own place for files; it has no files and is not released."""
        old = self.registry.known(id)
        fresh = old.info | _UNRELEASED | {"user_metadata": None}
        entry, session = self.registry.version(user, _DATASET, id, reason, fresh)
        entry.item["s3"] = _place(entry.id)
        entry.item["history"][0]["item"] = entry.info
        self.registry.save(entry)
        self._write_metadata(entry)
        return entry, session

    def fetch(self, user: User, id: str) -> Entry:  # noqa: A002
        """Return a complete dataset that the user may see; unknown ids and seeds are 400 refusals."""
        try:
            return self.registry.fetch(user, _DATASET, id)
        except UnsuccessfulError as error:
            raise invalid(str(error)) from error

    def file_url(self, user: User, id: str, path: str, seconds: int) -> str:  # noqa: A002
        """Return a URL with which a file of a dataset can be read for this many seconds."""
        entry = self.fetch(user, id)
        self._needs(user, entry, {"dataset-data-read", "admin"})
        if ".." in path or "//" in path or "\\" in path:
            raise invalid(f"The file path {path!r} is not allowed.")
        key = f"{entry.item['s3']['path']}{path}"
        if not self._files.has(key):
            raise invalid(f"The file {path!r} does not exist.")
        return self._files.url(key, seconds)

    def credentials(self, user: User, id: str, *, write: bool) -> dict[str, str]:  # noqa: A002
        """Return temporary credentials in AWS's form; without an S3 server, nothing accepts them."""
        entry = self.fetch(user, id)
        self._needs(user, entry, {"dataset-data-write", "admin"} | (set() if write else {"dataset-data-read"}))
        if write:
            self.registry.unlocked(id)
            if entry.item["release_status"] != "NOT_RELEASED":
                raise HTTPException(
                    403, f"The dataset {id} is {entry.item['release_status']}, so its files cannot change."
                )
        keys = self._files.credentials() if isinstance(self._files, Bucket) else _random_keys()
        return keys | {
            "expiry": (datetime.fromtimestamp(clock.seconds(), timezone.utc) + _SESSION).isoformat(),
        }

    # release

    def reviewers(self) -> list[str]:
        """Return the persons who may approve releases."""
        return [row["person_id"] for row in self._store.rows("SELECT * FROM reviewers ORDER BY person_id")]

    def add_reviewer(self, id: str) -> None:  # noqa: A002
        """Allow a person to approve releases."""
        if self.registry.find("PERSON", id) is None:
            raise invalid(f"{id} is not the id of a complete PERSON.")
        self._store.run("INSERT OR IGNORE INTO reviewers VALUES (?)", id)

    def remove_reviewer(self, id: str) -> None:  # noqa: A002
        """Withdraw a person's right to approve releases."""
        self._store.run("DELETE FROM reviewers WHERE person_id=?", id)

    def request_release(self, user: User, id: str, approver: str, notes: str) -> None:  # noqa: A002
        """Ask a reviewer to release a dataset."""
        person = self.registry.person_of(user)
        entry = self.fetch(user, id)
        self._needs(user, entry, {"admin"})
        if approver not in self.reviewers():
            raise invalid(f"{approver} is no system reviewer.")
        if entry.item["release_status"] != "NOT_RELEASED":
            raise invalid(f"The dataset {id} is already {entry.item['release_status']}.")
        self._release(user, entry, "PENDING", "REQUEST", approver, person, notes)

    def act_on_release(self, user: User, id: str, *, approve: bool, notes: str) -> None:  # noqa: A002
        """Approve or reject the release of a dataset. A caller who is no reviewer learns nothing about it."""
        person = self.registry.person_of(user)
        if person not in self.reviewers():
            raise denied("You are no system reviewer.")
        entry = self.fetch(user, id)
        if entry.item["release_status"] != "PENDING":
            raise invalid(f"The dataset {id} waits for no approval.")
        if entry.item["release_approver"] != person:
            raise denied(f"You are not the approver of the dataset {id}.")
        state, action = ("RELEASED", "APPROVE") if approve else ("NOT_RELEASED", "REJECT")
        self._release(user, entry, state, action, person, None, notes)

    def _release(
        self, user: User, entry: Entry, state: str, action: str, approver: str, requester: str | None, notes: str
    ) -> None:
        now = int(clock.seconds())
        event = {"action": action, "timestamp": now, "approver": approver, "requester": requester, "notes": notes}
        change = {
            "release_history": [*entry.item["release_history"], event],
            "release_status": state,
            "release_approver": approver,
            "release_timestamp": now,
        }
        self.registry.revise(entry, entry.info | change, f"Release: {action.lower()}", user.username)

    def _info(self, collection: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
        described = collection["dataset_info"]
        names = ("s3", *_UNRELEASED)
        return {
            "display_name": described["name"],
            "user_metadata": described["user_metadata"],
            "collection_format": collection,
            "access_info_uri": described["access_info"]["uri"],
        } | {name: kept.get(name) for name in names}

    def _changeable(self, user: User, id: str) -> Entry:  # noqa: A002
        """Return a dataset that is not locked and whose metadata the user may change."""
        entry = self.registry.unlocked(id)
        self._needs(user, entry, set(_DATASET.writers))
        return entry

    def _write_metadata(self, entry: Entry) -> None:
        content = dumps(entry.item["collection_format"]).encode()
        self._files.put(f"{entry.item['s3']['path']}metadata.json", "application/json", content)

    def _needs(self, user: User, entry: Entry, roles: set[str]) -> None:
        if roles.isdisjoint(self.registry.roles(user, entry)):
            raise denied(f"You may not do this with the dataset {entry.id}.")


def _random_keys() -> dict[str, str]:
    return {
        "aws_access_key_id": f"ASIA{secrets.token_hex(8).upper()}",
        "aws_secret_access_key": secrets.token_urlsafe(30),
        "aws_session_token": secrets.token_urlsafe(60),
    }


def _place(id: str) -> dict[str, str]:  # noqa: A002
    path = f"datasets/{id.replace('.', '-').replace('/', '-')}/"
    return {"bucket_name": NAME, "path": path, "s3_uri": f"s3://{NAME}/{path}"}
