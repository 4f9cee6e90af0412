"""The output of commands: tables for people and JSON for programs on standard output, errors on standard error."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

__all__ = ["Full", "Json", "brief", "complain", "console", "emit", "moment", "table"]

Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON instead of tables.")]
Full = Annotated[bool, Parameter(name="--full", negative=(), help="Print complete ids on a terminal, too.")]

_OURS: Final = re.compile("^urn:ivcap(-flows)?:")
_DIGITS: Final = re.compile("([0-9a-f]{8})(?:(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{24,})")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console: Final = _Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=4000)
"""Wider than any line, so that URNs stay whole and can be copied and searched for; a terminal wraps them. Markup is
off: brackets and colons in users' names are printed as they are."""


def brief(id_: str, *, full: bool) -> str:
    """Shorten an id for a terminal: drop its namespace and most of its digits, unless `full` is set.

    Output to a file or another program has complete ids.
    """
    return id_ if full or not console.is_terminal else _DIGITS.sub(r"\1…", _OURS.sub("", id_))


def moment(value: datetime | None) -> str:
    """Format a time in the local time zone, to the second."""
    return value.astimezone().strftime("%Y-%m-%d %H:%M:%S") if value else ""


def emit(value: Any) -> None:
    """Print a value as one JSON document, with times in ISO 8601."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def complain(error: Exception) -> None:
    """Print an error on standard error, as one line with the error's class."""
    print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return vars(value) if hasattr(value, "__dict__") else str(value)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, or one line that says "none" if there are no rows."""
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        grid.add_column(column, no_wrap=True)
    for row in rows:
        grid.add_row(*(" ".join(cell.split()) for cell in row))
    if grid.row_count:
        console.print(grid)
    else:
        console.print(f"{title}: none", style="dim")
