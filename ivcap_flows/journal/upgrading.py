"""The upgrade of a journal's tables to the newest revision, and on SQLite the way back. Imported only for one.

An upgrade is one transaction, which nothing else writes beside. On SQLite, a copy of the file is made first. Two
journals with one id would each take the other's records on IVCAP for its own, so the copy has a mark by which nobody
opens it. To undo an upgrade, the journal itself is marked, then it gets the content of the copy with the copy's mark,
and then that mark is taken away: whatever ends this process, at most one file can be used.
"""

from __future__ import annotations

import glob
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from ivcap_flows.errors import ConfigurationError, InputError, JournalError
from ivcap_flows.journal import revisions
from ivcap_flows.journal.info import Info
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.redaction import key_file_of
from ivcap_flows.journal.schema import journal_info
from ivcap_flows.journal.store import Place, Store
from ivcap_flows.journal.untold import Untold
from ivcap_flows.secrets import logger_of
from ivcap_flows.whole_file import whole_file, write_private

__all__ = ["copy_of", "outlook_of", "undo", "upgrade"]

logger = logger_of("ivcap_flows.journal")

PATIENCE: Final = 60.0
"""Seconds for which to wait for processes of older code, and for the database."""
_PAUSE: Final = 0.5
_ROOM: Final = 3
"""How often the journal must fit into the free space: its copy, the changed tables, and what SQLite writes of them."""
_NAMED: Final = 5
"""The maximum number of requests that an error names."""
_RUNS: Final = "SELECT id, updated_at FROM runs"
_REQUESTS: Final = "SELECT noun, coalesce(name, urn, key), sent_at FROM intents"


class _InUseError(Exception):
    """What an upgrade has to wait for, as a sentence."""


def upgrade(store: Store) -> None:
    """Bring the tables of a journal to the newest revision.

    If code of the revision before cannot go on with them, wait for its processes first. Raise JournalError if that
    takes more than `PATIENCE` seconds, or if the disk has too little room; nothing is changed then.
    """
    end, waits = time.monotonic() + PATIENCE, False
    while True:
        late = time.monotonic() >= end
        try:
            with _alone(store) as connection:
                info = store.usable(connection)
                missing = [] if info is None or info.number is None else revisions.missing(info.number)
                if info is None or not missing:
                    return
                store.journal_id = info.id
                if not all(revision.adds_only for revision in missing):
                    _wait_for(store, connection)
                logger.warning("%s", _outlook(store, info))
                if store.is_sqlite:
                    _set_aside(store, info)
                _change(connection, missing)
                return
        except _InUseError as reason:
            if not waits:
                logger.warning("The journal %s is to be upgraded: %s. This is waited for.", store.url, reason)
                waits = True
            if late:
                raise JournalError(
                    f"The journal {store.url} cannot be upgraded: {reason}. Start again when that has ended.",
                    url=store.url,
                ) from None
            time.sleep(_PAUSE)


def _outlook(store: Store, info: Info) -> str:
    """Return what an upgrade does to a journal, as sentences."""
    number = revisions.newest().number
    if info.number is None or not revisions.missing(info.number):
        return f"The journal {store.url} has the newest tables that this version knows (revision {number})."
    way_back = "On PostgreSQL there is no way back but a backup."
    if store.is_sqlite:
        copy = copy_of(_file_of(store), info.number)
        way_back = f"What it was is kept in {copy}; `ivcap-flows journal upgrade --undo` goes back to it."
    return f"The journal {store.url} gets tables of revision {number}; it has {info.number}. {way_back}"


def copy_of(path: Path, number: int) -> Path:
    """Return the file in which an SQLite journal is kept as it was with the tables of a revision."""
    return path.with_name(f"{path.name}.revision-{number}")


