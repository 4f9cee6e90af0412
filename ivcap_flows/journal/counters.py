"""The counters that number the rows of a table: the next row gets a higher number than any had, also a deleted one."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

__all__ = ["continue_after", "last"]

_LAST_IN_SQLITE = "SELECT seq FROM sqlite_sequence WHERE name = :table"
_LAST_ON_SERVER = "SELECT pg_sequence_last_value(CAST(pg_get_serial_sequence(:table, :column) AS regclass))"
_SET_ON_SERVER = "SELECT setval(pg_get_serial_sequence(:table, :column), :last)"


def last(connection: Connection, table: str, column: str) -> int:
    """Return the highest number that a column ever had: cursors of sinks may name one whose row is deleted."""
    highest = connection.execute(sa.select(sa.func.max(sa.column(column))).select_from(sa.table(table))).scalar()
    counter = _LAST_IN_SQLITE if connection.dialect.name == "sqlite" else _LAST_ON_SERVER
    return max(highest or 0, connection.execute(sa.text(counter), {"table": table, "column": column}).scalar() or 0)


def continue_after(connection: Connection, table: str, column: str, number: int) -> None:
    """Give the next row of a table a higher number than this one. In SQLite the table counts by AUTOINCREMENT."""
    names = {"table": table, "column": column, "last": number}
    if connection.dialect.name == "sqlite":
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :table"), names)
        connection.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :last)"), names)
    elif number:
        connection.execute(sa.text(_SET_ON_SERVER), names)
