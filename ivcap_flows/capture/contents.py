"""The digest and the shape of a table or an array in memory. Lazy values are not computed.

All libraries are read in one way. The digest is of a description as text (types, names, labels, attributes) and of
buffers (the values). So two values have one digest only if they are of one type, have the same description, and are
equal bit by bit. How a value lies in memory is not part of it: chunks, strides, and what is below a missing item.

No library is imported here: each value brings its own. Values have equal digests on any machine and in any process.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID

__all__ = ["LIMIT", "Digest", "Shape", "UnhashedError", "family", "is_immutable", "read"]

LIMIT: Final = 256 * 2**20
"""Values with more bytes are not read."""
MAX_OBJECTS: Final = 1_000_000
"""Columns and arrays with more texts or other Python objects are not read."""
FLOOR: Final = 128
"""If a sample of a value compresses to fewer bytes, another value may be equal by chance.

Thirty measured numbers take about as many; constants, ramps, grids, calendars and small tables take fewer.
"""
_SAMPLE: Final = 512
"""The number of items in a sample, from all columns together; a few more if there are many columns."""
_SAMPLED_TEXT: Final = 2**16
_TOLD_AT_ONCE: Final = 10_000
_SHOWN_COLUMNS: Final = 500

_PLAIN: Final = frozenset(
    {str, bytes, int, float, complex, bool, type(None), date, datetime, time, timedelta, Decimal, UUID}
)
"""Types whose values are printed exactly, and alike in every process."""
_PANDAS_PLAIN: Final = frozenset({"Interval", "NAType", "NaTType", "Period", "Timedelta", "Timestamp"})

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
_IMMUTABLE: Final = frozenset(
    {
        *(("dask", "Bag"), ("dask", "Delayed"), ("duckdb", "DuckDBPyRelation"), ("polars", "LazyFrame")),
        *(("pyarrow", "Dataset"), ("pyarrow", "RecordBatch"), ("pyarrow", "Table"), ("pyspark", "DataFrame")),
    }
)

Shape = dict[str, Any]
"""A value's `library` and shape: `rows` and `columns`, `shape` and `data_type`, or `variables`."""


class Digest(NamedTuple):
    """The sha256 of a value, and whether it identifies the value: none will be equal to it by chance."""

    sha256: str
    identifies: bool


class UnhashedError(Exception):
    """The reason why a content is not read."""


@lru_cache(maxsize=4096)
def family(kind: type) -> str | None:
    """Return the reader for a type: `pandas.DataFrame`, …, `lazy`; None if it is not a table or an array."""
    if kind.__module__ == "builtins":
        return None
    for base in kind.__mro__:
        name = _library(base), base.__name__
        if name in _LAZY:
            return "lazy"
        if ".".join(name) in _READERS:
            return ".".join(name)
    return None


def is_immutable(value: Any) -> bool:
    """Whether a table or an array is of a type that nothing changes in place."""
    return any((_library(base), base.__name__) in _IMMUTABLE for base in type(value).__mro__)


