"""Provenance facts, in the order in which they were written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa
from pydantic_core import PydanticSerializationError
from sqlalchemy.engine import Connection, RowMapping

from ivcap_flows.journal import schema
from ivcap_flows.journal.rows import Fact
from ivcap_flows.journal.store import Store
from ivcap_flows.provenance.records import Record, content_of
from ivcap_flows.secrets import scrub

__all__ = ["PAGE", "Facts"]

PAGE: Final = 1000
"""Facts per page."""

_F = schema.facts
_WRITTEN: Final = ("run_id", "attempt_id", "recorded_at", "record_id", "source", "target", "record", "type", "version")
_SELECT = sa.select(_F.c.seq, _F.c.run_id, _F.c.attempt_id, _F.c.recorded_at, _F.c.record)
_LONE: Final = re.compile("[\ud800-\udfff]")


class Facts:
    """The facts of one journal. Facts are appended, never changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        place = "?" if store.is_sqlite else "%s"
        columns = ", ".join(_WRITTEN)
        self._insert = f"INSERT INTO {_F.name} ({columns}) VALUES ({', '.join(place for _ in _WRITTEN)})"  # noqa: S608

    def append(self, facts: Sequence[Fact]) -> None:
        """Write facts in one transaction: all or none. The database assigns each its `seq`."""
        if facts:
            attributes = _kept(facts)
            with self._store.write() as connection:
                self._append(connection, facts, attributes)

    def append_in(self, connection: Connection, facts: Sequence[Fact]) -> None:
        """Write facts in a transaction of the caller, as the first thing in it, since writers of facts take turns."""
        if facts:
            self._append(connection, facts, _kept(facts))

    def _append(self, connection: Connection, facts: Sequence[Fact], attributes: Sequence[dict[str, Any]]) -> None:
        # A `seq` is assigned before the commit. Without turns, a reader that pages by `seq` could miss one.
        self._store.take_turns(connection, "facts")
        now = schema.Instant.stored(self._store.now(connection))
        # SQLAlchemy's processing of a row takes longer than SQLite's write.
        connection.exec_driver_sql(
            self._insert, [_row(fact, now, kept) for fact, kept in zip(facts, attributes, strict=True)]
        )

    def of_run(self, run_id: str, *, after: int = 0, limit: int = PAGE) -> list[Fact]:
        """Return a page of a run's facts: those with `seq` above `after`."""
        return self._page(_SELECT.where(_F.c.run_id == run_id, _F.c.seq > after), limit)

    def all_of_run(self, run_id: str, *, after: int = 0) -> Iterator[Fact]:
        """Yield a run's facts with `seq` above `after`, page by page."""
        while page := self.of_run(run_id, after=after):
            yield from page
            after = page[-1].seq

    def about(self, record_id: str, *, after: int = 0, limit: int = PAGE) -> list[Fact]:
        """Return a page of the facts of all runs about a thing: its records and the relations from and to it."""
        named = sa.or_(_F.c.record_id == record_id, _F.c.source == record_id, _F.c.target == record_id)
        return self._page(_SELECT.where(named, _F.c.seq > after), limit)

    def since(self, after: int, *, limit: int = PAGE) -> list[Fact]:
        """Return a page of all facts with `seq` above `after`. No fact with a lower `seq` appears later."""
        return self._page(_SELECT.where(_F.c.seq > after), limit)

    def newest(self) -> int:
        """Return the `seq` of the newest fact of all runs, or 0 if there is none."""
        with self._store.read() as connection:
            return connection.execute(sa.select(sa.func.max(_F.c.seq))).scalar() or 0

    def last_seq(self, run_id: str) -> int:
        """Return the `seq` of a run's newest fact, or 0 if there is none."""
        with self._store.read() as connection:
            return connection.execute(sa.select(sa.func.max(_F.c.seq)).where(_F.c.run_id == run_id)).scalar() or 0

    def _page(self, query: sa.Select[tuple[object, ...]], limit: int) -> list[Fact]:
        with self._store.read() as connection:
            return [_fact(row) for row in connection.execute(query.order_by(_F.c.seq).limit(limit)).mappings()]


def _kept(facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """Return the attributes of facts without secrets, whoever wrote the facts.

    A secret found in one fact is hidden in all the others, too.
    """
    kept: list[dict[str, Any]] = scrub([fact.record.attributes for fact in facts])
    return kept


def _row(fact: Fact, now: int, attributes: dict[str, Any]) -> tuple[str | int | None, ...]:
    """Return the values of a fact in the order of `_WRITTEN`."""
    record = fact.record
    if attributes is not record.attributes:
        record = record.model_copy(update={"attributes": attributes})
    try:
        said = record.model_dump_json(exclude_defaults=True)
    except PydanticSerializationError:
        record = _readable(record)
        said = record.model_dump_json(exclude_defaults=True)
    return (
        *(fact.run_id, fact.attempt_id, now, record.id, record.source, record.target),
        *(said, record.type, _version(record)),
    )


def _readable(record: Record) -> Record:
    """Return the record with lone surrogates, such as those in a file name, as escapes like `\\udcff`."""
    said = json.dumps(record.model_dump(), ensure_ascii=False, default=str)
    return Record.model_validate_json(_LONE.sub(lambda found: rf"\\u{ord(found.group()):04x}", said))


def _version(record: Record) -> str | None:
    """Return what identifies a thing beside its id: the sha256 of its content, or the commit of code."""
    if record.kind != "entity":
        return None
    version = content_of(record) or record.attributes.get("commit")
    return version if isinstance(version, str) else None


def _fact(row: RowMapping) -> Fact:
    return Fact(
        record=Record.model_validate_json(row["record"]),
        run_id=row["run_id"],
        attempt_id=row["attempt_id"],
        seq=row["seq"],
        recorded_at=row["recorded_at"],
    )
