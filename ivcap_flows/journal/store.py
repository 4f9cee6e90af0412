"""The database of a journal: engine, durable transactions, one clock. Imported only when a journal is opened."""

from __future__ import annotations

import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from contextvars import copy_context
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from ivcap_flows.errors import ConfigurationError, InputError, JournalError, JournalMovedError, NewerSchemaError
from ivcap_flows.forked import in_forked_child
from ivcap_flows.journal import revisions
from ivcap_flows.journal.filesystems import network_file_system
from ivcap_flows.journal.info import Info
from ivcap_flows.journal.inserts import InsertNew, InsertOver
from ivcap_flows.journal.observer import Observer, Transition
from ivcap_flows.journal.schema import journal_info, metadata
from ivcap_flows.journal.server import READ_ONLY, reads_only, weaknesses
from ivcap_flows.journal.transactions import Transactions
from ivcap_flows.secrets import logger_of

__all__ = ["CREATION", "Place", "Store", "is_missing"]

logger = logger_of("ivcap_flows.journal")

BUSY_SECONDS: Final = 30.0
_COUNTED: Final = {"preserve_rowcount": True}
_GRANTED: Final = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
"""The settings that SQLite must report after they were set; 2 is FULL."""
_SETTINGS: Final = (
    "SELECT set_config('synchronous_commit', 'on', true), set_config('lock_timeout', :busy, true),"
    " set_config('idle_in_transaction_session_timeout', :idle, true)"
)
"""The settings of a transaction that writes, on PostgreSQL.

A server or role may have switched `synchronous_commit` off for speed, but here the end of a commit must mean "on disk".
A process that is suspended, or a machine that is lost, in the middle of a transaction would keep its locks for hours.
"""
_USABLE: Final = "SELECT version FROM journal_info WHERE mark IS NULL"
"""Which tables a journal has, or nothing if it may not be used. A process may have opened it before that changed."""
_AND_USABLE: Final = f", ({_USABLE})"
"""In the same statement, since each is a round trip. It waits for a move that is under way, which locks the table."""
_GONE: Final = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
"""When a server that vanished counts as gone (libpq): after a minute. The system's own values are hours."""
CREATION: Final = "ivcap-flows:tables"
"""The name under which processes take turns to create the tables."""
_OTHER_TABLES_ON_SERVER: Final = ("42703", "42P01", "23502")
"""PostgreSQL's codes for a column and a table that do not exist, and for one that a row must fill; Appendix A."""
_OTHER_TABLES_IN_SQLITE: Final = (
    "no such column",
    "no such table",
    "has no column named",
    "NOT NULL constraint failed",
)
_DAMAGED: Final = ("malformed", "not a database")

_engines: WeakSet[Engine] = WeakSet()
_inherited: list[object] = []
"""The parent's connections in a forked child. They stay unused: closing them would disturb the parent."""


def _leave_to_parent() -> None:
    """Give the engines of a forked child their own connections."""
    for engine in _engines:
        _inherited.append(engine.pool)
        engine.dispose(close=False)


in_forked_child(_leave_to_parent)


