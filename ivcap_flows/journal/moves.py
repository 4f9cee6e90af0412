"""Moves of a journal to another database: whole, with its id, and closed at its old place.

Two journals with one id would each take the other's records on IVCAP for its own. So at no moment may both ends be
used, whatever ends this process:

1. The source is locked until step 3 has ended: nothing else writes it.
2. The copy is compared with the source, and committed at the target with a mark that it is not in use.
3. The source is marked as moved.
4. The mark at the target is removed.

Before step 3 ends, the source is in use as before, and the next move replaces the copy. After it, only step 4 is left
to do. The marks of both ends name the move, so that a copy that an earlier one left is never taken for this one's.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Row
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import TypeDecorator, TypeEngine

from ivcap_flows.errors import InputError, JournalError
from ivcap_flows.journal import counters, revisions
from ivcap_flows.journal.info import Info
from ivcap_flows.journal.processes import Processes
from ivcap_flows.journal.redaction import check_key_file, keep_key, kept_key
from ivcap_flows.journal.schema import journal_info, metadata, redaction_keys
from ivcap_flows.journal.store import CREATION, Place, is_missing
from ivcap_flows.journal.untold import Untold
from ivcap_flows.secrets import scrub_text

__all__ = ["Moved", "move"]

_COPIED: Final = [table for table in metadata.sorted_tables if table not in (journal_info, redaction_keys)]
"""The tables whose rows are copied as they are, those that others refer to first."""
_AT_ONCE: Final = 1000
"""Rows of a table in memory."""
_STILL: Final = "600s"
"""How long the source may hear nothing of this process, such as while the target commits."""


@dataclass(frozen=True)
class Moved:
    """A journal that was moved; `rows` are those of each table at its new place."""

    journal: str
    source: str
    target: str
    rows: dict[str, int]


class _End(Place):
    """A database at one end of a move."""

    @property
    def place(self) -> str:
        """The URL without its password, as others may name it in IVCAP_FLOWS_JOURNAL."""
        if self.path is not None:
            return f"sqlite:///{self.path}"
        url = self.engine.url
        bare = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
        return scrub_text(bare.render_as_string())

    def glance(self) -> Info | None:
        """Return what the journal says of itself, or None if there is none. Make nothing."""
        if self.is_missing():
            return None
        with self.read() as connection:
            return Info.read(connection)

    def keep_others_out(self, connection: Connection) -> None:
        """Let nothing else write the journal until the end of the transaction. Readers of its rows go on."""
        if not self.is_sqlite:
            still = sa.text("SELECT set_config('idle_in_transaction_session_timeout', :still, true)")
            connection.execute(still, {"still": _STILL})
            # Each transaction that writes reads this table first, and keeps that lock to its end.
            connection.execute(sa.text(f"LOCK TABLE {journal_info.name} IN ACCESS EXCLUSIVE MODE"))

    def pages(self, connection: Connection, table: sa.TableClause) -> Iterator[Sequence[Row[Any]]]:
        """Yield all rows of a table, some at a time. Raise JournalError if they cannot be read."""
        try:
            options = {"yield_per": _AT_ONCE}
            yield from connection.execute(sa.select(table), execution_options=options).partitions()
        except SQLAlchemyError as error:
            raise self.failure("read", error) from error

    def rows(self, connection: Connection) -> dict[str, int]:
        """Return the number of rows of each table."""
        counted = ((table, sa.select(sa.func.count()).select_from(table)) for table in _COPIED)
        return {table.name: connection.execute(count).scalar_one() for table, count in counted}


def move(source: str, target: str) -> Moved:
    """Move the journal of one URL to another, or finish a move that was interrupted.

    Raise InputError if there is no journal, or the target is not empty; NewerSchemaError if another version made it;
    JournalMovedError if it was moved elsewhere; JournalKeyError without its key; and JournalError if a process uses it,
    or a database cannot be read or written.
    """
    if is_missing(source):
        raise _no_journal(source)
    with closing(_End(source)) as old, closing(_End(target)) as new:
        return _move(old, new)


def _info(old: _End, connection: Connection) -> Info:
    """Return what the journal to be moved says of itself. Raise InputError if there is none."""
    if (info := Info.read(connection)) is None:
        raise _no_journal(old.place)
    old.journal_id = info.id
    return info


def _processes(old: _End, connection: Connection) -> Processes:
    """Return the processes of the journal. Raise JournalError if one of them seems to run."""
    processes = Processes(old, Untold())
    if not (living := processes.living(connection)):
        return processes
    raise JournalError(
        f"The process {living[0].pid} on {living[0].host} uses the journal {old.place}. Start the command again when "
        "it has ended; that of a process on another machine is known within a minute.",
        url=old.place,
    )


def _move(old: _End, new: _End) -> Moved:
    # Before anything is locked: one end would wait for the other.
    if (info := old.glance()) == new.glance():
        raise InputError(f"{old.place} and {new.place} are the same journal. Name an empty database as the second.")
    if info is not None and info.mark is None:
        old.upgrade(info)
    with old.write() as reading:
        old.keep_others_out(reading)
        arriving = _copied(old, reading, new)
    with new.write() as writing:
        there = Info.read(writing)
        if there is not None and arriving is not None and there.mark == arriving:
            there.marked(writing, None)
        return Moved(old.journal_id, old.place, new.place, new.rows(writing))


def _copied(old: _End, reading: Connection, new: _End) -> dict[str, Any] | None:
    """Have the copy at the target and the source marked as moved.

    Return the mark of the copy, or None if an earlier command has removed it.
    """
    info = _info(old, reading)
    if info.mark is not None:
        return _mark_of_copy(old, info.id, info.mark, new)
    if info.number != revisions.newest().number:
        # A column that this code does not know would be lost.
        raise old.newer(info)
    # Locks stay behind, and heartbeats arrive young: the dead would count as alive for a minute.
    _processes(old, reading).note_deaths(reading)
    key = kept_key(old, reading)
    if key is not None:
        check_key_file(new, key)
    # Only now, so that a move that is refused leaves no file.
    new.make_file()
    name = str(uuid.uuid4())
    arriving = {"id": name, "from": old.place}
    with new.write() as writing:
        new.take_turns(writing, CREATION)
        _empty(new, writing, info.id)
        metadata.create_all(writing)
        row = reading.execute(sa.select(journal_info)).mappings().one()
        writing.execute(sa.insert(journal_info), {**row, "key_check": None, "mark": arriving})
        if key is not None:
            keep_key(new, writing, info.id, key)
        for table in _COPIED:
            _copy(table, old, reading, new, writing)
    info.marked(reading, {"id": name, "to": new.place})
    return arriving


def _mark_of_copy(old: _End, journal: str, moved: dict[str, Any], new: _End) -> dict[str, Any] | None:
    """Return the mark of the copy that the move of the source made. Raise JournalMovedError if it is not there."""
    there = new.glance()
    if "to" in moved and there is not None and there.id == journal:
        mark = there.mark
        if mark is None or (mark["id"] == moved["id"] and "from" in mark):
            return mark
    raise old.moved(moved)


def _empty(new: _End, connection: Connection, journal_id: str) -> None:
    """Remove what an interrupted move of this journal left. Raise InputError if the target has anything else."""
    tables = set(sa.inspect(connection).get_table_names())
    if not (tables if new.is_sqlite else tables & metadata.tables.keys()):
        return
    info = Info.read(connection)
    if info is None or info.id != journal_id or "from" not in (info.mark or {}):
        raise InputError(
            f"{new.place} is not empty, and a journal is moved into an empty database only. Name a file that does not "
            "exist, or make a database for it: `createdb NAME`."
        )
    metadata.drop_all(connection)


def _copy(table: sa.Table, old: _End, reading: Connection, new: _End, writing: Connection) -> None:
    """Copy all rows of a table, and its counters. Raise JournalError if the target returns any of them changed."""
    plain = sa.table(table.name, *(sa.column(column.name, _as_stored(column.type)) for column in table.columns))
    names = [column.name for column in table.columns]
    sent = received = (0, 0)
    for rows in old.pages(reading, plain):
        writing.execute(sa.insert(plain), [dict(zip(names, row, strict=True)) for row in rows])
        sent = _counted(sent, rows)
    for rows in new.pages(writing, plain):
        received = _counted(received, rows)
    if sent != received:
        raise JournalError(
            f"{new.place} returned other rows of {table.name} than it was given. Nothing was moved; name another "
            "database.",
            url=new.place,
        )
    for column in table.columns:
        # In SQLite, `Store.numbered` counts the columns with an identity.
        if column is table.autoincrement_column or (column.identity is not None and not new.is_sqlite):
            counters.continue_after(writing, table.name, column.name, counters.last(reading, table.name, column.name))


def _as_stored(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type of a column whose values are left as the database stores them, so that none changes."""
    return kind.impl_instance if isinstance(kind, TypeDecorator) else kind


def _counted(seen: tuple[int, int], rows: Sequence[Row[Any]]) -> tuple[int, int]:
    """Add rows to their number and the sum of their digests, which is the same in any order."""
    count, total = seen
    for row in rows:
        told = repr(tuple(row)).encode("utf-8", "surrogatepass")
        total += int.from_bytes(hashlib.blake2b(told, digest_size=16).digest(), "big")
    return count + len(rows), total


def _no_journal(place: str) -> InputError:
    return InputError(f"There is no journal {scrub_text(place)}. Name the one that the flows have used.")
