"""Monthly tables of sea surface temperatures in the region Niño 1+2, each row checked before anything is paid for.

Two forms are read: NOAA's text, a row a month, with the columns `YR MON NINO1+2 ANOM …`; and a CSV, a row a year, with
the columns YEAR, JAN to DEC, which is also what the services take. Read as well are the events that came of a table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from flows.services.months import COLUMNS, MISSING, PLAUSIBLE, Month
from ivcap_flows import task
from ivcap_flows.errors import InputError

__all__ = [
    "BUNDLED",
    "Folder",
    "MonthText",
    "MonthlyTable",
    "Row",
    "data_file",
    "months_of",
    "parse_table",
    "read_events",
    "read_table",
]

MonthText = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
"""A month such as 1997-03."""
Folder = Annotated[Path, AfterValidator(Path.expanduser)]
"""A folder, which may be below `~`."""
YearsText = Annotated[str, Field(pattern=r"^\d{4}-\d{4}$")]
"""Years such as 1981-2010, both included."""

DATA: Final = Path(__file__).parent / "data"
BUNDLED: Final = "ersst_nino12_monthly.csv"
"""The series that comes with the examples, in `flows/data`."""

EVENTS_SCHEMA: Final = "urn:ivcap-flows-examples:schema:coastal-el-nino-events.1"

NOAA: Final = ("YR", "MON", "NINO1+2", "ANOM")
"""The first columns of NOAA's text. More regions follow."""

_SHOWN: Final = 10
"""Faults that a message names; all are in the error's data."""


def _unless_missing(cell: str) -> str | None:
    """None for an empty cell and for NOAA's marks of a missing month, such as -99.99."""
    try:
        return None if not cell or Decimal(cell) <= MISSING else cell
    except InvalidOperation:
        return cell


class Row(BaseModel):
    """A month of a table; a missing month has no temperature. The decimals are kept as the source has them."""

    year: int = Field(ge=1800, le=2199)
    month: int = Field(ge=1, le=12)
    temperature: Annotated[
        Annotated[Decimal, Field(ge=PLAUSIBLE[0], le=PLAUSIBLE[1])] | None, BeforeValidator(_unless_missing)
    ]


@dataclass(frozen=True)
class MonthlyTable:
    """Temperatures (°C) by month, in order of time; a missing month has no entry."""

    temperatures: Mapping[Month, Decimal]

    @property
    def last(self) -> Month:
        """The newest month that has a temperature."""
        return max(self.temperatures)

    def until(self, text: MonthText) -> MonthlyTable:
        """The table as it was when this month was the newest. Raises InputError where it has no such month."""
        month = _month(text)
        if month not in self.temperatures:
            raise InputError(f"The series has no {month}; it goes from {min(self.temperatures)} to {self.last}.")
        return MonthlyTable({at: value for at, value in self.temperatures.items() if at <= month})

    def csv(self) -> str:
        """The table as the services take it, a row a year. Equal temperatures give equal text."""
        header = ",".join(f'"{column}"' for column in COLUMNS)
        years = (
            ",".join([str(year), *(str(self.temperatures.get(Month(year, month), "")) for month in range(1, 13))])
            for year in range(min(self.temperatures).year, self.last.year + 1)
        )
        return "".join(f"{line}\n" for line in (header, *years))


def data_file(name: str | Path) -> Path:
    """The file of a path, or of the name of a file in `flows/data`, which is the same on every machine."""
    path = Path(name).expanduser()
    return DATA / name if not path.exists() and (DATA / name).exists() else path


def months_of(path: Path, first: str | None, last: str | None, base: tuple[int, int]) -> list[MonthText]:
    """The months of a table from the first to the last, or only its newest one.

    Raises InputError for a table that cannot be used, if it has none of the months, and for a base period that does not
    lie before the first.
    """
    table = read_table(path)
    end = _month(last) if last is not None else table.last
    begin = _month(first) if first is not None else end
    months = [month for month in table.temperatures if begin <= month <= end]
    if not months:
        raise InputError(f"The series has no month from {begin} to {end}; its last is {table.last}.")
    if not min(table.temperatures).year <= base[0] <= base[1] <= months[0].year:
        reach = f"{min(table.temperatures)} to {months[0]}"
        raise InputError(f"The base period {base[0]}-{base[1]} should lie in the series, which goes from {reach}.")
    return [str(month) for month in months]


