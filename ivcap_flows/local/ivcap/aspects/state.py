"""Aspects in the store: appended, retracted once, never changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from ivcap_flows.local import clock, ids
from ivcap_flows.local.database import Store
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.access import POLICY, may_read, to_write
from ivcap_flows.local.ivcap.jsonpath import matches
from ivcap_flows.local.ivcap.replies import compact
from ivcap_flows.local.tokens import Principal

__all__ = ["Aspects"]


class Aspects:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: dict[str, Callable[[Principal, str], None]] = {}
        store.function("content_matches", 2, matches)

    def watch(self, schema: str, told: Callable[[Principal, str], None]) -> None:
        """Call `told` whenever an account's records of a schema change, in the same transaction.

        Its arguments are the account and the entity.
        """
        self._watchers[schema] = told

    def _tell(self, who: Principal, entity: str, schema: str) -> None:
        if schema in self._watchers:
            self._watchers[schema](who, entity)

    def add(
        self,
        who: Principal,
        entity: str,
        schema: str,
        content: Any,
        *,
        policy: str = POLICY["aspect"],
        replaces: str | None = None,
    ) -> str:
        """Append a record; others of the same entity and schema stay valid."""
        urn = ids.new_urn("aspect")
        with self._store.transaction():
            self._store.insert(
                "aspects",
                id=urn,
                account=who.account,
                policy=policy,
                entity=entity,
                schema=schema,
                content=compact(content),
                asserter=who.subject,
                replaces=replaces,
                valid_from=clock.now(),
                visible_from=clock.visible_from(),
            )
            self._tell(who, entity, schema)
        return urn

    def put(self, who: Principal, entity: str, schema: str, content: Any, *, policy: str = POLICY["aspect"]) -> str:
        """Append a record in place of the account's valid one. Raises Problem 424 if several are valid."""
        with self._store.transaction():
            valid = self._store.all(
                "SELECT id FROM aspects WHERE entity = ? AND schema = ? AND account = ? AND valid_to IS NULL LIMIT 2",
                (entity, schema, who.account),
            )
            if len(valid) > 1:
                raise errors.not_unique(
                    f"Several aspects of schema {schema} are valid for {entity}; retract all but one."
                )
            return self.tell(who, entity, schema, content, policy=policy)

    def tell(self, who: Principal, entity: str, schema: str, content: Any, *, policy: str = POLICY["aspect"]) -> str:
        """Append a record in place of the account's newest valid one: what the platform itself states of an account's.

        It holds whatever users state about the same, and whether the record before shows yet.
        """
        with self._store.transaction():
            before = self.newest(who, entity, schema)
            old = None if before is None else before["id"]
            if old is not None:
                self._store.update("aspects", old, valid_to=clock.now(), retracter=who.subject)
            return self.add(who, entity, schema, content, policy=policy, replaces=old)

    def retract(self, who: Principal, urn: str) -> None:
        """Mark a record as no longer valid. Idempotent."""
        with self._store.transaction():
            row = to_write(self._find(urn), "aspect", urn, who)
            if row["valid_to"] is None:
                self._store.update("aspects", urn, valid_to=clock.now(), retracter=who.subject)
                self._tell(who, row["entity"], row["schema"])

    def newest(self, who: Principal, entity: str, schema: str) -> sqlite3.Row | None:
        """Return the account's last valid record of a schema for an entity."""
        return self._store.one(
            "SELECT * FROM aspects WHERE entity = ? AND schema = ? AND account = ? AND valid_to IS NULL"
            " ORDER BY seq DESC LIMIT 1",
            (entity, schema, who.account),
        )

    def read(self, who: Principal, urn: str) -> sqlite3.Row:
        row = self._find(urn)
        if row is None or not may_read(row, who):
            raise errors.not_found("aspect", urn)
        return row

    def _find(self, urn: str) -> sqlite3.Row | None:
        return self._store.one("SELECT * FROM aspects WHERE id = ?", (urn,))
