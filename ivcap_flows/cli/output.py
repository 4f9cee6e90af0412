"""How commands speak: tables for people, JSON for programs, both on standard output; errors on standard error."""

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
Full = Annotated[bool, Parameter(name="--full", negative=(), help="Print ids whole on a terminal, too.")]

_OURS: Final = re.compile("^urn:ivcap(-flows)?:")
_DIGITS: Final = re.compile("([0-9a-f]{8})(?:(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{24,})")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console: Final = _Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=4000)
"""Wider than any line: URNs stay whole, to be copied and searched for; a terminal wraps them itself. What users named
is printed as it is: brackets and colons mean nothing."""


def brief(id_: str, *, full: bool) -> str:
    """An id as people read it: on a terminal without its namespace and most of its digits, unless it is to be `full`.

    What goes into a file or another program is whole.
    """
    return id_ if full or not console.is_terminal else _DIGITS.sub(r"\1…", _OURS.sub("", id_))


def moment(value: datetime | None) -> str:
    """A time as the user's clock shows it, to the second."""
    return value.astimezone().strftime("%Y-%m-%d %H:%M:%S") if value else ""


def emit(value: Any) -> None:
    """One JSON document; times in ISO 8601."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def complain(error: Exception) -> None:
    """One line on standard error that names the error's class."""
    print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return vars(value) if hasattr(value, "__dict__") else str(value)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under columns; nothing but a line where there are none."""
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        grid.add_column(column, no_wrap=True)
    for row in rows:
        grid.add_row(*(" ".join(cell.split()) for cell in row))
    if grid.row_count:
        console.print(grid)
    else:
        console.print(f"{title}: none", style="dim")