@task(name="Read the events")
def read_events(table: str | PathLike[str]) -> dict[str, Any]:
    """The rows of an events table, as the content of an aspect."""
    with Path(table).open(encoding="utf-8", newline="") as file:
        return {"$schema": EVENTS_SCHEMA, "events": list(csv.DictReader(file))}


def read_table(path: Path) -> MonthlyTable:
    """The table in a file. Raises InputError as `parse_table`."""
    try:
        return parse_table(path.read_bytes(), path.name)
    except OSError as error:
        raise InputError(f"The table {path} cannot be read: {error.strerror}.") from error


def _month(text: str) -> Month:
    year, _, month = text.partition("-")
    return Month(int(year), int(month))


def parse_table(data: bytes, name: str) -> MonthlyTable:
    """The table in the bytes of the file `name`, of either form.

    Raises InputError for anything else, such as a web page or half a table. It names each fault by its line; the data
    of the error has all `faults`.
    """
    text = _text(data, name)
    faults: list[str] = []
    temperatures: dict[Month, Decimal] = {}
    expected: Month | None = None
    known = 0
    for line, columns, cells in _months(text, faults):
        if len(faults) > known:
            # Which month follows a row that cannot be read is not known.
            expected, known = None, len(faults)
        try:
            row = Row.model_validate(cells)
        except ValidationError as error:
            faults += [
                f"line {line}, {columns[str(e['loc'][0])]}: {e['msg']}, not {e['input']!r}" for e in error.errors()
            ]
            continue
        month = Month(row.year, row.month)
        if expected is not None and month != expected:
            faults.append(f"line {line}: {month} where {expected} should follow")
        if row.temperature is not None:
            temperatures[month] = row.temperature
        expected = month.plus(1)
    if text and not text.endswith("\n"):
        faults.append(f"line {text.count(chr(10)) + 1}: the line does not end; is the file whole?")
    if not temperatures and not faults:
        faults.append("no month has a temperature")
    if faults:
        raise _no_table(name, list(dict.fromkeys(faults)))
    return MonthlyTable(temperatures)


def _text(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as fault:
        line = data[: fault.start].count(b"\n") + 1
        raise _no_table(name, [f"line {line}: it is no UTF-8 text"]) from fault
    if text.lstrip().startswith("<"):
        raise InputError(
            f"{name} is a web page, not a monthly table. It begins with {text.strip()[:60]!r}. Look at the address in "
            "a browser: the table may have moved, or somebody has to log in.",
            faults=["it is a web page"],
        )
    return text


def _months(text: str, faults: list[str]) -> Iterator[tuple[int, dict[str, str], dict[str, str]]]:
    """Each month with its line, the columns that its cells are in, and the cells. Adds to the faults."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        faults.append("the file is empty")
        return
    (_, header), *rows = lines
    if tuple(cell.upper() for cell in _cells(header)) == COLUMNS:
        width, of_row = len(COLUMNS), _of_year
    elif tuple(header.split()[: len(NOAA)]) == NOAA:
        width, of_row = len(header.split()), _of_month
    else:
        wanted = f"{','.join(COLUMNS)} or {' '.join(NOAA)} …"
        faults.append(f"line {lines[0][0]}: the header should be {wanted}, not {header.strip()[:60]!r}")
        return
    if not rows:
        faults.append(f"line {lines[0][0]}: no month follows the header")
    for number, line in rows:
        cells = _cells(line) if of_row is _of_year else line.split()
        if len(cells) != width:
            faults.append(f"line {number}: {len(cells)} cells where the header has {width}")
        else:
            yield from ((number, columns, month) for columns, month in of_row(cells))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader(io.StringIO(line)))]


def _of_month(cells: list[str]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    names = ("year", "month", "temperature")
    yield dict(zip(names, NOAA, strict=False)), dict(zip(names, cells, strict=False))


def _of_year(cells: list[str]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    for month, (column, cell) in enumerate(zip(COLUMNS[1:], cells[1:], strict=True), start=1):
        columns = {"year": COLUMNS[0], "month": column, "temperature": column}
        yield columns, {"year": cells[0], "month": str(month), "temperature": cell}


def _no_table(name: str, faults: list[str]) -> InputError:
    more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    shown = "".join(f"\n  {fault}" for fault in faults[:_SHOWN])
    return InputError(f"{name} is no monthly table that can be used:{shown}{more}", faults=faults)
