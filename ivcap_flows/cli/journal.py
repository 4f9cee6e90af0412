"""`ivcap-flows journal`: move the journal to another database."""

from __future__ import annotations

from typing import Annotated

import cyclopts
from cyclopts import Parameter

from ivcap_flows.cli.output import Json, console, print_json, table

__all__ = ["app"]

app = cyclopts.App(name="journal", help="Move the journal to another database.")


@app.command
def move(
    source: Annotated[str, Parameter(name="FROM")],
    target: Annotated[str, Parameter(name="TO")],
    /,
    *,
    as_json: Json = False,
) -> None:
    """Move a journal from SQLite to PostgreSQL, back, or to another database of the same kind, and close it where it
    was.

    No process may use it meanwhile. Its id, and all that its runs have requested, stay as they are, so runs that are
    parked or unfinished continue at the new place. Every process that opens the old place is refused. Start a command
    that was interrupted again: it finishes.

    Args:
        source: URL of the journal, as in IVCAP_FLOWS_JOURNAL.
        target: URL of an empty database, or of a file that does not exist.
    """
    from ivcap_flows.journal.moves import move as move_journal

    moved = move_journal(source, target)
    if as_json:
        print_json(moved)
        return
    table(f"Moved to {moved.target}", ("table", "rows"), [(name, str(rows)) for name, rows in moved.rows.items()])
    console.print(f"{moved.source} is closed. Name the new place in IVCAP_FLOWS_JOURNAL wherever flows run.")
