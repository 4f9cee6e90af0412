"""The CSV tables that services write and read: a header, `\\n` at the end of lines, numbers with four decimals."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from flows.services.icen import DECIMALS
from flows.services.months import Month
from ivcap_flows.local.services.job import ServiceError

__all__ = [
    "EVENTS_HEADER",
    "INDEX_HEADER",
    "RETURNS_HEADER",
    "SEASONS_HEADER",
    "TableError",
    "decimal",
    "read_index",
    "read_table",
    "table",
]

INDEX_HEADER: Final = ("month", "temperature", "climatology", "anomaly", "icen")
EVENTS_HEADER: Final = ("kind", "category", "start", "end", "months", "peak", "peak_month")
SEASONS_HEADER: Final = ("season", "year", "icen", "condition")
RETURNS_HEADER: Final = ("season", "condition", "seasons", "years", "low", "high")


class TableError(ServiceError, ValueError):
    """A CSV that is not the table it should be."""


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> bytes:
    """The CSV of some rows."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def decimal(value: float | None) -> str:
    """A number as tables have it; empty where there is none."""
    return "" if value is None else f"{value:.{DECIMALS}f}"


def read_table(data: bytes, header: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV by the names of its header, which has to be just this one. Raises `TableError`."""
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as fault:
        raise TableError(f"the file is no table of text: {fault}") from fault
    if reader.fieldnames != list(header):
        found = ",".join(reader.fieldnames or ())
        raise TableError(f"the header is {found!r}; it should be {','.join(header)!r}")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise TableError(f"row {number} does not have {len(header)} cells")
    return rows


def read_index(data: bytes) -> dict[Month, float]:
    """The months that have an index, and their index (°C), of an `index.csv`. Raises `TableError`."""
    index = {}
    for number, row in enumerate(read_table(data, INDEX_HEADER), start=2):
        try:
            year, month = row["month"].split("-")
            if row["icen"]:
                index[Month(int(year), int(month))] = float(row["icen"])
        except ValueError as fault:
            raise TableError(f"row {number} is no month of an index: {fault}") from fault
    if not index:
        raise TableError("the table has no month with an index")
    return index
