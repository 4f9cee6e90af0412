"""The platforms' own books: what they have that they had not before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from ivcap_flows.local.directory import Directory

__all__ = ["Ledger", "provena_of", "rows_of"]


def rows_of(database: Path, query: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(query, values).fetchall()


def provena_of(directory: Path) -> Path:
    """Where the embedded Provena keeps what it has."""
    return Directory(directory).root / "provena.sqlite"


class Ledger:
    """Of the embedded platforms in a folder, from now on."""

    def __init__(self, directory: Path) -> None:
        self._ivcap, self._provena = Directory(directory).database, provena_of(directory)
        self._before = {
            table: self._newest(table) for table in ("orders", "artifacts", "aspects", "provena.items", "provena.jobs")
        }

    def orders(self) -> list[str]:
        return self._since("orders", "id")

    def artifacts(self) -> list[str]:
        """Those that no job made."""
        return self._since("artifacts", "id", "job IS NULL")

    def aspects(self, schema: str) -> list[str]:
        """Also those that were retracted."""
        return self._since("aspects", "id", "schema = ?", schema)

    def items(self, subtype: str) -> list[str]:
        """The display names of what is in Provena's registry."""
        return self._since("provena.items", "display_name", "item_subtype = ?", subtype)

    def lodged(self) -> list[str]:
        """The jobs that were to register a model run."""
        return self._since("provena.jobs", "session_id", "job_sub_type = 'MODEL_RUN_PROV_LODGE'")

    def _since(self, table: str, column: str, which: str = "1", *values: str) -> list[str]:
        database, name = self._place(table)
        query = f"SELECT {column} FROM {name} WHERE rowid > ? AND {which}"
        return [str(found) for (found,) in rows_of(database, query, self._before[table], *values)]

    def _newest(self, table: str) -> int:
        database, name = self._place(table)
        [(newest,)] = rows_of(database, f"SELECT COALESCE(MAX(rowid), 0) FROM {name}")
        return int(newest)

    def _place(self, table: str) -> tuple[Path, str]:
        room, _, name = table.rpartition(".")
        return self._provena if room else self._ivcap, name