def _library(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def read(value: Any) -> tuple[str, Shape, Callable[[], Digest]]:
    """Return the kind of entity (`frame` or `array`) of a table or array, its facts, and a function that hashes it.

    The function raises UnhashedError, with the reason, if the content is not read.
    """
    cls: Any = type(value)
    reader = family(cls)
    assert reader is not None
    if reader == "lazy":
        return _lazy(value)
    kind, facts, fill = _READERS[reader](value)

    def content() -> Digest:
        if _library(cls) != facts["library"]:
            raise UnhashedError(f"its type {cls.__module__}.{cls.__qualname__} may hold more than a {reader}")
        found = _Content(len(facts.get("columns") or facts.get("variables") or ()))
        found.tell(facts["library"], cls.__name__)
        fill(found)
        return found.digest()

    return kind, facts, content


def _lazy(value: Any) -> tuple[str, Shape, Callable[[], Digest]]:
    bases = ((_library(base), base.__name__) for base in type(value).__mro__)
    root, name = next(base for base in bases if base in _LAZY)

    def refuse() -> Digest:
        raise UnhashedError(f"{_LAZY[root, name]}, which is not computed")

    return "array", {"library": root}, refuse


class _Content:
    """Takes the description of a value and its buffers, for the digest, and a sample of its items, for the floor."""

    def __init__(self, columns: int) -> None:
        self._hasher = sha256()
        self._sample: list[str] = []
        self._each = 2 + _SAMPLE // max(columns, 1)

    def digest(self) -> Digest:
        sample = "\n".join(self._sample).encode()[:_SAMPLED_TEXT]
        return Digest(self._hasher.hexdigest(), len(zlib.compress(sample)) >= FLOOR)

    def tell(self, *described: Any) -> None:
        """Add a description: plain values, and lists and dicts of them."""
        text = _told(described).encode()
        self._hasher.update(b"%d:" % len(text) + text)

    def buffer(self, data: Any) -> None:
        """Add bytes. Their number must follow from the description."""
        self._hasher.update(data)

    def step(self, count: int) -> int:
        """Return the distance between sampled items, for a column of so many."""
        return -(-count // self._each) or 1

    def sample(self, items: list[Any]) -> None:
        """Add items to the sample. Of numbers and times, add the steps between them, so that a ramp is a constant."""
        found = [item for item in items if item is not None]
        try:
            steps = [after - before for before, after in pairwise(found)]
            texts = [f"{step:.4g}" if isinstance(step, int | float | complex) else f"{step!a}" for step in steps]
            self._sample += [*map(ascii, found[:1]), *texts]
        except (TypeError, ValueError, ArithmeticError):
            self._sample.append(ascii(found))

    def objects(self, items: list[Any]) -> None:
        """Add Python objects."""
        if len(items) > MAX_OBJECTS:
            raise UnhashedError(f"it contains more than {MAX_OBJECTS} texts or other Python objects")
        for start in range(0, len(items), _TOLD_AT_ONCE):
            self.tell(items[start : start + _TOLD_AT_ONCE])
        generic = sys.modules["numpy"].generic
        sample = items[:: self.step(len(items))]
        self.sample([item.item() if isinstance(item, generic) else item for item in sample])

    def array(self, array: Any) -> None:
        """Add a numpy array, in row order."""
        numpy, masked = sys.modules["numpy"], sys.modules.get("numpy.ma")
        dtype = array.dtype
        self.tell(type(array).__name__, array.shape, [*dtype.names] if dtype.names else (dtype.str, str(dtype)))
        if dtype.names:
            # Gaps between the fields may hold anything.
            for name in dtype.names:
                self.array(array[name])
        elif masked is not None and masked.isMaskedArray(array):
            self.tell(array.fill_value)
            self.array(masked.getmaskarray(array))
            self.array(array.filled(None if dtype.hasobject else 0))
        elif dtype.kind in "OT":
            self.objects(numpy.asarray(array).reshape(-1).tolist())
        elif array.nbytes:
            flat = numpy.ascontiguousarray(array).reshape(-1)
            self.buffer(flat.view("u1"))
            sample = flat[:: self.step(flat.size)]
            self.sample((sample.astype("i8") if dtype.kind in "mM" else sample).tolist())


_Reading = tuple[str, Shape, Callable[[_Content], None]]


def _readable(size: int) -> None:
    if size > LIMIT:
        raise UnhashedError(f"larger than {LIMIT // 2**20} MiB in memory")


def _told(value: Any) -> str:
    """Return a text, in ASCII, that equal values of one type share in every process, and no others have."""
    kind = type(value)
    if kind in _PLAIN:
        return ascii(value)
    if kind is list or kind is tuple:
        if _PLAIN.issuperset(map(type, value)):
            return ascii(value)
        return f"{kind.__name__}({', '.join(map(_told, value))})"
    if kind is dict or kind is set or kind is frozenset:
        # Order is no part of them.
        return f"{kind.__name__}({', '.join(sorted(map(_told, value.items() if kind is dict else value)))})"
    library = _library(kind)
    if library == "cftime" or (library == "pandas" and kind.__name__ in _PANDAS_PLAIN):
        return f"{value!a} {getattr(value, 'unit', '')}"
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and library == "numpy":
        return f"{value.dtype!a} {value.item()!a}"
    if numpy is not None and kind is numpy.ndarray:
        inner = _Content(1)
        inner.array(value)
        return f"array {inner.digest().sha256}"
    raise UnhashedError(f"it contains objects of the type {kind.__module__}.{kind.__qualname__}")


def _named(columns: Iterable[tuple[Any, Any]], count: int) -> list[dict[str, str]]:
    shown = [{"name": str(name)[:200], "type": str(kind)} for _, (name, kind) in zip(range(_SHOWN_COLUMNS), columns)]  # noqa: B905
    return shown if count <= _SHOWN_COLUMNS else [*shown, {"name": "…", "type": f"{count} columns"}]


def _numpy(value: Any) -> _Reading:
    def fill(content: _Content) -> None:
        _readable(value.nbytes)
        content.array(value)

    return "array", {"library": "numpy", "shape": list(value.shape), "data_type": str(value.dtype)}, fill


def _pandas(value: Any) -> _Reading:
    columns = [value] if value.ndim == 1 else [column for _, column in value.items()]

    def fill(content: _Content) -> None:
        _readable(int(sys.modules["numpy"].sum(value.memory_usage())))
        content.tell(value.attrs)
        for axis in value.axes:
            _pandas_labels(content, axis)
        for column in columns:
            content.tell(column.name)
            _pandas_values(content, column)

    shown = _named(((column.name, column.dtype) for column in columns), len(columns))
    return "frame", {"library": "pandas", "rows": len(value), "columns": shown}, fill


def _pandas_labels(content: _Content, index: Any) -> None:
    """Add the labels of an axis, and what the axis is called."""
    content.tell(type(index).__name__, list(index.names))
    if isinstance(index, sys.modules["pandas"].RangeIndex):
        content.tell(index.start, index.stop, index.step)
        return
    for level in range(index.nlevels):
        _pandas_values(content, index.get_level_values(level))


def _pandas_values(content: _Content, column: Any) -> None:
    """Add the values of a column, or of an axis with one level."""
    pandas, numpy = sys.modules["pandas"], sys.modules["numpy"]
    dtype = column.dtype
    content.tell(str(dtype), len(column))
    if isinstance(dtype, numpy.dtype):
        content.array(column.to_numpy())
    elif isinstance(dtype, pandas.CategoricalDtype):
        content.tell(dtype.ordered)
        _pandas_labels(content, dtype.categories)
        content.array(column.array.codes)
    elif isinstance(dtype, pandas.DatetimeTZDtype | pandas.PeriodDtype):
        content.array(column.to_numpy("i8"))
    elif isinstance(dtype, pandas.ArrowDtype):
        _arrow_table(content, sys.modules["pyarrow"].table([column.array.__arrow_array__()], [""]))
    elif hasattr(dtype, "numpy_dtype"):
        # Values, and a mask of those that are missing.
        content.array(numpy.asarray(column.isna()))
        content.array(column.to_numpy(dtype.numpy_dtype, na_value=0))
    else:
        content.objects(column.to_numpy(object).tolist())


def _pyarrow(value: Any) -> _Reading:
    def fill(content: _Content) -> None:
        _readable(value.nbytes)
        arrow: Any = sys.modules["pyarrow"]
        _arrow_table(content, value if isinstance(value, arrow.Table) else arrow.Table.from_batches([value]))

    columns = _named(zip(value.schema.names, value.schema.types, strict=True), value.num_columns)
    return "frame", {"library": "pyarrow", "rows": value.num_rows, "columns": columns}, fill


def _arrow_table(content: _Content, table: Any) -> None:
    content.tell(table.schema.serialize().to_pybytes())
    every = sys.modules["pyarrow"].repeat(True, table.num_rows)
    for number in range(table.num_columns):
        # A filter that keeps all items copies them into buffers of their own, without the rest of what they are a slice
        # of, and without what is below a missing item.
        whole = table.select([number]).combine_chunks().filter(every)
        _arrow_values(content, whole.column(0).combine_chunks())


def _arrow_values(content: _Content, array: Any) -> None:
    types = sys.modules["pyarrow"].types
    content.tell(len(array))
    for buffer in array.buffers():
        content.tell(None if buffer is None else buffer.size)
        content.buffer(buffer or b"")
    if types.is_map(array.type):
        inner = [array.keys, array.items]
    elif types.is_struct(array.type):
        inner = array.flatten()
    elif types.is_dictionary(array.type):
        inner = [array.dictionary, array.indices]
    else:
        inner = [array.flatten()] if hasattr(array, "flatten") else []
    for each in inner:
        _arrow_values(content, each)
    if not inner:
        if types.is_temporal(array.type) and not types.is_interval(array.type):
            array = array.view(f"int{array.type.bit_width}")
        content.sample(array[:: content.step(len(array))].to_pylist())


def _polars_values(content: _Content, series: Any) -> None:
    """Add the values of a column: which are missing, and the others without those."""
    missing = series.null_count()
    content.tell(series.name, str(series.dtype), len(series), missing)
    if missing:
        content.array(series.is_null().to_numpy())
        series = series.drop_nulls()
    match str(series.dtype).partition("(")[0]:
        case "Struct":
            for field in series.struct.unnest().get_columns():
                _polars_values(content, field)
        case "List":
            content.array(series.list.len().to_numpy())
            _polars_values(content, series.explode())
        case "Array":
            _polars_values(content, series.explode())
        case "String":
            content.array(series.str.len_bytes().to_numpy())
            content.buffer("".join(series.str.join("")).encode())
            content.sample(series[:: content.step(len(series))].to_list())
        case "Binary":
            _polars_values(content, series.bin.encode("hex"))
        case "Categorical" | "Decimal" | "Int128" | "UInt128":
            # Of categories, the codes differ between processes. For the others, numpy has no type.
            _polars_values(content, series.cast(sys.modules["polars"].String))
        case kind:
            if kind == "Enum":
                content.tell(series.dtype.categories.to_list())
            content.array((series if series.dtype.is_numeric() else series.to_physical()).to_numpy())


def _polars_frame(value: Any) -> _Reading:
    def fill(content: _Content) -> None:
        _readable(value.estimated_size())
        content.tell(value.shape)
        for series in value.get_columns():
            _polars_values(content, series)

    columns = _named(value.schema.items(), value.width)
    return "frame", {"library": "polars", "rows": value.height, "columns": columns}, fill


def _xarray(value: Any) -> _Reading:
    array = isinstance(value, sys.modules["xarray"].DataArray)
    named = {name: value[name].variable for name in value.coords} if array else value.variables
    own = [(value.name, value.variable)] if array else []
    variables = [*own, *sorted(named.items(), key=lambda item: repr(item[0]))]

    def fill(content: _Content) -> None:
        _readable(sum(variable.nbytes for _, variable in variables))
        content.tell(value.attrs, set(value.coords))
        for name, variable in variables:
            # Older and newer versions of xarray have this attribute. Where it is missing, the variable counts as lazy.
            if not getattr(variable, "_in_memory", False):
                raise UnhashedError(f"its variable {str(name)[:100]!r} is lazy, and is not computed")
            content.tell(name, variable.dims, variable.attrs)
            values, library = variable.data, _library(type(variable.data))
            if library == "pandas":
                _pandas_values(content, sys.modules["pandas"].Series(values, copy=False))
            elif library == "numpy":
                content.array(values)
            else:
                raise UnhashedError(f"its variable {str(name)[:100]!r} is an array of {library}")

    shown = [_variable(name, variable) for name, variable in variables[:_SHOWN_COLUMNS]]
    return "array", {"library": "xarray", "variables": shown}, fill


def _variable(name: Any, variable: Any) -> dict[str, Any]:
    return {
        "name": str("" if name is None else name)[:200],
        "dimensions": [str(dimension) for dimension in variable.dims],
        "shape": list(variable.shape),
        "type": str(variable.dtype),
    }


_READERS: Final[dict[str, Callable[[Any], _Reading]]] = {
    "numpy.ndarray": _numpy,
    "pandas.DataFrame": _pandas,
    "pandas.Series": _pandas,
    "polars.DataFrame": _polars_frame,
    "polars.Series": lambda value: _polars_frame(value.to_frame()),
    "pyarrow.RecordBatch": _pyarrow,
    "pyarrow.Table": _pyarrow,
    "xarray.DataArray": _xarray,
    "xarray.Dataset": _xarray,
}
