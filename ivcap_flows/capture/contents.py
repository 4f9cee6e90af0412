"""The digest and the shape of a table or an array in memory. Lazy values are not computed.

No library is imported here: each value brings its own. Equal values of one library have equal digests, on any machine
and in any process. A pandas table and the same table in polars have different digests.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

__all__ = ["LIMIT", "Facts", "UnhashedError", "family", "read"]

LIMIT: Final = 256 * 2**20
"""Values with more bytes are not read."""
MAX_OBJECTS: Final = 200_000
"""Arrays with more Python objects are not read."""
_MAX_ROWS: Final = 1_000_000
"""pandas columns with more rows are not read, unless they hold plain numbers."""
_SHOWN_COLUMNS: Final = 500

_PLAIN: Final = (str, bytes, int, float, bool, type(None), date, datetime, time, timedelta, Decimal)
_STABLE: Final = frozenset(
    {
        "boolean", "bytes", "categorical", "date", "datetime", "datetime64", "decimal", "empty", "floating", "integer",
        "integer-na", "interval", "mixed-integer", "mixed-integer-float", "period", "string", "time", "timedelta",
        "timedelta64",
    }
)  # fmt: skip
"""Types that pandas infers for columns (pandas.api.types) whose values print the same everywhere."""

_LAZY: Final = {
    ("dask", "Array"): "a lazy array",
    ("dask", "Bag"): "a lazy bag",
    ("dask", "Delayed"): "a lazy value",
    ("dask", "FrameBase"): "a lazy data frame",
    ("dask", "_Frame"): "a lazy data frame",
    ("duckdb", "DuckDBPyRelation"): "a lazy relation",
    ("h5py", "Dataset"): "an open file; pass its path",
    ("h5py", "Group"): "an open file; pass its path",
    ("netCDF4", "Dataset"): "an open file; pass its path",
    ("netCDF4", "Variable"): "an open file; pass its path",
    ("polars", "LazyFrame"): "a lazy data frame",
    ("pyarrow", "Dataset"): "a lazy data set",
    ("pyspark", "DataFrame"): "a lazy data frame",
}

Facts = dict[str, Any]
"""A value's `library` and shape: `rows` and `columns`, `shape` and `data_type`, or `variables`."""


class UnhashedError(Exception):
    """The reason why a content is not read."""


@lru_cache(maxsize=4096)
def family(kind: type) -> str | None:
    """Return the reader for a type: `pandas.DataFrame`, …, `lazy`; None if it is not a table or an array."""
    if kind.__module__ == "builtins":
        return None
    for base in kind.__mro__:
        name = base.__module__.partition(".")[0], base.__name__
        if name in _LAZY:
            return "lazy"
        if ".".join(name) in _READERS:
            return ".".join(name)
    return None


def read(value: Any) -> tuple[str, Facts, Callable[[], str]]:
    """Return the kind of entity (`frame` or `array`) of a table or array, its facts, and a function that hashes it.

    The function raises UnhashedError, with the reason, if the content is not read.
    """
    cls: Any = type(value)
    kind = family(cls)
    assert kind is not None
    if kind == "lazy":
        return _lazy(value)
    return _READERS[kind](value)


