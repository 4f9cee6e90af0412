"""Sources of rows: a CSV sheet, JSON Lines, Parquet, or records of a flow. All are read once, row by row."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from ivcap_flows.errors import ConfigurationError, InputError, SourceChangedError
from ivcap_flows.identity import canonical
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.registration.rows import Fault, Row, unstorable
from ivcap_flows.registration.sheet import FILLED, Sheet, filled_in

__all__ = ["RecordSource", "RowSource", "open_source"]

_BLOCK: Final = 1 << 20
_ROWS: Final = 1024
"""Number of rows of a Parquet file that are in memory at a time."""
_LONGEST: Final = 10_000_000
"""Maximum number of characters in a CSV cell. The longest record that can be sent is much shorter."""


class RowSource(Protocol):
    """Rows that can be read once. `sha256`, `names` and `warnings` are complete after all rows have been read."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def names(self) -> Mapping[str, str]:
        """The source's names for fields of a record, if they are different."""

    @property
    def warnings(self) -> list[str]: ...

    def rows(self) -> Iterator[Row]: ...


def open_source(path: Path) -> RowSource:
    """Open a file of rows by its ending: .csv, .jsonl or .ndjson, .parquet. Raises InputError for any other."""
    kinds: dict[str, Callable[[Path], RowSource]] = {
        ".csv": _Csv,
        ".jsonl": _Lines,
        ".ndjson": _Lines,
        ".parquet": _Parquet,
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"The name of a file of model runs must end in {', '.join(kinds)}; {path} does not.")
    if not os.path.isfile(path):
        raise InputError(f"There is no file {path}.")
    return kind(path)


class _Hashing(io.RawIOBase):
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self.digest.update(memoryview(buffer)[:count])
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _File(ABC):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = ""
        self.names: Mapping[str, str] = {}
        self.warnings: list[str] = []

    @property
    def name(self) -> str:
        return self.path.name

    def rows(self) -> Iterator[Row]:
        try:
            yield from self._rows()
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}") from error

    @abstractmethod
    def _rows(self) -> Iterator[Row]: ...


class _Text(_File):
    def _rows(self) -> Iterator[Row]:
        hashing = _Hashing(self.path.open("rb", buffering=0))
        # Windows writes a byte-order mark; "utf-8-sig" reads past it.
        with io.BufferedReader(hashing, _BLOCK) as blocks, io.TextIOWrapper(blocks, "utf-8-sig", newline="") as text:
            try:
                yield from self._read(text)
            except UnicodeDecodeError as error:
                raise InputError(f"{self.path} is not a text in UTF-8: {error}.") from error
            except csv.Error as error:
                raise InputError(f"{self.path} is not a valid CSV file: {error}.") from error
        self.sha256 = hashing.digest.hexdigest()

    @abstractmethod
    def _read(self, text: io.TextIOWrapper) -> Iterator[Row]: ...


class _Csv(_Text):
    def _read(self, text: io.TextIOWrapper) -> Iterator[Row]:
        csv.field_size_limit(_LONGEST)
        reader = csv.reader(text, strict=True)
        lines = (cells for cells in reader if any(cell.strip() for cell in cells))
        header = next(lines, None)
        if header is None:
            raise InputError(f"{self.path} is empty.")
        sheet = Sheet.of(header, str(self.path))
        self.names, self.warnings = sheet.names, sheet.warnings
        for number, cells in enumerate(lines, 1):
            yield sheet.row(number, cells, reader.line_num)


class _Lines(_Text):
    def _read(self, text: io.TextIOWrapper) -> Iterator[Row]:
        for number, line in enumerate(text, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line, parse_constant=_refuse)
            except (ValueError, RecursionError) as error:
                yield Row(number, None, faults=(Fault(number, "the row", "unreadable", f"Not valid JSON: {error}"),))
                continue
            yield _from_object(number, value)