class Store:
    """Transactions on one journal. It may be shared by threads, and the database by processes."""

    def __init__(self, url: str) -> None:
        parsed = _parsed(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.url = parsed.render_as_string(hide_password=True)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.path: Path | None = _place_of(parsed) if self.is_sqlite else None
        """The file of an SQLite journal, otherwise None."""
        self.is_relative = self.is_sqlite and not Path(parsed.database or "").expanduser().is_absolute()
        self.observer: Observer | None = None
        self.journal_id = ""
        self._version = ""
        self._noted = threading.local()
        self.engine = _sqlite(parsed) if self.is_sqlite else _postgresql(parsed)
        self._transactions = Transactions(self.engine, lock_timeout=BUSY_SECONDS, begun=self._check_usable)
        _engines.add(self.engine)
        try:
            self._open()
        except (SQLAlchemyError, OSError) as error:
            self.engine.dispose()
            raise self.failure("opened", error) from error
        except BaseException:
            self.engine.dispose()
            raise

    def close(self) -> None:
        """Close all connections; closing twice does nothing."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Run a transaction that only reads. Raise JournalError if the database cannot be read."""
        shared = self._transactions.shared
        try:
            if shared is not None:
                # This thread must see its own writes, although they are not committed yet.
                yield shared
                return
            with self.engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, UnicodeEncodeError) as error:
            raise self.failure("read", error) from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run a transaction that is on disk when the block ends; raise JournalError if it fails.

        On SQLite, writers take turns.
        """
        transitions: list[Callable[[], None]] = []
        try:
            with self._transactions.transaction() if self.is_sqlite else self._on_server() as connection:
                self._noted.transitions = transitions
                yield connection
        except (SQLAlchemyError, UnicodeEncodeError) as error:
            raise self.failure("written", error) from error
        for tell in transitions:
            self.when_on_disk(tell)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let this thread's writes in the block share a commit (SQLite only); raise JournalError if it fails."""
        try:
            with self._transactions.together():
                yield
        except (SQLAlchemyError, UnicodeEncodeError) as error:
            raise self.failure("written", error) from error

    def when_on_disk(self, call: Callable[[], None]) -> None:
        """Run `call` when the writes of this thread are on disk, and not at all if their commit fails."""
        self._transactions.when_on_disk(call)

    def note(self, transition: Transition) -> None:
        """Tell the observer of a change that the `write` block of this thread makes, once it is on disk."""
        if self.observer is not None:
            self._noted.transitions.append(partial(copy_context().run, self.tell, transition))

    def tell(self, transition: Transition) -> None:
        """Tell the observer now. What it raises is only logged."""
        if self.observer is None:
            return
        try:
            self.observer(transition)
        except Exception as error:  # noqa: BLE001 - what was written must not fail because somebody is told of it
            logger.debug("The observer of the journal failed on %s: %s", type(transition).__name__, error)

    @contextmanager
    def _on_server(self) -> Iterator[Connection]:
        with self.engine.begin() as connection:
            # In each transaction, since a pooler may give each another session of the server.
            # Who waits must outlast the holder that stands still.
            limits = {"busy": f"{BUSY_SECONDS * 1000:.0f}ms", "idle": f"{BUSY_SECONDS * 500:.0f}ms"}
            if not self._version:
                connection.execute(sa.text(_SETTINGS), limits)
            elif connection.execute(sa.text(_SETTINGS + _AND_USABLE), limits).one()[-1] != self._version:
                self._begin_use(connection)
            yield connection

    def _check_usable(self, connection: Connection) -> None:
        """Raise what `usable` does, if the journal was moved or upgraded while this process had it open."""
        # As text, since the statement of SQLAlchemy takes as long as a small write.
        if self._version and connection.exec_driver_sql(_USABLE).scalar() != self._version:
            self._begin_use(connection)

    def now(self, connection: Connection) -> datetime:
        """Return the journal's time: the server's on PostgreSQL, so that machines with wrong clocks agree."""
        if self.is_sqlite:
            return datetime.now(timezone.utc)
        moment: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        return moment.astimezone(timezone.utc)

    def numbered(self, connection: Connection, table: sa.Table) -> dict[str, int]:
        """Return the `seq` of a new row, higher than all before; empty on PostgreSQL, which assigns it itself."""
        if not self.is_sqlite:
            return {}
        newest = connection.execute(sa.select(sa.func.max(table.c.seq))).scalar()
        return {"seq": (newest or 0) + 1}

    def take_turns(self, connection: Connection, *names: str) -> None:
        """Wait until no other transaction holds these names, and hold them until the end of this transaction."""
        if self.is_sqlite:
            # SQLite's writers take turns anyway.
            return
        for name in names:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    def exposure(self) -> str | None:
        """Return a sentence, with the next step, if other users of this machine may use an SQLite file; else None."""
        mode = 0 if self.path is None else stat.S_IMODE(self.path.stat().st_mode)
        if not mode & 0o077:
            return None
        return (
            f"Other users of this machine may use the file (mode {mode:03o}). They can read what flows were given, or "
            f"change it. If they should not, run `chmod 600 {self.path}`."
        )

    def weaknesses(self) -> list[str]:
        """Return the risks in the database's settings, each as a sentence with the next step."""
        if self.is_sqlite:
            return []
        with self.read() as connection:
            return weaknesses(connection)

    def insert_new(self, connection: Connection, table: sa.Table, row: dict[str, Any]) -> bool:
        """Insert a row unless its primary key exists. Return whether it was inserted."""
        return connection.execute(InsertNew(table), row, execution_options=_COUNTED).rowcount > 0

    def upsert(self, connection: Connection, table: sa.Table, row: dict[str, Any]) -> None:
        """Insert a row, or replace these columns of the row with the same primary key."""
        connection.execute(InsertOver(table), row)

    def _open(self) -> None:
        """Make the journal ready for use."""
        self.make_file()
        self._prepare()
        with self.read() as connection:
            self._begin_use(connection)

    def _begin_use(self, connection: Connection) -> None:
        """Use the tables as they are now. Raise what `usable` does."""
        info = self.usable(connection)
        if info is None:
            raise JournalError(f"There is no journal {self.url} any more. Restore it from a backup.", url=self.url)
        if revisions.missing(info.number or 0):
            raise JournalError(
                f"The upgrade of the journal {self.url} was undone. Go on with the version that was there before; this "
                "one upgrades it again when it is started.",
                url=self.url,
            )
        self.journal_id, self._version = info.id, info.version

    def make_file(self) -> None:
        """Make the file of an SQLite journal, and its folder, unless they are there. Raise JournalError if it fails."""
        if self.path is None:
            return
        try:
            # Parameters of flows may be private. SQLite gives its other files the mode of this one.
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
        except OSError as error:
            raise _not_opened(self.path, error) from error

    def _prepare(self) -> None:
        """Create the tables if there are none, or upgrade them. Of several processes, one does it."""
        with self.engine.connect() as connection:
            if not self.is_sqlite and reads_only(connection):
                raise JournalError(f"The journal {self.url} cannot be written: {READ_ONLY}", url=self.url)
            info = self.usable(connection)
        if info is not None:
            self.upgrade(info)
            return
        with self.write() as connection:
            self.take_turns(connection, CREATION)
            if self.usable(connection) is None:
                self._check_is_free(connection)
                metadata.create_all(connection)
                version = str(revisions.newest().number)
                row = {"id": str(uuid.uuid4()), "version": version, "created_at": self.now(connection)}
                connection.execute(sa.insert(journal_info), {**row, "readable_from": revisions.readable_from()})

    def upgrade(self, info: Info) -> None:
        """Bring the tables to the newest revision, unless they have it. Raise JournalError if that must wait."""
        if revisions.missing(info.number or 0):
            from ivcap_flows.journal.upgrading import upgrade

            upgrade(self)

    def usable(self, connection: Connection) -> Info | None:
        """Return what the journal says of itself, or None if there is none.

        Raise NewerSchemaError if this code cannot use its tables, and JournalMovedError if the journal is not in use
        here.
        """
        info = Info.read(connection)
        if info is not None:
            if info.mark is not None:
                raise self.moved(info.mark)
            if info.number is None or info.first_reader > revisions.newest().number:
                raise self.newer(info)
        return info

    def _check_is_free(self, connection: Connection) -> None:
        """Raise ConfigurationError if another program has tables here that are named as those of a journal."""
        found = sa.inspect(connection)  # a view or, in SQLite, a name in other case is in the way, too
        taken = sorted(name for name in metadata.tables if found.has_table(name))
        if taken:
            raise ConfigurationError(
                f"The database {self.url} is another program's: it has no journal, but tables named as those of one "
                f"({', '.join(taken)}). Name another database in IVCAP_FLOWS_JOURNAL."
            )

    def newer(self, info: Info) -> NewerSchemaError:
        """Return the error that says which version of the package has the tables of the journal."""
        known = revisions.newest()
        if info.number is None:
            return NewerSchemaError(
                f"The journal {self.url} was made by an unpublished version of ivcap-flows, with tables "
                f"{info.version}. Finish its runs with that version, or name another journal in IVCAP_FLOWS_JOURNAL; "
                "what was requested is found on the platforms by its keys.",
                url=self.url,
                found=info.version,
                known=str(known.number),
            )
        # It may let older code use its tables, but not move them.
        needed = f"ivcap-flows {info.package} or later" if info.first_reader > known.number else "a newer version"
        return NewerSchemaError(
            f"The journal {self.url} has tables of revision {info.number}, which need {needed}; this version has "
            f"revision {known.number}. Upgrade ivcap-flows here, too, and start again. The journal is as it was: never "
            "delete it, since it has what was requested.",
            url=self.url,
            found=info.version,
            known=str(known.number),
        )

    def moved(self, move: dict[str, Any]) -> JournalMovedError:
        """Return the error that says where the journal is, from its mark."""
        if "undo" in move:
            return JournalMovedError(
                f"The upgrade of the journal {self.url} is being undone. Start the same command again: "
                "`ivcap-flows journal upgrade --undo`.",
                url=self.url,
                to=move["to"],
            )
        if (to := move.get("to")) is not None:
            return JournalMovedError(
                f"The journal {self.url} was moved to {to}. Name that in IVCAP_FLOWS_JOURNAL.", url=self.url, to=to
            )
        return JournalMovedError(
            f"The move of a journal from {move['from']} to {self.url} has not ended. Start the same command again: "
            "`ivcap-flows journal move FROM TO`.",
            url=self.url,
            source=move["from"],
        )

    def failure(self, verb: str, error: Exception) -> JournalError | InputError:
        """Return the error that says what could not be done, and the next step."""
        if isinstance(error, UnicodeEncodeError):
            return InputError(f"{error.object!a:.200} holds half a surrogate pair, which cannot be stored.")
        cause = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()
        state = getattr(getattr(error, "orig", None), "sqlstate", None)
        if "database is locked" in cause or state == "55P03":
            step = f"Another process has been writing for more than {BUSY_SECONDS:.0f} s. Wait for it or end it."
        elif state == "25006":
            step = READ_ONLY
        elif state == "25P03":
            step = (
                f"This process stood still in a transaction for {BUSY_SECONDS / 2:.0f} s, so it was undone. Try again."
            )
        elif state == "40P01":
            step = "Two processes waited for each other. Try again."
        elif any(words in " ".join(cause) for words in _DAMAGED):
            step = (
                "If it is a journal, it is damaged or was copied in part: restore a backup of it, or move it away. "
                "Else name another file in IVCAP_FLOWS_JOURNAL."
            )
        elif state in _OTHER_TABLES_ON_SERVER or any(words in " ".join(cause) for words in _OTHER_TABLES_IN_SQLITE):
            step = (
                "Its tables are not those of this version. If a newer version of ivcap-flows has opened it, upgrade "
                "here, too, and start again; if an upgrade was undone, start again. Never delete it: it has what was "
                "requested."
            )
        elif isinstance(error, DBAPIError) and not self.is_sqlite:
            step = "Check that the database server runs and that the URL in IVCAP_FLOWS_JOURNAL is right."
        else:
            step = "Check the path, its permissions and the free space, or name another in IVCAP_FLOWS_JOURNAL."
        return JournalError(
            f"The journal {self.url} cannot be {verb}: {cause[0] if cause else type(error).__name__}. {step}",
            url=self.url,
        )


