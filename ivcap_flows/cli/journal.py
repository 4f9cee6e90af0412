"""`ivcap-flows journal`: move the journal to another database, upgrade its tables, and undo that."""

from __future__ import annotations

from typing import Annotated

import cyclopts
from cyclopts import Parameter

from ivcap_flows.cli.output import Json, console, print_json, table
from ivcap_flows.errors import InputError
from ivcap_flows.secrets import scrub_text
from ivcap_flows.settings import Settings

__all__ = ["app"]

app = cyclopts.App(name="journal", help="Move the journal to another database, or upgrade its tables.")


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


@app.command
def upgrade(*, undo: bool = False, lose: bool = False) -> None:
    """Bring the tables of the journal to those of this version, as every command and flow does that opens it.

    What is parked, in doubt or unfinished goes on. Where code of before cannot use the new tables, the command waits a
    minute for its processes, and then names those that are left. On SQLite, the journal is kept as it was.

    Args:
        undo: Give a journal on SQLite what it was before. Then go on with the version of before: this one upgrades it
            again when it opens it.
        lose: With `--undo`, also if runs or requests that were recorded since would be lost.
    """
    from ivcap_flows.journal import Journal
    from ivcap_flows.journal.upgrading import outlook_of
    from ivcap_flows.journal.upgrading import undo as undo_upgrade

    url = Settings().journal
    if lose and not undo:
        raise InputError("`--lose` belongs to `--undo`.")
    if undo:
        console.print(f"{scrub_text(url)} is again what {undo_upgrade(url, lose=lose)} has. Go on with that version.")
        return
    console.print(outlook_of(url))
    Journal.open(url).close()
