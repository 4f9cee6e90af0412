"""The state of the embedded IVCAP in one SQLite file.

WAL with `synchronous=FULL`: a reply is sent only after its changes are on disk. One server process writes; runners
read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ivcap_flows.errors import EmbeddedPlatformError, NewerSchemaError
from ivcap_flows.local.directory import make_private, need_space

__all__ = ["Store", "need_rows_space", "open_reader", "open_state"]

_MIGRATIONS: Final = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);

    CREATE TABLE artifacts (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL, policy TEXT NOT NULL,
        name TEXT, mime TEXT, size INTEGER, received INTEGER NOT NULL, status TEXT NOT NULL, collection TEXT,
        job TEXT, created_at INTEGER NOT NULL, modified_at INTEGER NOT NULL, visible_from INTEGER NOT NULL);
    CREATE INDEX artifacts_by_time ON artifacts (created_at, seq);
    CREATE INDEX artifacts_by_name ON artifacts (name);

    CREATE TABLE services (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL, policy TEXT NOT NULL,
        name TEXT, description TEXT NOT NULL, tags TEXT NOT NULL, controller_schema TEXT NOT NULL,
        controller TEXT NOT NULL, parameters TEXT NOT NULL, valid_from INTEGER NOT NULL, valid_to INTEGER,
        visible_from INTEGER NOT NULL);

    CREATE TABLE orders (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL, policy TEXT NOT NULL,
        service TEXT NOT NULL, name TEXT NOT NULL, tags TEXT NOT NULL, parameters TEXT NOT NULL, status TEXT NOT NULL,
        ordered_at INTEGER NOT NULL, started_at INTEGER, finished_at INTEGER, visible_from INTEGER NOT NULL);
    CREATE INDEX orders_by_time ON orders (ordered_at, seq);
    CREATE INDEX orders_by_name ON orders (name);

    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL, policy TEXT NOT NULL,
        subject TEXT NOT NULL, order_id TEXT NOT NULL REFERENCES orders (id), leads INTEGER NOT NULL,
        service TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL, request TEXT NOT NULL, result TEXT,
        result_type TEXT, result_urn TEXT, error_message TEXT, events_read INTEGER NOT NULL DEFAULT 0,
        requested_at INTEGER NOT NULL, started_at INTEGER, finished_at INTEGER, visible_from INTEGER NOT NULL);
    CREATE INDEX jobs_by_service ON jobs (service, requested_at, seq);
    CREATE INDEX jobs_by_order ON jobs (order_id, seq);
    CREATE INDEX jobs_active ON jobs (seq) WHERE finished_at IS NULL;

    CREATE TABLE products (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, order_id TEXT NOT NULL REFERENCES orders (id),
        job TEXT NOT NULL REFERENCES jobs (id), artifact TEXT NOT NULL UNIQUE REFERENCES artifacts (id));
    CREATE INDEX products_by_order ON products (order_id, seq);
    CREATE INDEX products_by_job ON products (job, seq);

    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL REFERENCES jobs (id), id TEXT NOT NULL,
        type TEXT NOT NULL, schema TEXT NOT NULL, data TEXT NOT NULL, at INTEGER NOT NULL);
    CREATE INDEX events_by_job ON events (job, seq);

    CREATE TABLE aspects (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL, policy TEXT NOT NULL,
        entity TEXT NOT NULL, schema TEXT NOT NULL, content TEXT NOT NULL, asserter TEXT NOT NULL, retracter TEXT,
        replaces TEXT, valid_from INTEGER NOT NULL, valid_to INTEGER, visible_from INTEGER NOT NULL);
    CREATE INDEX aspects_by_entity ON aspects (entity, schema, valid_from, seq);
    CREATE INDEX aspects_by_schema ON aspects (schema, valid_from, seq);
    CREATE INDEX aspects_by_time ON aspects (valid_from, seq);
    """,
    """
    DROP INDEX artifacts_by_name;
    CREATE INDEX artifacts_by_name ON artifacts (name, created_at, seq);
    CREATE INDEX artifacts_in_order_of_name ON artifacts (COALESCE(name, ''), seq);
    DROP INDEX orders_by_name;
    CREATE INDEX orders_by_name ON orders (name, ordered_at, seq);
    CREATE INDEX aspects_of_entity ON aspects (entity, valid_from, seq);
    CREATE INDEX aspects_valid ON aspects (entity, schema) WHERE valid_to IS NULL;
    CREATE INDEX aspects_of_jobs ON aspects (schema, COALESCE(json_extract(content, '$."requested-at"'), ''), seq)
        WHERE schema = 'urn:ivcap:schema:job.2';
    """,
    """
    CREATE TABLE secrets (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL,
        sealed BLOB NOT NULL, key TEXT NOT NULL, expires INTEGER NOT NULL, visible_from INTEGER NOT NULL,
        UNIQUE (account, name));

    CREATE TABLE queues (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL, policy TEXT NOT NULL,
        name TEXT NOT NULL, description TEXT, created_at INTEGER NOT NULL, visible_from INTEGER NOT NULL,
        UNIQUE (account, name));
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, queue TEXT NOT NULL REFERENCES queues (id),
        schema TEXT, content TEXT NOT NULL, sent_at INTEGER NOT NULL, visible_from INTEGER NOT NULL);
    CREATE INDEX messages_by_queue ON messages (queue, seq);

    CREATE TABLE projects (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, account TEXT NOT NULL, name TEXT NOT NULL,
        parent TEXT REFERENCES projects (id), details TEXT, status TEXT NOT NULL, created_at INTEGER NOT NULL,
        modified_at INTEGER NOT NULL, visible_from INTEGER NOT NULL);
    CREATE TABLE members (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT NOT NULL REFERENCES projects (id), user TEXT NOT NULL,
        role TEXT NOT NULL, UNIQUE (project, user));
    CREATE INDEX members_by_user ON members (user, project);
    CREATE TABLE default_projects (user TEXT PRIMARY KEY, project TEXT NOT NULL REFERENCES projects (id));

    CREATE TABLE packages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, tag TEXT NOT NULL, UNIQUE (account, tag));

    CREATE TABLE device_logins (
        code TEXT PRIMARY KEY, user_code TEXT NOT NULL UNIQUE, client TEXT NOT NULL, scope TEXT NOT NULL,
        expires INTEGER NOT NULL, polled_at INTEGER, account TEXT, denied INTEGER NOT NULL DEFAULT 0, lifetime REAL);
    CREATE TABLE refresh_tokens (
        hash TEXT PRIMARY KEY, account TEXT NOT NULL, client TEXT NOT NULL, scope TEXT NOT NULL,
        lifetime REAL NOT NULL, expires INTEGER NOT NULL);
    """,
    """
    ALTER TABLE refresh_tokens ADD COLUMN login TEXT NOT NULL DEFAULT '';
    ALTER TABLE refresh_tokens ADD COLUMN spent INTEGER NOT NULL DEFAULT 0;
    """,
    """
    DROP TABLE default_projects;
    DROP TABLE members;
    DROP TABLE projects;
    """,
)
"""The scripts that lead from one version of the file to the next. Never change one: append another."""


