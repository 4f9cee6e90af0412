"""The row that describes a journal, read from the tables of any revision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ivcap_flows.journal import revisions
from ivcap_flows.journal.schema import Json, journal_info

__all__ = ["Info"]

_ROW = sa.text("SELECT * FROM journal_info")
"""All columns, whatever they are."""


@dataclass(frozen=True)
class Info:
    """What a journal says of itself.

    `number` is that of its revision, None if this code cannot know it. `mark` is set while the journal may not be used.
    `first_reader` is the first revision whose code may use it, `package` the version that has that revision.
    """

    id: str
    version: str
    number: int | None
    mark: dict[str, Any] | None
    mark_column: str
    first_reader: int
    package: str | None

    @classmethod
    def read(cls, connection: Connection) -> Info | None:
        """Return what the journal says, or None if there is none."""
        if not sa.inspect(connection).has_table(journal_info.name):
            return None
        row = connection.execute(_ROW).mappings().first()
        if row is None or not {"id", "version"} <= row.keys():
            # Another program's.
            return None
        number = revisions.number_of(row["version"])
        # Before revision 1 there was no other revision to be read.
        column = "mark" if "mark" in row else "move"
        reader = _value(row.get("readable_from")) or {"revision": number or 0, "package": None}
        return cls(
            row["id"], row["version"], number, _value(row.get(column)), column, reader["revision"], reader["package"]
        )

    def marked(self, connection: Connection, mark: dict[str, Any] | None) -> None:
        """Set the mark, or take it away."""
        table = sa.table(journal_info.name, sa.column(self.mark_column, Json))
        connection.execute(sa.update(table).values({self.mark_column: mark}))


def _value(stored: str | None) -> Any:
    return Json().process_result_value(stored, None)  # type: ignore[arg-type]
