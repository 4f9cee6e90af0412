"""Queues in the store. A message is removed in the transaction that returns it, so it is delivered at most once."""

from __future__ import annotations

import sqlite3

from ivcap_flows.local import clock, ids
from ivcap_flows.local.database import Store
from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.access import may_read, to_write
from ivcap_flows.local.tokens import Principal

__all__ = ["Queues"]

_LARGEST_ANSWER = 16 * 1024 * 1024


class Queues:
    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, who: Principal, name: str, description: str | None, policy: str) -> str:
        """Create an empty queue; return its id.

        Raises Problem 409, with the id, if the account has a queue of that name.
        """
        with self._store.transaction():
            there = self._store.one("SELECT id FROM queues WHERE account = ? AND name = ?", (who.account, name))
            if there is not None:
                raise errors.already_created("queue", there["id"])
            urn = ids.new_urn("queue")
            self._store.insert(
                "queues",
                id=urn,
                account=who.account,
                policy=policy,
                name=name,
                description=description,
                created_at=clock.now(),
                visible_from=clock.visible_from(),
            )
            return urn

    def read(self, who: Principal, urn: str) -> sqlite3.Row:
        """Return the queue with `total`, `bytes`, `first` and `last` of its messages. Raises Problem 404."""
        row = self._store.one(
            "SELECT q.*, COUNT(m.seq) AS total, COALESCE(SUM(LENGTH(CAST(m.content AS BLOB))), 0) AS bytes,"
            " MIN(m.sent_at) AS first, MAX(m.sent_at) AS last"
            " FROM queues q LEFT JOIN messages m ON m.queue = q.id AND m.visible_from <= ?"
            " WHERE q.id = ? GROUP BY q.id",
            (clock.now(), urn),
        )
        if row is None or not may_read(row, who):
            raise errors.not_found("queue", urn)
        return row

    def delete(self, who: Principal, urn: str) -> None:
        """Delete a queue and all its messages."""
        with self._store.transaction():
            self._own(who, urn)
            self._store.execute("DELETE FROM messages WHERE queue = ?", (urn,))
            self._store.execute("DELETE FROM queues WHERE id = ?", (urn,))

    def enqueue(self, who: Principal, urn: str, content: str, schema: str | None) -> str:
        """Append a message (JSON text); return its id."""
        with self._store.transaction():
            self._own(who, urn)
            message = ids.new_urn("message")
            self._store.insert(
                "messages",
                id=message,
                queue=urn,
                schema=schema,
                content=content,
                sent_at=clock.now(),
                visible_from=clock.visible_from(),
            )
            return message

    def dequeue(self, who: Principal, urn: str, limit: int) -> list[sqlite3.Row]:
        """Take up to `limit` messages from the front; fewer if they are large."""
        with self._store.transaction():
            self._own(who, urn)
            taken: list[sqlite3.Row] = []
            size = 0
            for row in self._store.execute(
                "SELECT * FROM messages WHERE queue = ? AND visible_from <= ? ORDER BY seq LIMIT ?",
                (urn, clock.now(), limit),
            ):
                size += len(row["content"])
                if taken and size > _LARGEST_ANSWER:
                    break
                taken.append(row)
            for row in taken:
                self._store.execute("DELETE FROM messages WHERE seq = ?", (row["seq"],))
            return taken

    def _own(self, who: Principal, urn: str) -> None:
        to_write(self._store.one("SELECT * FROM queues WHERE id = ?", (urn,)), "queue", urn, who)