class Place(Store):
    """A database that may have no journal, or one that is not in use. Opening it makes nothing, not even a file."""

    def _open(self) -> None:
        if self.path is None or self.path.exists():
            with self.engine.connect():
                pass

    def is_missing(self) -> bool:
        """Return whether there is no journal. Make nothing."""
        if self.path is not None and not self.path.exists():
            return True
        with self.read() as connection:
            return not sa.inspect(connection).has_table(journal_info.name)


def is_missing(url: str) -> bool:
    """Return whether there is no journal at a URL. Make nothing.

    Raise ConfigurationError for a URL or place that cannot hold one, and JournalError if it cannot be reached.
    """
    with closing(Place(url)) as place:
        return place.is_missing()


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise ConfigurationError(
            "The journal's URL cannot be read. Set IVCAP_FLOWS_JOURNAL to `sqlite:///<path>` or "
            "`postgresql://<user>@<host>/<database>`."
        ) from error


def _place_of(url: URL) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError(
            "The journal must outlive the process, so it needs a file: set IVCAP_FLOWS_JOURNAL to `sqlite:///<path>`."
        )
    return Path(url.database).expanduser().absolute()


def _sqlite(url: URL) -> Engine:
    path = _place_of(url)
    _check_place(path)
    engine = sa.create_engine(
        url.set(drivername="sqlite", database=str(path)), connect_args={"timeout": BUSY_SECONDS}, pool_size=8
    )

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        # The driver's own transactions begin too late to be atomic; `_began` replaces them.
        connection.isolation_level = None
        _check_owner(connection, path)
        _with_turns(connection, "PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        for name, wanted in _GRANTED.items():
            # SQLite ignores a setting that it cannot apply, without an error.
            [(granted,)] = connection.execute(f"PRAGMA {name}").fetchall()
            if granted != wanted:
                raise ConfigurationError(
                    f"The journal sqlite:///{path} would not be safe: SQLite set {name} to {granted!r} there instead "
                    f"of {wanted!r}. Name a path on a local disk in IVCAP_FLOWS_JOURNAL, or a PostgreSQL database.",
                    url=f"sqlite:///{path}",
                )

    @sa.event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        # A transaction that reads first and then writes fails if another has written in between. So a write transaction
        # takes the lock at its begin.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _check_owner(connection: Any, path: Path) -> None:
    """Raise ConfigurationError if a file is another program's, before anything of it is changed."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    if names and journal_info.name not in names:
        raise ConfigurationError(
            f"The file {path} is another program's: it has no journal, but {', '.join(sorted(names)[:3])}. Name "
            "another file in IVCAP_FLOWS_JOURNAL.",
            url=f"sqlite:///{path}",
        )


def _with_turns(connection: Any, statement: str) -> None:
    """Run a statement for which SQLite ignores its busy time-out, such as the first switch to WAL."""
    import sqlite3

    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute(statement).fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _check_place(path: Path) -> None:
    """Raise ConfigurationError or JournalError if a journal's file cannot be at a path. Make nothing."""
    url = f"sqlite:///{path}"
    kind = network_file_system(path)
    if kind is not None:
        raise ConfigurationError(
            f"The journal {url} is on a network or virtual file system ({kind}), where locks and writes are not "
            "reliable. Name a path on a local disk in IVCAP_FLOWS_JOURNAL, or a PostgreSQL database that all machines "
            "reach.",
            url=url,
        )
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        there = next(each for each in (path, *path.parents) if each.exists())
        if there != path and not there.is_dir():
            raise NotADirectoryError(f"{there} is no folder")
        if not os.access(there, os.R_OK | os.W_OK):
            raise PermissionError(f"{there} cannot be read and written by this user")
    except OSError as error:
        raise _not_opened(path, error) from error


def _not_opened(path: Path, error: OSError) -> JournalError:
    url = f"sqlite:///{path}"
    return JournalError(
        f"The journal {url} cannot be opened: {error}. Correct the path or its permissions, or name another in "
        "IVCAP_FLOWS_JOURNAL.",
        url=url,
    )


def _postgresql(url: URL) -> Engine:
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() != "postgresql":
        raise ConfigurationError(
            f"The journal {shown} is on an unsupported database. Set IVCAP_FLOWS_JOURNAL to `sqlite:///<path>` or "
            "`postgresql://<user>@<host>/<database>`.",
            url=shown,
        )
    try:
        # A statement that is prepared in one session is missing in the next one that a pooler gives us.
        asked = {"connect_timeout": 10, "prepare_threshold": None}
        asked |= {name: value for name, value in _GONE.items() if name not in url.query}
        # Above READ COMMITTED, who has waited for a lock does not see what its last holder wrote.
        engine = sa.create_engine(
            url, pool_size=8, pool_pre_ping=True, connect_args=asked, isolation_level="READ COMMITTED"
        )
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigurationError(
            f"The journal {shown} needs the PostgreSQL driver. Install it with `pip install 'ivcap-flows[postgres]'`.",
            url=shown,
        ) from error
    return engine