@contextmanager
def _alone(store: Store) -> Iterator[Connection]:
    """Run a transaction beside which nothing else writes. Raise _InUseError if others use what it needs.

    On a server, who waits for it holds nothing that it needs: it gives up first.
    """
    with store.engine.connect() as plain:
        if store.is_sqlite:
            # A table that is replaced by its copy must not take along what refers to it. Not possible in a transaction.
            plain.connection.cursor().execute("PRAGMA foreign_keys = OFF")
        connection = plain.execution_options(writes=True)
        try:
            with connection.begin():
                if not store.is_sqlite:
                    connection.execute(sa.text("SET LOCAL lock_timeout = '500ms'"))
                    connection.execute(sa.text(f"LOCK TABLE {journal_info.name} IN ACCESS EXCLUSIVE MODE"))
                yield connection
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == "55P03" or "database is locked" in str(error.orig):
                raise _InUseError("another process is at work in it") from error
            raise store.failure("upgraded", error) from error
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise store.failure("upgraded", error) from error
        finally:
            # The next transaction gets a connection with the settings of all others.
            plain.invalidate()


def _wait_for(store: Store, connection: Connection) -> None:
    """Raise _InUseError if a process uses the journal. It has older code: newer code upgrades the journal first."""
    living = Processes(store, Untold()).living(connection)
    if living:
        names = ", ".join(f"{process.pid} on {process.host}" for process in living)
        raise _InUseError(f"these processes use it with an older version of ivcap-flows: {names}")


def _change(connection: Connection, missing: list[revisions.Revision]) -> None:
    revisions.upgrade(connection, missing)
    version = {"version": str(revisions.newest().number), "readable_from": revisions.readable_from()}
    connection.execute(sa.update(journal_info).values(version))
    if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise OperationalError("foreign_key_check", None, sqlite3.IntegrityError("a row refers to none"))


def _set_aside(store: Store, info: Info) -> Path:
    """Keep a journal as it is now in a file that nobody opens as one, with its key file."""
    path = _file_of(store)
    need, free = _ROOM * path.stat().st_size, shutil.disk_usage(path.parent).free
    if free < need:
        raise JournalError(
            f"The journal {store.url} cannot be upgraded: {need / 1e6:,.0f} MB must be free in {path.parent}, and "
            f"{free / 1e6:,.0f} MB are. Make room, and start again. Nothing was changed.",
            url=store.url,
        )
    copy = copy_of(path, info.number or 0)
    for leftover in copy.parent.glob(f".{glob.escape(copy.name)}.*.part-*"):
        # SQLite's own files, of a copy whose maker was killed.
        leftover.unlink(missing_ok=True)
    with whole_file(copy) as new:
        # Before anything is in it.
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _copy(path, new)
        _mark(new, {"id": str(uuid.uuid4()), "to": f"sqlite:///{path}"})
        if (key := key_file_of(path)).exists():
            write_private(key_file_of(copy), key.read_text("ascii"))
    return copy


def outlook_of(url: str) -> str:
    """Return what an upgrade would do to the journal at a URL, as sentences.

    Raise InputError if there is none, NewerSchemaError if it is a newer version's, and JournalMovedError.
    """
    with closing(Place(url)) as place:
        info = _info(place)
        with place.read() as connection:
            place.usable(connection)
        return _outlook(place, info)


def undo(url: str, *, lose: bool = False) -> Path:
    """Take back the last upgrade of an SQLite journal, or finish what an earlier call began.

    Return the file with what it was before, and is again. What was upgraded is kept in a file, too. Raise InputError if
    there is no journal or no copy of it, or if `lose` is not set and runs or requests would be lost; ConfigurationError
    for a journal on a server; JournalMovedError if it is not in use here; and JournalError if a process uses it, or a
    file cannot be read or written.
    """
    with closing(Place(url)) as place:
        path = _file_of(place)
        info = _info(place)
        if info.mark is None:
            info = _give_up(place, lose)
        if info.mark is not None and "undo" in info.mark:
            info = _restored(place, info)
        if info.mark is None or info.mark.get("to") != f"sqlite:///{path}":
            raise place.moved(info.mark or {})
        with _alone(place) as connection:
            info.marked(connection, None)
        return copy_of(path, info.number or 0)