class Store:
    """One connection, used by one thread at a time. Opening it migrates the file; a newer version is refused."""

    def __init__(self, path: Path) -> None:
        self._connection = open_state(path, _MIGRATIONS)
        self._connection.execute("PRAGMA foreign_keys=ON")
        self._depth = 0

    def close(self) -> None:
        self._connection.close()

    def function(self, name: str, arguments: int, body: Callable[..., Any]) -> None:
        self._connection.create_function(name, arguments, body, deterministic=True)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._connection.execute(sql, values)

    def one(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return row

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        return self._connection.execute(sql, values).fetchall()

    def insert(self, table: str, **values: Any) -> None:
        need_rows_space()
        names = ", ".join(values)
        marks = ", ".join("?" * len(values))
        self._connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))  # noqa: S608 - names come from the code only

    def update(self, table: str, id: str, **values: Any) -> None:  # noqa: A002 - the column's name
        need_rows_space()
        marks = ", ".join(f"{name} = ?" for name in values)
        self._connection.execute(f"UPDATE {table} SET {marks} WHERE id = ?", (*values.values(), id))  # noqa: S608

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as a transaction; a nested one is part of the outer one."""
        if self._depth == 0:
            self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._depth == 0 and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            try:
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def kept(self, name: str, make: Callable[[], str]) -> str:
        """Return a value that is created once and stored in the directory."""
        with self.transaction():
            value = self.get(name)
            if value is None:
                value = make()
                self.insert("meta", name=name, value=value)
            return value

    def get(self, name: str) -> str | None:
        """Return a value of the directory, or None."""
        row = self.one("SELECT value FROM meta WHERE name = ?", (name,))
        return None if row is None else str(row["value"])

    def keep(self, name: str, value: str) -> None:
        """Set a value of the directory."""
        self.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))

    def count(self, name: str) -> int:
        """Return the next number of a counter of the directory, starting at 1."""
        with self.transaction():
            number = int(self.get(name) or 0) + 1
            self.keep(name, str(number))
            return number


def open_state(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    """Open or create a file of state, and bring it to its newest version, of which each script makes the next.

    Raises EmbeddedPlatformError if it cannot be used, and NewerSchemaError for a file of a newer version.
    """
    connection = None
    try:
        # It has the secret that tokens are signed with. SQLite gives its other files the mode of this one.
        make_private(path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        for version in range(found, len(migrations)):
            connection.executescript(f"BEGIN; {migrations[version]} PRAGMA user_version={version + 1}; COMMIT;")
    except (OSError, sqlite3.Error) as error:
        if connection is not None:
            connection.close()
        raise EmbeddedPlatformError(
            f"The state of the embedded platform in {path} cannot be opened ({error}). Check that the folder is"
            " readable, writable and has free space, or set IVCAP_LOCAL_DIR to another folder.",
            directory=str(path.parent),
        ) from error
    if found > len(migrations):
        connection.close()
        raise NewerSchemaError(
            f"{path} was made by a newer version of ivcap-flows (schema {found}, this one knows {len(migrations)})."
            " Upgrade ivcap-flows, or set IVCAP_LOCAL_DIR to another folder.",
            found=found,
            known=len(migrations),
        )
    return connection


def need_rows_space() -> None:
    """Raise SQLite's own error for a full disk, so that the code behaves as on one, if a test says that it is full."""
    try:
        need_space()
    except OSError as error:
        raise sqlite3.OperationalError("database or disk is full") from error


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a read-only connection in another process."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    connection.row_factory = sqlite3.Row
    return connection
