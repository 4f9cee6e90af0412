"""The revisions of a journal's tables, and how each is made from the one before. CONTRIBUTING.md has the recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from ivcap_flows.journal import counters
from ivcap_flows.journal.schema import Json

if TYPE_CHECKING:
    from alembic.operations import BatchOperations, Operations
    from sqlalchemy.engine import Connection

__all__ = ["REVISIONS", "Revision", "altered", "missing", "newest", "number_of", "readable_from", "upgrade"]

_UNPUBLISHED: Final = "390b3954fa9c"
"""What the tables before revision 1 have as their version."""


@dataclass(frozen=True)
class Revision:
    """The tables of one revision. `package` is the first version of the package that has them.

    `adds_only` if older code may go on with them: there are only new tables, whose lack is right, and new columns that
    may be empty. A new state or outcome in a column is none of these. `apply` makes them from the tables of the
    revision before.
    """

    number: int
    package: str
    adds_only: bool
    apply: Callable[[Operations], None]


def _revision_1(op: Operations) -> None:
    # Code of before finds no column `move`, so it writes nothing into tables that it does not know.
    with altered(op, "journal_info") as table:
        table.alter_column("move", new_column_name="mark")
        table.add_column(sa.Column("readable_from", Json))


REVISIONS: Final[list[Revision]] = [Revision(1, "0.1.0", False, _revision_1)]
"""All revisions, oldest first."""


def newest() -> Revision:
    """Return the revision of the tables that this code has."""
    return REVISIONS[-1]


def missing(number: int) -> list[Revision]:
    """Return the revisions that come after one, oldest first."""
    return [revision for revision in REVISIONS if revision.number > number]


def number_of(version: str) -> int | None:
    """Return the number of a journal's revision, 0 for the tables before the first. None if nothing is known of it."""
    if version == _UNPUBLISHED:
        return 0
    return int(version) if version.isdecimal() else None


def readable_from() -> dict[str, Any]:
    """Return the first revision whose code may use the newest tables, as a journal says it."""
    first = [revision for revision in REVISIONS if not revision.adds_only][-1]
    return {"revision": first.number, "package": first.package}


@contextmanager
def altered(op: Operations, name: str) -> Iterator[BatchOperations]:
    """Change a table in the block: on PostgreSQL in place, on SQLite by a copy that takes its name.

    The copy keeps its counter, which SQLite and Alembic would forget.
    """
    connection = op.get_bind()
    counts = connection.dialect.name == "sqlite" and "AUTOINCREMENT" in _declared(connection, name)
    number = counters.last(connection, name, "seq") if counts else 0
    with op.batch_alter_table(name, table_kwargs={"sqlite_autoincrement": counts}) as table:
        yield table
    if counts:
        counters.continue_after(connection, name, "seq", number)


def upgrade(connection: Connection, revisions: Sequence[Revision]) -> None:
    """Make the tables of these revisions, one after the other, in the transaction of the connection."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    op = Operations(MigrationContext.configure(connection))
    for revision in revisions:
        revision.apply(op)


def _declared(connection: Connection, name: str) -> str:
    found = sa.text("SELECT sql FROM sqlite_master WHERE name = :name")
    return str(connection.execute(found, {"name": name}).scalar_one())
