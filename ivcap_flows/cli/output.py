"""The output of commands: tables for people and JSON for programs on standard output, errors on standard error."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ivcap_flows.errors import InputError
from ivcap_flows.plain_text import CONTROL_CHARACTERS

__all__ = [
    "AtLeastOne",
    "Full",
    "Json",
    "brief",
    "coloured",
    "confirm",
    "console",
    "discard",
    "json_document",
    "moment",
    "print_error",
    "print_json",
    "print_trouble",
    "set_up_streams",
    "table",
    "write",
    "writing",
    "zone",
]

Json = Annotated[bool, Parameter(name="--json", help="Print JSON instead of tables.")]
Full = Annotated[bool, Parameter(name="--full", help="Print complete ids on a terminal, too.")]
AtLeastOne = Annotated[int, Parameter(validator=Number(gte=1))]

_OURS: Final = re.compile("^urn:ivcap(-flows)?:")
_UUID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{4}([0-9a-f]{8})")
_DIGEST: Final = re.compile("([0-9a-f]{8})[0-9a-f]{24,}")
_STATES: Final = frozenset({"outcome", "state", "status"})
"""The columns whose values are coloured."""
_COLOURS: Final = {
    **dict.fromkeys(("completed", "succeeded", "ok", "delivered", "registered"), "green"),
    **dict.fromkeys(("failed", "crashed", "lost", "error", "in doubt", "doubtful", "wrong", "dead"), "red"),
    **dict.fromkeys(("running", "parked", "paused", "pending", "scheduled", "executing", "claimed", "sent"), "yellow"),
}


class _Console(Console):
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(segment.text.translate(CONTROL_CHARACTERS), segment.style)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console: Final = _Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=4000)
"""Wider than any line, so that URNs stay whole and can be copied and searched for; a terminal wraps them. Markup is
off: brackets and colons in users' names are printed as they are."""
_as_wide_as_terminal: Final = _Console(highlight=False, markup=False, emoji=False)


def brief(id_: str, *, full: bool) -> str:
    """Shorten an id for a terminal: drop its namespace and most of its digits, unless `full` is set.

    Of a UUID the end is left, since it may begin with a time. Output to a file or another program has complete ids.
    """
    if full or not console.is_terminal:
        return id_
    return _DIGEST.sub(r"\1…", _UUID.sub(r"…\1", _OURS.sub("", id_)))


def moment(value: datetime | None) -> str:
    """Format a time to the second, with the zone: this machine's offset from UTC now, for all times of a command."""
    return f"{_clock(value)} {zone()}" if value else ""


def _clock(value: datetime) -> str:
    return value.astimezone(zone()).strftime("%Y-%m-%d %H:%M:%S")


@cache
def zone() -> timezone:
    """Return this machine's offset from UTC now, in which all times are printed."""
    offset = datetime.now(timezone.utc).astimezone().utcoffset()
    return timezone.utc if not offset else timezone(offset)


def coloured(word: str) -> Text:
    """Return an outcome or status with its colour, which a terminal shows."""
    return Text(word, _COLOURS.get(word, ""))


def print_json(value: Any) -> None:
    """Print a value as one JSON document, with times in ISO 8601."""
    write(json_document(value))


def json_document(value: Any) -> str:
    """Return a value as one JSON document, with times in ISO 8601 and nothing that could move a cursor."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    return text.translate({number: f"\\u{number:04x}" for number in CONTROL_CHARACTERS}) + "\n"


def write(document: str) -> None:
    """Write a document to standard output, in UTF-8 whatever the encoding of the terminal is."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    print(document, end="")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise InputError if the file cannot be written in the block."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error


def set_up_streams() -> None:
    """Replace standard streams that are closed by ones that lead nowhere, and let every text be printed.

    Otherwise the next file that is opened gets the number of the closed stream, and what is written to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def discard(stream: TextIO) -> None:
    """Let what is still to be written to a stream go nowhere, so that the interpreter does not fail at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def confirm(what: str, *, yes: bool) -> bool:
    """Print what will happen, and return whether the user agrees. With `yes`, the user is not asked.

    Raise InputError if standard input is no terminal, so that nobody can answer.
    """
    if not yes and not sys.stdin.isatty():
        raise InputError(f"{what} To agree, add --yes.")
    console.print(what)
    if yes:
        return True
    try:
        answer = input("Go on? [y/N] ")
    except EOFError:
        answer = ""
    return answer.strip().lower() in ("y", "yes")


def print_error(error: Exception, next_step: str = "") -> None:
    """Print an error on standard error, as one line with the error's class and, if it is given, the next step."""
    print_trouble(f"{type(error).__name__}: {error} {next_step}")


def print_trouble(words: str) -> None:
    """Print what a command could not do on standard error, as one line."""
    try:
        print(" ".join(words.split()).translate(CONTROL_CHARACTERS), file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return vars(value) if hasattr(value, "__dict__") else str(value)


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | datetime | None]], *, full: bool = False
) -> None:
    """Print a table, or one line that says "none" if there are no rows.

    All times are in one zone, which the names of their columns say. A column without any value is left out. On a
    terminal, long texts are folded so that the table fits it, unless ids are printed in `full`.
    """
    listed = list(rows)
    if not listed:
        console.print(f"{title}: none", style="dim")
        return
    fits = console.is_terminal and not full
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    shown = [place for place in range(len(columns)) if any(row[place] for row in listed)]
    for place in shown:
        of_times = any(isinstance(row[place], datetime) for row in listed)
        name = f"{columns[place]} ({zone()})" if of_times else columns[place]
        grid.add_column(name, no_wrap=of_times or not fits, overflow="fold")
    for row in listed:
        grid.add_row(*(_cell(columns[place], row[place]) for place in shown))
    (_as_wide_as_terminal if fits else console).print(grid)


def _cell(column: str, value: str | datetime | None) -> Text:
    if isinstance(value, datetime):
        return Text(_clock(value))
    # Before the table measures it, since an escape is wider than what it stands for.
    text = " ".join((value or "").split()).translate(CONTROL_CHARACTERS)
    return coloured(text) if column in _STATES else Text(text)
