"""Calendar months and the monthly series that a CSV holds: one row a year, one column a month."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ivcap_flows.local.services.job import ServiceError

__all__ = ["COLUMNS", "Month", "Series", "SeriesError", "read_series"]

COLUMNS: Final = ("YEAR", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

MISSING: Final = -99.0
"""A value at or below this marks a missing month, as NOAA's -99.9, -99.99 and -999.9 do; an empty cell does too."""

PLAUSIBLE: Final = (-5.0, 45.0)
"""Sea surface temperatures in °C; what lies outside is a slipped decimal point or another unit."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_YEAR = re.compile(r"\d{4}", re.ASCII)


class Month(NamedTuple):
    """A calendar month; it sorts by time and prints as ISO 8601 has it, `1997-03`."""

    year: int
    month: int

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    def plus(self, months: int) -> Month:
        year, month = divmod(self.year * 12 + self.month - 1 + months, 12)
        return Month(year, month + 1)


Series = Mapping[Month, float]
"""A value in °C for each month that has one, in order of time."""


class SeriesError(ServiceError, ValueError):
    """A CSV that is no monthly series. `line` and `column` count from 1; 0 where the whole file or line is at fault."""

    def __init__(self, fault: str, *, line: int = 0, column: int = 0) -> None:
        self.line, self.column = line, column
        where = [f"line {line}"] if line else []
        if column:
            name = f" ({COLUMNS[column - 1]})" if column <= len(COLUMNS) else ""
            where.append(f"column {column}{name}")
        super().__init__(f"{', '.join(where)}: {fault}" if where else fault)


def read_series(data: bytes) -> dict[Month, float]:
    """The monthly temperatures (°C) of a CSV with the header YEAR, JAN … DEC; a missing month has no entry.

    Years ascend by one. A missing month is an empty cell or a value of -99 or less. Anything else that is not such a
    table raises `SeriesError`, which names line and column.
    """
    rows = _rows(data)
    try:
        line, header = next(rows)
    except StopIteration:
        raise SeriesError(f"the file is empty; its first line should be {','.join(COLUMNS)}") from None
    _check_header(line, header)
    series: dict[Month, float] = {}
    last: int | None = None
    for line, cells in rows:
        if len(cells) != len(COLUMNS):
            off = min(len(cells), len(COLUMNS)) + 1
            raise SeriesError(f"{len(cells)} columns where {len(COLUMNS)} are expected", line=line, column=off)
        last = _year(cells[0], line, last)
        for number, cell in enumerate(cells[1:], start=1):
            value = _temperature(cell, line, number + 1)
            if value is not None:
                series[Month(last, number)] = value
    if last is None:
        raise SeriesError("the header is followed by no year", line=line + 1)
    if not series:
        raise SeriesError("every month is missing; there is nothing to compute an index from")
    return series


def _rows(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the number of its line and its cells stripped."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        before = data[: fault.start]
        raise SeriesError("the file is no UTF-8 text; is it a CSV?", line=before.count(b"\n") + 1) from fault
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            raise SeriesError(f"the line is no CSV ({fault})", line=max(reader.line_num, 1)) from fault
        stripped = [cell.strip() for cell in cells]
        if stripped not in ([], [""]):
            yield reader.line_num, stripped


def _check_header(line: int, header: list[str]) -> None:
    for number, expected in enumerate(COLUMNS, start=1):
        found = header[number - 1] if number <= len(header) else None
        if found is None or found.upper() != expected:
            what = "nothing" if found is None else _short(found)
            raise SeriesError(f"the header has {what} where {expected} is expected", line=line, column=number)
    if len(header) > len(COLUMNS):
        extra = _short(header[len(COLUMNS)])
        raise SeriesError(f"the header has {extra} after DEC, the last column", line=line, column=len(COLUMNS) + 1)


def _year(cell: str, line: int, last: int | None) -> int:
    if not _YEAR.fullmatch(cell):
        raise SeriesError(f"{_short(cell)} is no year of four digits", line=line, column=1)
    year = int(cell)
    if last is not None and year != last + 1:
        raise SeriesError(
            f"{year} follows {last}; years ascend by one, a year without data has empty cells", line=line, column=1
        )
    return year


def _temperature(cell: str, line: int, column: int) -> float | None:
    if not cell:
        return None
    if not _NUMBER.fullmatch(cell):
        raise SeriesError(f"{_short(cell)} is no number; a missing month is an empty cell", line=line, column=column)
    value = float(cell)
    if value <= MISSING:
        return None
    low, high = PLAUSIBLE
    if not low <= value <= high:
        raise SeriesError(
            f"{_short(cell)} is no sea surface temperature in °C ({low:g} to {high:g})", line=line, column=column
        )
    return value


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:39] + "…")
