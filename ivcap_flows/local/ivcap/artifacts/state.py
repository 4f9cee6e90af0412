"""Artifact records. The bytes are in a folder (blobs.py); `received` is how many of them are surely on disk."""

from __future__ import annotations

import sqlite3
from typing import Any

from ivcap_flows.identity import CONTENT_SCHEMA
from ivcap_flows.local import clock, ids
from ivcap_flows.local.database import Store
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.ivcap import errors, schemas
from ivcap_flows.local.ivcap.access import may_read, to_write
from ivcap_flows.local.ivcap.aspects.state import Aspects
from ivcap_flows.local.tokens import Principal

__all__ = ["Artifacts"]


class Artifacts:
    def __init__(self, store: Store, directory: Directory, aspects: Aspects) -> None:
        self._store, self._directory, self._aspects = store, directory, aspects

    def create(
        self,
        who: Principal,
        *,
        name: str | None,
        mime: str | None,
        size: int | None,
        policy: str,
        collection: str | None = None,
        job: str | None = None,
        urn: str | None = None,
    ) -> sqlite3.Row:
        """Create a record without bytes; a `size` of None is not known yet.

        With a job of the same account, it is a product.
        """
        urn, made = urn or ids.new_urn("artifact"), clock.now()
        with self._store.transaction():
            self._store.insert(
                "artifacts",
                id=urn,
                account=who.account,
                policy=policy,
                name=name,
                mime=mime,
                size=size,
                received=0,
                status="pending",
                collection=collection,
                job=job,
                created_at=made,
                modified_at=made,
                visible_from=clock.visible_from(),
            )
            if collection is not None:
                content = {"artifact": urn, "collection": collection}
                self._aspects.add(who, urn, schemas.IN_COLLECTION, content)
            if job is not None:
                self._link(who, urn, job)
            if size == 0:
                self._complete(who, self._get(urn))
            return self._get(urn)

    def _link(self, who: Principal, urn: str, job: str) -> None:
        row = self._store.one("SELECT order_id FROM jobs WHERE id = ? AND account = ?", (job, who.account))
        if row is None:
            return
        self._store.insert("products", order_id=row["order_id"], job=job, artifact=urn)
        content = {"order": row["order_id"], "job": job, "artifact": urn}
        self._aspects.add(who, row["order_id"], schemas.PRODUCED, content)
        self._aspects.add(who, urn, schemas.PRODUCED_BY, content)

    def _complete(self, who: Principal, row: sqlite3.Row) -> None:
        self._store.update("artifacts", row["id"], status="ready", modified_at=clock.now())
        content = {"id": row["id"], "name": row["name"], "mime-type": row["mime"], "size": row["size"]}
        self._aspects.add(who, row["id"], schemas.ARTIFACT, {k: v for k, v in content.items() if v is not None})

    def advance(self, who: Principal, urn: str, received: int, size: int | None = None) -> sqlite3.Row:
        """Record that this many bytes are on disk; a given size sets one that was unknown."""
        with self._store.transaction():
            row = self._get(urn)
            known = row["size"] if size is None else size
            changed: dict[str, Any] = {"received": received, "size": known, "modified_at": clock.now()}
            if row["status"] == "pending" and received:
                changed["status"] = "partial"
            self._store.update("artifacts", urn, **changed)
            if known is not None and received == known and row["status"] != "ready":
                self._complete(who, self._get(urn))
            return self._get(urn)

    def adopt(
        self,
        who: Principal,
        urn: str,
        *,
        name: str | None,
        mime: str,
        size: int,
        sha256: str,
        policy: str,
        job: str | None,
    ) -> None:
        """Record a complete artifact whose bytes are in place already. An existing record stays unchanged."""
        with self._store.transaction():
            if self._store.one("SELECT 1 FROM artifacts WHERE id = ?", (urn,)) is None:
                self.create(who, name=name, mime=mime, size=size, policy=policy, job=job, urn=urn)
                if size:
                    self.advance(who, urn, size)
                content = {"$schema": CONTENT_SCHEMA, "$entity": urn, "sha256": sha256, "size": size}
                self._aspects.add(who, urn, CONTENT_SCHEMA, content)

    def read(self, who: Principal, urn: str) -> sqlite3.Row:
        row = self._find(urn)
        if row is None or not may_read(row, who):
            raise errors.not_found("artifact", urn)
        return row

    def to_write(self, who: Principal, urn: str) -> sqlite3.Row:
        return to_write(self._find(urn), "artifact", urn, who)

    def _find(self, urn: str) -> sqlite3.Row | None:
        return self._store.one("SELECT * FROM artifacts WHERE id = ?", (urn,))

    def _get(self, urn: str) -> sqlite3.Row:
        row = self._find(urn)
        assert row is not None
        return row