class _Parquet(_File):
    """A Parquet file. Its columns are those of a ModelRunRecord, nested, or those of Provena's sheet, flat."""

    def _rows(self) -> Iterator[Row]:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise ConfigurationError(
                "Parquet files need an extra. Install it with `pip install 'ivcap-flows[parquet]'`."
            ) from error
        # Parquet is not read from start to end, so hash the file first and check later that it did not change.
        before = self.path.stat()
        with self.path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(_BLOCK):
                digest.update(block)
        try:
            with ParquetFile(self.path) as parquet:
                yield from self._table(parquet)
        except (ArrowException, UnicodeDecodeError) as error:
            raise InputError(f"{self.path} cannot be read as a Parquet file: {error}") from error
        after = self.path.stat()
        if (before.st_mtime_ns, before.st_size, before.st_ino) != (after.st_mtime_ns, after.st_size, after.st_ino):
            raise SourceChangedError(f"{self.path} changed while it was read.", path=str(self.path))
        self.sha256 = digest.hexdigest()

    def _table(self, parquet: Any) -> Iterator[Row]:
        header = list(parquet.schema_arrow.names)
        sheet = None
        if any(name.startswith("_workflow template id ") for name in header):
            sheet = Sheet.of(header, str(self.path))
            self.names, self.warnings = sheet.names, sheet.warnings
        number = 0
        for batch in parquet.iter_batches(batch_size=_ROWS):
            for values in _listed(batch):
                number += 1
                if isinstance(values, Exception):
                    words = f"Python cannot represent a value: {values}"
                    yield Row(number, None, faults=(Fault(number, "the row", "unreadable", words),))
                elif sheet is not None:
                    yield sheet.row(number, [_cell(values[name]) for name in header])
                else:
                    yield _from_object(number, _plain(values))


class RecordSource:
    """Records from a flow. A record with a key is a pair `(key, record)`."""

    def __init__(self, records: Iterable[ModelRunRecord | tuple[str, ModelRunRecord]], name: str = "records") -> None:
        self._records = records
        self.name = name
        self.names: Mapping[str, str] = {}
        self.warnings: list[str] = []
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The sha256 of the records' canonical JSON, one after the other."""
        return self._digest.hexdigest()

    def rows(self) -> Iterator[Row]:
        for number, given in enumerate(self._records, 1):
            key, record = given if isinstance(given, tuple) and len(given) == 2 else (None, given)
            if not isinstance(record, ModelRunRecord):
                raise InputError(
                    f"Row {number} must be a ModelRunRecord or a pair (key, ModelRunRecord), not "
                    f"{type(record).__name__}. Orders and jobs need the argument `workflow`."
                )
            if key is not None and not (isinstance(key, str) and key.strip()):
                raise InputError(
                    f"The key of row {number} must be a text that is not empty, such as an order's URN, not "
                    f"{key!r:.100}."
                )
            row = Row(number, record.model_dump(exclude_none=True), key)
            if unstorable(row):
                # JSON cannot say it. The check of the rows names the faults.
                self._digest.update(repr(row).encode())
            else:
                row = Row(number, record.model_dump(mode="json", exclude_none=True), key)
                self._digest.update(canonical([key, row.body]))
            yield row


def _from_object(number: int, value: Any) -> Row:
    if not isinstance(value, dict):
        words = f"A row must be a JSON object, not a {type(value).__name__}"
        return Row(number, None, faults=(Fault(number, "the row", "unreadable", words),))
    body = {name: part for name, part in value.items() if name not in ("key", *FILLED)}
    handle, job, faults = filled_in(number, value)
    key = value.get("key")
    if key is not None and not (isinstance(key, str) and key.strip()):
        key = None
        faults.append(Fault(number, "key", "wrong value", "A key must be a text that is not empty"))
    for name in () if job or handle else ("start_time", "end_time"):
        if isinstance(time := value.get(name), datetime):
            faults.append(Fault(number, name, "time", f"{time} must have a time zone, and whole seconds"))
    return Row(number, None if job or handle else body, key, handle, job, tuple(faults))


def _listed(batch: Any) -> list[Any]:
    """Return the rows of a Parquet batch as objects; instead of a row that Python cannot represent, the error."""
    try:
        return list(batch.to_pylist())
    except (ArithmeticError, LookupError, ValueError) as error:
        if batch.num_rows == 1:
            return [error]
        return [values for place in range(batch.num_rows) for values in _listed(batch.slice(place, 1))]


def _cell(value: Any) -> str:
    """Return a Parquet value as the text of a cell. Bytes that are not UTF-8 become what `unstorable` names."""
    return "" if value is None else value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    """Convert a Parquet value to JSON: maps become objects, and members without a value are left out.

    Bytes are texts that the file does not declare as such. Instants become Unix seconds. A time without a zone, or
    with a fraction of a second, stays as it is.
    """
    if isinstance(value, bytes):
        return _cell(value)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        if value and all(isinstance(part, tuple) and len(part) == 2 for part in value):
            return {_cell(name): _plain(part) for name, part in value if part is not None}
        return [_plain(part) for part in value]
    if isinstance(value, datetime) and value.tzinfo is not None and value.timestamp().is_integer():
        return int(value.timestamp())
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
