"""The SQLite file of the embedded Provena: one connection, one transaction at a time, every commit on disk."""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ivcap_flows.local import ids
from ivcap_flows.local.database import need_rows_space, open_state

__all__ = ["Store", "dumps", "handle_of", "number_of", "without_nulls"]

_MIGRATIONS: Final = (
    """
CREATE TABLE items (
    id TEXT PRIMARY KEY, item_subtype TEXT NOT NULL, record_type TEXT NOT NULL,
    created_timestamp INTEGER NOT NULL, updated_timestamp INTEGER NOT NULL, display_name TEXT,
    access_info_uri TEXT, release_approver TEXT, release_status TEXT, release_timestamp INTEGER,
    words TEXT NOT NULL, item TEXT NOT NULL, access TEXT NOT NULL,
    locked INTEGER NOT NULL, lock_history TEXT NOT NULL, visible_from REAL NOT NULL
);
CREATE INDEX items_updated ON items (updated_timestamp, id);
CREATE INDEX items_of_subtype ON items (item_subtype, updated_timestamp, id);
CREATE TABLE jobs (
    session_id TEXT PRIMARY KEY, created_timestamp INTEGER NOT NULL, username TEXT NOT NULL, batch_id TEXT,
    job_type TEXT NOT NULL, job_sub_type TEXT NOT NULL, payload TEXT NOT NULL,
    status TEXT, info TEXT, result TEXT, due REAL
);
CREATE INDEX jobs_due ON jobs (due) WHERE due IS NOT NULL;
CREATE INDEX jobs_of_user ON jobs (username, created_timestamp, session_id);
CREATE INDEX jobs_of_batch ON jobs (batch_id, created_timestamp, session_id);
CREATE TABLE graph_nodes (
    record_id TEXT NOT NULL, id TEXT NOT NULL, item_category TEXT NOT NULL, item_subtype TEXT NOT NULL,
    PRIMARY KEY (record_id, id)
);
CREATE INDEX graph_nodes_by_id ON graph_nodes (id);
CREATE TABLE graph_links (
    record_id TEXT NOT NULL, source TEXT NOT NULL, type TEXT NOT NULL, target TEXT NOT NULL,
    PRIMARY KEY (record_id, source, target)
);
CREATE INDEX graph_links_by_source ON graph_links (source);
CREATE INDEX graph_links_by_target ON graph_links (target);
CREATE TABLE person_links (username TEXT PRIMARY KEY, person_id TEXT NOT NULL);
CREATE TABLE user_groups (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE group_members (
    group_id TEXT NOT NULL, username TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (group_id, username)
);
CREATE TABLE access_requests (id INTEGER PRIMARY KEY, username TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE reviewers (person_id TEXT PRIMARY KEY);
CREATE TABLE device_codes (
    device_code TEXT PRIMARY KEY, user_code TEXT NOT NULL UNIQUE, client_id TEXT NOT NULL, scope TEXT NOT NULL,
    expires REAL NOT NULL, polls INTEGER NOT NULL DEFAULT 0, username TEXT
);
CREATE TABLE handles (number INTEGER PRIMARY KEY AUTOINCREMENT);
CREATE TABLE handle_values (
    id TEXT NOT NULL, position INTEGER NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (id, position)
);
CREATE TABLE files (path TEXT PRIMARY KEY, media_type TEXT NOT NULL, content BLOB NOT NULL);
INSERT INTO handles (number) VALUES (100000);
""",
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);",
    """
DROP TABLE device_codes;
CREATE TABLE device_codes (
    device_code TEXT PRIMARY KEY, user_code TEXT NOT NULL UNIQUE, client_id TEXT NOT NULL, scope TEXT NOT NULL,
    expires REAL NOT NULL, polled REAL, username TEXT, denied INTEGER NOT NULL DEFAULT 0
);
""",
    """
DELETE FROM access_requests;

CREATE INDEX items_created ON items (created_timestamp, id);
CREATE INDEX items_named ON items (display_name, id);
CREATE INDEX items_of_subtype_created ON items (item_subtype, created_timestamp, id);
CREATE INDEX items_of_subtype_named ON items (item_subtype, display_name, id);
CREATE INDEX items_of_subtype_elsewhere ON items (item_subtype, access_info_uri, id) WHERE access_info_uri IS NOT NULL;
CREATE INDEX items_of_approver ON items (release_approver, release_timestamp, id) WHERE release_approver IS NOT NULL;
CREATE INDEX jobs_created ON jobs (created_timestamp, session_id);

CREATE VIRTUAL TABLE item_words USING fts5(item_subtype, words, tokenize="unicode61 tokenchars '_'");
INSERT INTO item_words (rowid, item_subtype, words)
    SELECT CAST(substr(id, length('102.100.100/') + 1) AS INTEGER), item_subtype, words FROM items
    WHERE record_type = 'COMPLETE_ITEM';
ALTER TABLE items DROP COLUMN words;

CREATE TABLE graph_items (id TEXT PRIMARY KEY, item_category TEXT NOT NULL, item_subtype TEXT NOT NULL);
INSERT OR REPLACE INTO graph_items SELECT id, item_category, item_subtype FROM graph_nodes ORDER BY rowid;
CREATE TABLE graph_edges (
    source TEXT NOT NULL, target TEXT NOT NULL, type TEXT NOT NULL, PRIMARY KEY (source, target)
) WITHOUT ROWID;
CREATE INDEX graph_edges_by_target ON graph_edges (target, source);
INSERT OR REPLACE INTO graph_edges SELECT source, target, type FROM graph_links ORDER BY rowid;
DROP INDEX graph_links_by_source;
DROP INDEX graph_links_by_target;
CREATE INDEX graph_links_by_ends ON graph_links (source, target);
""",
)
_PREFIX: Final = "102.100.100/"