def _give_up(place: Place, lose: bool) -> Info:
    """Mark a journal whose upgrade is to be undone, so that nobody uses it any more."""
    try:
        with _alone(place) as connection:
            info = _info(place)
            copy = _copy_before(place, info)
            _wait_for(place, connection)
            lost = _lost(_file_of(place), copy)
            if lost and not lose:
                raise InputError(
                    f"The journal {place.url} would lose what was recorded since its upgrade: {', '.join(lost)}. Its "
                    "runs would look for these requests on the platforms, by their keys. Add `--lose` to do it; a copy "
                    "is kept."
                )
            _set_aside(place, info)
            info.marked(connection, {"id": str(uuid.uuid4()), "to": f"sqlite:///{copy}", "undo": True})
    except _InUseError as reason:
        raise JournalError(
            f"The upgrade of the journal {place.url} cannot be undone: {reason}. Start again when that has ended.",
            url=place.url,
        ) from None
    return _info(place)


def _restored(place: Place, info: Info) -> Info:
    """Give a journal the content of its copy, in one transaction of SQLite. It is marked as the copy is."""
    path, copy = _file_of(place), _copy_before(place, info)
    try:
        _mark(copy, {"id": str(uuid.uuid4()), "to": f"sqlite:///{path}"})
        _copy(copy, path)
    except sqlite3.Error as error:
        raise place.failure("taken back", error) from error
    return _info(place)


def _copy_before(place: Place, info: Info) -> Path:
    """Return the newest copy that was made of a journal before an upgrade. Raise InputError if there is none."""
    path = _file_of(place)
    copies = [copy for number in range(info.number or 0) if (copy := copy_of(path, number)).exists()]
    own = [copy for copy in copies if _info_of(copy).id == info.id]
    if own:
        # One of a higher number may be left of an upgrade that was undone.
        return max(own, key=lambda copy: copy.stat().st_mtime_ns)
    raise InputError(f"There is no copy of {place.url} from before an upgrade beside it, so none can be undone.")


def _lost(path: Path, copy: Path) -> list[str]:
    """Return what a journal has recorded that its copy does not have, as words."""
    with closing(sqlite3.connect(path)) as newer, closing(sqlite3.connect(copy)) as older:
        runs, requests = (
            set(newer.execute(query)) - set(older.execute(query))
            for query in (
                "SELECT id, updated_at FROM runs",
                "SELECT noun, coalesce(name, urn, key), sent_at FROM intents",
            )
        )
    words = [f"the {noun} {name}" for noun, name, sent_at in sorted(requests, key=str) if sent_at is not None]
    shown = words[:_NAMED] + [f"{len(words) - _NAMED} more requests"] * (len(words) > _NAMED)
    return ([f"{len(runs)} run{'s' * (len(runs) > 1)}"] if runs else []) + shown


def _copy(source: Path, target: Path) -> None:
    """Give one file the content of another, as one transaction in both."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


def _mark(path: Path, mark: dict[str, Any]) -> None:
    with closing(Place(f"sqlite:///{path}")) as place, place.write() as connection:
        _info(place).marked(connection, mark)


def _info_of(path: Path) -> Info:
    with closing(Place(f"sqlite:///{path}")) as place:
        return _info(place)


def _info(place: Place) -> Info:
    if not place.is_missing():
        with place.read() as connection:
            if (info := Info.read(connection)) is not None:
                return info
    raise InputError(f"There is no journal {place.url}. Name the one that the flows have used.")


def _file_of(store: Store) -> Path:
    """Return the file of a journal, not a link to it."""
    if store.path is None:
        raise ConfigurationError(
            "An upgrade of a journal on PostgreSQL cannot be undone. Restore a backup from before it: `pg_restore`.",
            url=store.url,
        )
    return store.path.resolve()