def _lazy(value: Any) -> tuple[str, Facts, Callable[[], str]]:
    bases = ((base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__)
    root, name = next(base for base in bases if base in _LAZY)

    def refuse() -> str:
        raise UnhashedError(f"{_LAZY[root, name]}, which is not computed")

    return "array", {"library": root}, refuse


def _readable(size: int, count: int) -> None:
    """Raise for a value that is too large, and for an empty one, whose content does not identify it."""
    if size > LIMIT:
        raise UnhashedError(f"larger than {LIMIT // 2**20} MiB in memory")
    if not count:
        raise UnhashedError("empty, so its content does not identify it")


def _named(columns: Iterable[tuple[Any, Any]], count: int) -> list[dict[str, str]]:
    shown = [{"name": str(name)[:200], "type": str(kind)} for _, (name, kind) in zip(range(_SHOWN_COLUMNS), columns)]  # noqa: B905
    return shown if count <= _SHOWN_COLUMNS else [*shown, {"name": "…", "type": f"{count} columns"}]


def _update(hasher: Any, array: Any) -> None:
    """Add a numpy array to the hash, in row order."""
    numpy = sys.modules["numpy"]
    hasher.update(f"{array.dtype.str}{array.shape}".encode())
    mask = getattr(array, "_mask", None) if type(array).__name__ == "MaskedArray" else None
    if mask is not None:
        _update(hasher, numpy.ma.getmaskarray(array))
        array = array.filled(0) if not array.dtype.hasobject else array.filled(None)
    if array.dtype.hasobject:
        _update_objects(hasher, array)
    elif array.size:
        hasher.update(numpy.ascontiguousarray(array).reshape(-1).view("u1"))


def _update_objects(hasher: Any, array: Any) -> None:
    if array.dtype.kind != "O":
        raise UnhashedError("it has a structured type that contains Python objects")
    if array.size > MAX_OBJECTS:
        raise UnhashedError(f"it contains more than {MAX_OBJECTS} Python objects")
    for item in array.flat:
        text = _told(item).encode(errors="surrogatepass")
        hasher.update(b"%d:" % len(text) + text)


def _told(item: Any) -> str:
    """Return a text that equal Python objects share in every process."""
    kind = type(item)
    if kind in _PLAIN:
        return repr(item)
    if kind.__module__.partition(".")[0] == "cftime":
        return f"{item.isoformat()} {item.calendar}"
    if isinstance(item, sys.modules["numpy"].generic):
        return repr(item.item())
    raise UnhashedError(f"it contains objects of the type {kind.__module__}.{kind.__qualname__}")


def _numpy(value: Any) -> tuple[str, Facts, Callable[[], str]]:
    def content() -> str:
        _readable(value.nbytes, value.size)
        hasher = hashlib.sha256(b"numpy")
        _update(hasher, value)
        return hasher.hexdigest()

    return "array", {"library": "numpy", "shape": list(value.shape), "data_type": str(value.dtype)}, content


def _update_column(hasher: Any, column: Any) -> None:
    """Add a pandas column or index to the hash: the bytes of plain numbers, or else pandas's own hashes of the rows."""
    pandas, numpy = sys.modules["pandas"], sys.modules["numpy"]
    if isinstance(column.dtype, numpy.dtype) and not column.dtype.hasobject:
        _update(hasher, column.to_numpy())
        return
    if len(column) > _MAX_ROWS:
        raise UnhashedError(f"one of its columns contains more than {_MAX_ROWS} texts or objects")
    inferred = pandas.api.types.infer_dtype(column, skipna=True)
    if inferred not in _STABLE:
        raise UnhashedError(f"one of its columns contains {inferred} objects")
    rows = pandas.util.hash_pandas_object(column, index=False)
    _update(hasher, rows.to_numpy())


def _update_index(hasher: Any, index: Any) -> None:
    if type(index).__name__ == "RangeIndex":
        hasher.update(f"range {index.start} {index.stop} {index.step}".encode())
        return
    for level in range(index.nlevels):
        _update_column(hasher, index.get_level_values(level))
    hasher.update(repr([str(name) for name in index.names]).encode())


def _pandas_frame(value: Any) -> tuple[str, Facts, Callable[[], str]]:
    columns = [(name, kind) for name, kind in zip(value.columns, value.dtypes, strict=True)]

    def content() -> str:
        _readable(int(value.memory_usage(deep=False).sum()), value.size)
        hasher = hashlib.sha256(b"pandas")
        _update_index(hasher, value.index)
        for name, column in value.items():
            hasher.update(f"\0{name!r}".encode(errors="surrogatepass"))
            _update_column(hasher, column)
        return hasher.hexdigest()

    facts = {"library": "pandas", "rows": len(value), "columns": _named(columns, len(columns))}
    return "frame", facts, content


def _pandas_series(value: Any) -> tuple[str, Facts, Callable[[], str]]:
    facts = {"library": "pandas", "rows": len(value), "columns": _named([(value.name, value.dtype)], 1)}

    def content() -> str:
        _readable(int(value.memory_usage(deep=False)), value.size)
        hasher = hashlib.sha256(b"pandas series")
        _update_index(hasher, value.index)
        hasher.update(f"\0{value.name!r}".encode(errors="surrogatepass"))
        _update_column(hasher, value)
        return hasher.hexdigest()

    return "frame", facts, content


class _Sink:
    """A file that keeps only the digest of the data written to it."""

    closed = False

    def __init__(self, start: bytes) -> None:
        self._hasher = hashlib.sha256(start)

    def write(self, data: Any) -> int:
        self._hasher.update(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Do nothing: no data is buffered."""

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def hexdigest(self) -> str:
        return self._hasher.hexdigest()


def _arrow(table: Any) -> str:
    """Return the digest of an Arrow table as an uncompressed stream (Arrow IPC format), whatever its chunks."""
    arrow: Any = sys.modules["pyarrow"]
    from importlib import import_module

    ipc = import_module("pyarrow.ipc")
    table = arrow.Table.from_batches([table]) if isinstance(table, arrow.RecordBatch) else table
    sink = _Sink(b"arrow")
    with ipc.new_stream(arrow.PythonFile(sink, mode="w"), table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return sink.hexdigest()


def _pyarrow(value: Any) -> tuple[str, Facts, Callable[[], str]]:
    def content() -> str:
        _readable(value.nbytes, value.num_rows)
        return _arrow(value)

    columns = _named(zip(value.schema.names, value.schema.types, strict=True), value.num_columns)
    return "frame", {"library": "pyarrow", "rows": value.num_rows, "columns": columns}, content


def _polars_frame(value: Any) -> tuple[str, Facts, Callable[[], str]]:
    def content() -> str:
        _readable(value.estimated_size(), value.height)
        sink = _Sink(b"polars")
        value.rechunk().write_ipc_stream(sink, compression="uncompressed")
        return sink.hexdigest()

    columns = _named(value.schema.items(), value.width)
    return "frame", {"library": "polars", "rows": value.height, "columns": columns}, content


def _polars_series(value: Any) -> tuple[str, Facts, Callable[[], str]]:
    return _polars_frame(value.to_frame())


def _update_variable(hasher: Any, name: str, variable: Any) -> None:
    hasher.update(f"\0{name!r}{variable.dims!r}{_attributes(variable)}".encode(errors="surrogatepass"))
    _update(hasher, variable.values)


def _attributes(value: Any) -> str:
    """Return the attributes of a variable or a data set, such as its units, as text."""
    return repr(_attribute(dict(value.attrs)))


def _attribute(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((str(name), _attribute(inner)) for name, inner in value.items())
    if isinstance(value, sys.modules["numpy"].ndarray):
        value = value.tolist()
    return [_attribute(inner) for inner in value] if isinstance(value, list | tuple) else _told(value)


def _in_memory(variables: Iterable[tuple[Any, Any]]) -> None:
    for name, variable in variables:
        # Older and newer versions of xarray have this attribute. If it is missing, assume that the variable is lazy.
        if not getattr(variable, "_in_memory", False):
            raise UnhashedError(f"its variable {str(name)[:100]!r} is lazy, and is not computed")


def _xarray_dataset(value: Any) -> tuple[str, Facts, Callable[[], str]]:
    variables = sorted(((str(name), variable) for name, variable in value.variables.items()), key=lambda item: item[0])

    def content() -> str:
        _in_memory(variables)
        _readable(value.nbytes, sum(variable.size for _, variable in variables))
        hasher = hashlib.sha256(b"xarray" + _attributes(value).encode())
        hasher.update(repr(sorted(map(str, value.coords))).encode(errors="surrogatepass"))
        for name, variable in variables:
            _update_variable(hasher, name, variable)
        return hasher.hexdigest()

    shown = [_variable(name, variable) for name, variable in variables[:_SHOWN_COLUMNS]]
    return "array", {"library": "xarray", "variables": shown}, content


def _xarray_array(value: Any) -> tuple[str, Facts, Callable[[], str]]:
    own = (str(value.name or ""), value.variable)
    coordinates = sorted(
        ((str(name), array.variable) for name, array in value.coords.items()), key=lambda item: item[0]
    )

    def content() -> str:
        _in_memory([own, *coordinates])
        _readable(value.nbytes + sum(variable.nbytes for _, variable in coordinates), value.size)
        hasher = hashlib.sha256(b"xarray array")
        for name, variable in (own, *coordinates):
            _update_variable(hasher, name, variable)
        return hasher.hexdigest()

    shown = [_variable(name, variable) for name, variable in (own, *coordinates)]
    return "array", {"library": "xarray", "variables": shown}, content


def _variable(name: str, variable: Any) -> dict[str, Any]:
    return {
        "name": name[:200],
        "dimensions": [str(dimension) for dimension in variable.dims],
        "shape": list(variable.shape),
        "type": str(variable.dtype),
    }


_READERS: Final[dict[str, Callable[[Any], tuple[str, Facts, Callable[[], str]]]]] = {
    "numpy.ndarray": _numpy,
    "pandas.DataFrame": _pandas_frame,
    "pandas.Series": _pandas_series,
    "polars.DataFrame": _polars_frame,
    "polars.Series": _polars_series,
    "pyarrow.RecordBatch": _pyarrow,
    "pyarrow.Table": _pyarrow,
    "xarray.DataArray": _xarray_array,
    "xarray.Dataset": _xarray_dataset,
}