def dumps(value: Any) -> str:
    """Return compact JSON text."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def without_nulls(value: Any) -> Any:
    """Return the value without its null-valued keys, at any depth."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


class Store:
    """All state of the embedded Provena. Thread-safe; the server's lock keeps other processes out."""

    def __init__(self, path: Path, seed: int | None = None) -> None:
        """Open the file by `open_state`. With a `seed`, the ids of jobs and batches are derived from it."""
        self._seed = seed
        self._lock = threading.RLock()
        self._db = open_state(path, _MIGRATIONS)

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as a transaction: its changes are on disk when it ends, and undone if it raises."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Run part of a transaction, which is undone alone if the block raises."""
        with self._lock:
            self._db.execute("SAVEPOINT attempt")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK TO attempt")
                raise
            finally:
                self._db.execute("RELEASE attempt")

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        with self._lock:
            found: sqlite3.Row | None = self._db.execute(sql, values).fetchone()
            return found

    def run(self, sql: str, *values: Any) -> int:
        """Change rows; return how many."""
        need_rows_space()
        with self._lock:
            return self._db.execute(sql, values).rowcount

    def new_id(self) -> str:
        """Return the id of a new job or batch. Call it within a transaction."""
        if self._seed is None:
            return str(uuid.uuid4())
        with self._lock:
            self.run(
                "INSERT INTO counters VALUES ('ids', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1",
            )
            row = self.row("SELECT value FROM counters WHERE name = 'ids'")
        return str(ids.seeded(self._seed, "provena", row["value"] if row else 0))

    def new_handle(self) -> str:
        """Return a new handle in the form of the ARDC handle service; later handles sort after earlier ones."""
        with self._lock:
            return f"{_PREFIX}{self._db.execute('INSERT INTO handles DEFAULT VALUES').lastrowid}"


def handle_of(number: int) -> str:
    """Return the handle with this number."""
    return f"{_PREFIX}{number}"


def number_of(handle: str) -> int:
    """Return the number of a handle, which is the row id of its item's words."""
    return int(handle.removeprefix(_PREFIX))
