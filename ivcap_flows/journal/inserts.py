"""Inserts of rows that may exist already, in the syntax that SQLite and PostgreSQL share.

SQLAlchemy has such an insert for each dialect, but compiles it at every execution (`inherit_cache = False`), which
takes longer than the database's work.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["InsertNew", "InsertOver"]


class InsertNew(sa.Insert):
    """An insert that leaves an existing row unchanged."""

    inherit_cache = True


class InsertOver(sa.Insert):
    """An insert that replaces the given columns of an existing row with the same primary key."""

    inherit_cache = True


@compiles(InsertNew)
def _new(insert: InsertNew, compiler: SQLCompiler, **options: Any) -> str:
    text: str = compiler.visit_insert(insert, **options)  # type: ignore[no-untyped-call]
    return f"{text} ON CONFLICT DO NOTHING"


@compiles(InsertOver)
def _over(insert: InsertOver, compiler: SQLCompiler, **options: Any) -> str:
    text: str = compiler.visit_insert(insert, **options)  # type: ignore[no-untyped-call]
    quote = compiler.preparer.quote
    keys = [column.name for column in insert.table.primary_key]
    changed = [name for name in compiler.column_keys or () if name not in keys]
    setting = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in changed)
    return f"{text} ON CONFLICT ({', '.join(map(quote, keys))}) DO UPDATE SET {setting}"
