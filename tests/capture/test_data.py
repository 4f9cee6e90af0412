"""What makes two tables or arrays two things, and what does not; and which are known by their content."""

import json
import os
import pickle
import subprocess
import sys
import weakref
from collections import defaultdict
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from ivcap_flows.capture import contents, recorded
from ivcap_flows.capture import data as versions
from ivcap_flows.capture.contents import UnhashedError, read
from ivcap_flows.provenance.records import content_of

NUMBERS = np.arange(1.0, 10.0, dtype="<f4")
POINT = np.dtype([("x", "<i4"), ("y", "<i4")])
FRAME = pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]})
LOCAL = pd.date_range("2021-04-03", periods=3, freq="h")
UTC, HOBART = LOCAL.tz_localize("UTC"), LOCAL.tz_localize("UTC").tz_convert("Australia/Hobart")
DOUBLED = datetime(2021, 4, 4, 2, tzinfo=ZoneInfo("Australia/Hobart"))


def raw(dtype: Any) -> np.ndarray:
    """The same bytes as values of any type."""
    return np.frombuffer(NUMBERS.tobytes()[:32], dtype)


def masked(values: Any, mask: Any, **how: Any) -> Any:
    return np.ma.array(values, mask=mask, **how)


def items(*values: Any) -> np.ndarray:
    """Python objects."""
    made = np.empty(len(values), object)
    made[:] = values
    return made


def series(values: Any, dtype: Any = None, **how: Any) -> pd.Series:
    return pd.Series(values, dtype=dtype, **how)


def categories(*args: Any, **how: Any) -> pd.Series:
    return pd.Series(pd.Categorical(*args, **how))


def single(value: Any) -> pd.Series:
    return pd.Series([value], dtype=object)


def columns(*labels: Any, **how: Any) -> pd.DataFrame:
    return pd.DataFrame([[1, 2]], columns=pd.Index(list(labels), **how))


def rows(index: Any) -> pd.DataFrame:
    return pd.DataFrame({"a": range(len(index))}, index=index)


def levels(*labels: Any, names: Any = None) -> pd.DataFrame:
    return rows(pd.MultiIndex.from_tuples(labels, names=names))


def with_attrs(value: Any, **attrs: Any) -> Any:
    made = value.copy()
    made.attrs = attrs
    return made


def polars(values: Any, dtype: Any = None) -> pl.Series:
    return pl.Series("a", values, dtype=dtype)


def arrow(values: Any, dtype: Any = None, attributes: Any = None, **how: Any) -> pa.Table:
    array = pa.array(values, dtype)
    return pa.table([array], schema=pa.schema([pa.field("a", array.type, **how)], metadata=attributes))


def cube(values: Any = ((0.0, 1.0), (2.0, 3.0)), *, dims: Any = ("x", "y"), **how: Any) -> xr.DataArray:
    return xr.DataArray(np.asanyarray(values), dims=dims, **how)


def variables(coords: Any = None, attrs: Any = None, **values: Any) -> xr.Dataset:
    return xr.Dataset({name: ("x", value) for name, value in values.items()}, coords, attrs)


def calendar(name: str) -> xr.DataArray:
    return cube(xr.date_range("2001-02-01", periods=4, calendar=name, use_cftime=True).values.reshape(2, 2))


DIFFERENT: dict[str, dict[str, Any]] = {
    "numpy": {
        **{str(kind): raw(kind) for kind in ("<i4", ">i4", "<u4", "<f4", ">f4", "<i8", "<f8", "<c8", "u1", "S1", "V4")},
        **{kind: raw(kind) for kind in ("<M8[s]", "<M8[ns]", "<M8[D]", "<M8[M]", "<m8[s]", "<m8[h]")},
        "the values of <i4 in another byte order": raw("<i4").astype(">i4"),
        "another shape": raw("<i4").reshape(2, 4),
        "the same, turned": raw("<i4").reshape(4, 2),
        "a field <i4": raw([("v", "<i4")]),
        "a field <f4": raw([("v", "<f4")]),
        "a field of another name": raw([("w", "<i4")]),
        "a field <M8[s]": raw([("v", "<M8[s]")]),
        "a field <M8[ms]": raw([("v", "<M8[ms]")]),
        "two fields": raw([("v", "<i4"), ("w", "<f4")]),
        "two fields in another order": raw([("w", "<f4"), ("v", "<i4")]),
        "fields within a field": raw([("v", POINT)]),
        "other fields within a field": raw([("v", [("x", "<i4"), ("z", "<i4")])]),
        "an array in a field": raw([("v", "<i4", 2)]),
        "a number": np.array(1.5),
        "a list of one number": np.array([1.5]),
        "zero": np.array([0.0]),
        "negative zero": np.array([-0.0]),
        "no whole numbers": np.array([], "i4"),
        "no fractions": np.array([], "f4"),
        "truth values": np.array([True, False]),
        "ones and zeros": np.array([1, 0], "u1"),
        "bytes": np.array([b"a"]),
        "longer bytes": np.array([b"a"], "S2"),
        "text": np.array(["a"]),
        "longer text": np.array(["a"], "U2"),
        "nothing masked": masked([1, 2], [0, 0]),
        "not masked": np.array([1, 2]),
        "a mask": masked([1, 2], [0, 1]),
        "another mask": masked([1, 2], [1, 0]),
        "another fill value": masked([1, 2], [1, 0], fill_value=-1),
        "a mask of a field": masked(raw(POINT), [(0, 1)] * 4),
        "a mask of another field": masked(raw(POINT), [(1, 0)] * 4),
        "records": np.rec.array(raw(POINT)),
        "a matrix": np.array([[1, 2]]).view(np.matrix),
        "no matrix": np.array([[1, 2]]),
        **{f"{item!r} as an object": items(item) for item in ("1", b"1", 1, 1.0, 1j, True, None, np.nan, Decimal(1))},
        **{f"{item!r} as an object": items(item) for item in ([1, 2], (1, 2), {1, 2}, {1: 2}, {"1": 2}, [[1], 2])},
        **{f"{kind.__name__} as an object": items(kind(1)) for kind in (np.int8, np.int16, np.float32, np.str_)},
        "arrays as objects": items(np.array([1, 2]), np.array([3])),
        "arrays cut elsewhere": items(np.array([1]), np.array([2, 3])),
        "texts cut here": items("ab", "c"),
        "texts cut there": items("a", "bc"),
    },
    "pandas": {
        **{kind: series([1, 2], kind) for kind in ("i1", "i8", "f8", "c16", "Int8", "Int64", "Float64", "category")},
        **{kind: series([1, 2], kind) for kind in ("M8[s]", "M8[ns]", "m8[s]", "m8[ms]", "object", "Sparse[int]")},
        **{f"arrow {kind}": series([1, 2], f"{kind}[pyarrow]") for kind in ("int64", "timestamp[s]", "timestamp[ms]")},
        **{f"Period by {freq}": series(pd.PeriodIndex.from_ordinals([1, 2], freq=freq)) for freq in "MD"},
        "missing": series([1, None], "Int64"),
        "zero": series([1, 0], "Int64"),
        "a missing fraction": series([1, None], "Float64"),
        "not a number": series([1, None], "f8"),
        "boolean": series([True], "boolean"),
        "bool": series([True], "bool"),
        "texts": series(["a", "b"], "string"),
        "texts as objects": series(["a", "b"], "object"),
        "a text and None": series(["a", None], "object"),
        "a text and not a number": series(["a", np.nan], "object"),
        "a text and NA": series(["a", pd.NA], "object"),
        "categories": categories(["a", "b"]),
        "categories in another order": categories(["a", "b"], ["b", "a"]),
        "ordered categories": categories(["a", "b"], ordered=True),
        "categories that nothing has": categories(["a", "b"], ["a", "b", "c"]),
        "categories of numbers": categories([1]),
        "categories of texts": categories(["1"]),
        "categories of nullable numbers": categories(pd.array([1], "Int64")),
        "other values left out": series(pd.arrays.SparseArray([1, 2], fill_value=1)),
        "without a zone": series(LOCAL),
        "without a zone, in milliseconds": series(LOCAL.as_unit("ms")),
        "as texts": series(LOCAL.strftime("%F %T"), object),
        "UTC": series(UTC),
        "UTC in milliseconds": series(UTC.as_unit("ms")),
        "Hobart": series(HOBART),
        "closed on the left": series(pd.arrays.IntervalArray.from_breaks([0, 1, 2], closed="left")),
        "closed on the right": series(pd.arrays.IntervalArray.from_breaks([0, 1, 2], closed="right")),
        "intervals of fractions": series(pd.arrays.IntervalArray.from_breaks([0.0, 1.0, 2.0])),
        "a text": single("2021-04-03"),
        "a date": single(date(2021, 4, 3)),
        "a moment": single(datetime(2021, 4, 3)),
        "a moment in UTC": single(datetime(2021, 4, 3, tzinfo=timezone.utc)),
        "a moment in Abidjan": single(datetime(2021, 4, 3, tzinfo=ZoneInfo("Africa/Abidjan"))),
        "a doubled hour": single(DOUBLED),
        "its repetition": single(DOUBLED.replace(fold=1)),
        "a Timestamp in seconds": single(pd.Timestamp("2021-04-03").as_unit("s")),
        "a Timestamp in milliseconds": single(pd.Timestamp("2021-04-03").as_unit("ms")),
        "a text of digits": single("1.5"),
        "a Decimal": single(Decimal("1.5")),
        "a Decimal with more digits": single(Decimal("1.50")),
        "no name": series([1]),
        "the name None": series([1], name="None"),
        "the name 0": series([1], name=0),
        "the name a": series([1], name="a"),
        "a table": pd.DataFrame({"a": [1]}),
        "columns": columns("a", "b"),
        "columns of other names": columns("a", "c"),
        "columns in another order": columns("b", "a"),
        "columns of one name": columns("a", "a"),
        "a number as a name": columns(0, "b"),
        "a text as a name": columns("0", "b"),
        "columns with a name": columns("a", "b", name="kind"),
        "columns named by categories": columns("a", "b", dtype="category"),
        "columns in levels": columns(("a", "b"), ("c", "d")),
        "columns named by pairs": columns(("a", "b"), ("c", "d"), tupleize_cols=False),
        "rows": FRAME,
        "rows with a name": FRAME.rename_axis("number"),
        "rows backwards": FRAME.iloc[::-1],
        "rows numbered from 1": FRAME.set_axis(range(1, 4)),
        "another value": FRAME.replace(6, 7),
        "an index": FRAME.set_index("a"),
        "two columns of one name": FRAME.set_axis(["a", "a"], axis=1),
        "two columns of one name, exchanged": FRAME[["b", "a"]].set_axis(["a", "a"], axis=1),
        "an index of texts": rows(pd.Index(["a", "b"])),
        "an index of texts with a name": rows(pd.Index(["a", "b"], name="station")),
        "an index of whole numbers": rows(pd.Index([1, 2], dtype="i8")),
        "an index of fractions": rows(pd.Index([1, 2], dtype="f8")),
        "an index of nullable numbers": rows(pd.Index([1, 2], dtype="Int64")),
        "an index with a missing number": rows(pd.Index([1, None], dtype="Int64")),
        "an index of months": rows(pd.PeriodIndex(["2021-04", "2021-05"], freq="M")),
        "an index in UTC": rows(UTC),
        "an index in Hobart": rows(HOBART),
        "an index without a zone": rows(LOCAL),
        "an index without a zone, in milliseconds": rows(LOCAL.as_unit("ms")),
        "levels": levels((1, 2)),
        "levels exchanged": levels((2, 1)),
        "levels with names": levels((1, 2), names=["x", "y"]),
        "levels with other names": levels((1, 2), names=["x", "z"]),
        "metres": with_attrs(FRAME, unit="m"),
        "kilometres": with_attrs(FRAME, unit="km"),
        "a series in metres": with_attrs(FRAME["a"], unit="m"),
        "a series in kilometres": with_attrs(FRAME["a"], unit="km"),
        "a whole number as an attribute": with_attrs(FRAME, a=1),
        "a fraction as an attribute": with_attrs(FRAME, a=1.0),
        "an array as an attribute": with_attrs(FRAME, a=np.array([0, 9])),
        "another array as an attribute": with_attrs(FRAME, a=np.array([0, 8])),
        "no whole numbers": pd.DataFrame({"a": series([], "i8")}),
        "no fractions": pd.DataFrame({"a": series([], "f8")}),
    },
    "polars": {
        **{str(kind): polars([1, 2], kind) for kind in (pl.Int8, pl.Int16, pl.UInt8, pl.Float32, pl.Date, pl.Time)},
        **{f"moments in {unit}": polars([1, 2], pl.Datetime(unit)) for unit in ("ms", "us", "ns")},
        **{f"spans in {unit}": polars([1, 2], pl.Duration(unit)) for unit in ("ms", "us", "ns")},
        **{zone: polars([1, 2], pl.Datetime("ms", zone)) for zone in ("UTC", "Australia/Hobart")},
        **{str(kind): polars([[1], [2]], kind) for kind in (pl.List(pl.Int8), pl.List(pl.Int16), pl.Array(pl.Int8, 1))},
        **{str(kind): polars(["a"], kind) for kind in (pl.String, pl.Categorical, pl.Enum(["a", "b"]))},
        "other categories": polars(["a"], pl.Enum(["a", "c"])),
        "bytes": polars([b"a"]),
        "another name": pl.Series("b", [b"a"]),
        "a table": pl.DataFrame({"a": [b"a"]}),
        "columns": pl.DataFrame({"a": [1], "b": [2]}),
        "columns in another order": pl.DataFrame({"b": [2], "a": [1]}),
        "zero": polars([0.0]),
        "negative zero": polars([-0.0]),
        "a missing number": polars([1.0, None]),
        "not a number": polars([1.0, float("nan")]),
        "a missing text": polars(["a", None]),
        "an empty text": polars(["a", ""]),
        "texts cut here": polars(["ab", "c"]),
        "texts cut there": polars(["a", "bc"]),
        "a date as text": polars(["2021-04-03"]),
        "a date": polars([date(2021, 4, 3)]),
        "digits": polars(["1.5"]),
        "a Decimal": polars([Decimal("1.5")]),
        "lists cut here": polars([[1, 2], [3]]),
        "lists cut there": polars([[1], [2, 3]]),
        "an empty list": polars([[1], []]),
        "no list": polars([[1], None]),
        "a list of nothing": polars([[1], [None]]),
        "a field": polars([{"x": 1}]),
        "another field": polars([{"y": 1}]),
        "another value of a field": polars([{"x": 2}]),
    },
    "pyarrow": {
        **{kind: arrow([1, 2], kind) for kind in ("int8", "int16", "uint8", "float", "date32", "duration[s]")},
        **{f"moments in {unit}": arrow([1, 2], pa.timestamp(unit)) for unit in ("ms", "us")},
        **{zone: arrow([1, 2], pa.timestamp("ms", zone)) for zone in ("UTC", "Australia/Hobart")},
        **{str(kind): arrow(["a"], kind) for kind in (pa.string(), pa.large_string(), pa.binary())},
        **{str(kind): arrow([Decimal("1.5")], kind) for kind in (pa.decimal128(5, 1), pa.decimal128(5, 2))},
        "not nullable": arrow([1, 2], "int8", nullable=False),
        "an attribute": arrow([1, 2], "int8", {"unit": "m"}),
        "another attribute": arrow([1, 2], "int8", {"unit": "km"}),
        "an attribute of a column": arrow([1, 2], "int8", metadata={"unit": "m"}),
        "another name": pa.table({"b": pa.array([1, 2], "int8")}),
        "a batch": arrow([1, 2], "int8").to_batches()[0],
        "missing": arrow([1, None]),
        "zero": arrow([1, 0]),
        "two truth values": arrow([True, True]),
        "three truth values": arrow([True, True, False]),
        "categories": arrow(pa.array(["a"]).dictionary_encode()),
        "another category": arrow(pa.array(["b"]).dictionary_encode()),
        "ordered categories": arrow(pa.DictionaryArray.from_arrays([0], ["a"], ordered=True)),
        "categories in a field": arrow(pa.StructArray.from_arrays([pa.array(["a"]).dictionary_encode()], ["x"])),
        "another category in a field": arrow(pa.StructArray.from_arrays([pa.array(["b"]).dictionary_encode()], ["x"])),
        "lists cut here": arrow([[1, 2], [3]]),
        "lists cut there": arrow([[1], [2, 3]]),
        "an empty list": arrow([[1], []]),
        "no list": arrow([[1], None]),
        "a map": arrow([[("x", 1)]], pa.map_("string", "int8")),
        "another map": arrow([[("x", 2)]], pa.map_("string", "int8")),
        "a field": arrow([{"x": 1}]),
        "another field": arrow([{"y": 1}]),
    },
    "xarray": {
        "an array": cube(),
        "other dimensions": cube(dims=("x", "z")),
        "dimensions in another order": cube(dims=("y", "x")),
        "an empty name": cube(name=""),
        "the name None": cube(name="None"),
        "the name t": cube(name="t"),
        "a data set": cube(name="t").to_dataset(),
        "another type": cube().astype("f4"),
        "seconds": cube(raw("<M8[s]").reshape(2, 2)),
        "nanoseconds": cube(raw("<M8[ns]").reshape(2, 2)),
        **{calendars: calendar(calendars) for calendars in ("noleap", "360_day")},
        **{f"the attribute {item!r}": cube(attrs={"a": item}) for item in (1, 1.0, "1", [1], (1,))},
        **{f"an attribute of {kind.__name__}": cube(attrs={"a": kind(1)}) for kind in (np.int16, np.int32)},
        "an array as an attribute": cube(attrs={"a": np.array([1])}),
        "a coordinate in metres": cube(coords={"x": ("x", [1, 2], {"units": "m"})}),
        "a coordinate in kilometres": cube(coords={"x": ("x", [1, 2], {"units": "km"})}),
        "a coordinate": cube(coords={"x": [1, 2]}),
        "another coordinate": cube(coords={"x": [1, 3]}),
        "a coordinate of fractions": cube(coords={"x": [1.0, 2.0]}),
        "variables": variables(t=[1.0], u=[2.0]),
        "variables exchanged": variables(t=[2.0], u=[1.0]),
        "a variable as a coordinate": variables(t=[1.0], u=[2.0]).set_coords("u"),
        "a variable": variables(t=[1.0]),
        "a variable of another name": variables(u=[1.0]),
        "an attribute of the data set": variables(t=[1.0], attrs={"a": 1}),
        "an attribute of the variable": xr.Dataset({"t": ("x", [1.0], {"a": 1})}),
        "a number as a name": xr.Dataset({0: ("x", [1.0])}),
        "a text as a name": xr.Dataset({"0": ("x", [1.0])}),
        "UTC": variables({"x": UTC}, t=[1, 2, 3]),
        "Hobart": variables({"x": HOBART}, t=[1, 2, 3]),
        "categories": variables(t=pd.Categorical(["a", "b"])),
        "categories in another order": variables(t=pd.Categorical(["a", "b"], ["b", "a"])),
    },
}
"""All of one library are two by two different; so are those of different libraries."""


def gaps(size: int) -> np.ndarray:
    """A structured array with gaps between its fields, which hold anything."""
    made = np.full(4 * size, 7, "u1").view(np.dtype({"names": ["v"], "formats": ["u1"], "offsets": [2], "itemsize": 4}))
    made["v"] = range(size)
    return made


def of_buffers(*below: int) -> pa.Table:
    """A table with a missing item, below which there is something."""
    valid = pa.array([1, None, 3]).buffers()[0]
    return pa.table({"a": pa.Array.from_buffers(pa.int64(), 3, [valid, pa.py_buffer(np.array([1, *below, 3]))])})


TABLE = pa.table(
    {
        "text": ["x", None, "zz", "x" * 40] * 3,
        "number": [1, 2, None, 4] * 3,
        "truth": [True, None, False, True] * 3,
        "list": [[1, None], [], None, [2, 3]] * 3,
        "field": [{"a": 1, "b": "x"}, {"a": None, "b": "y"}, {"a": 3, "b": None}, {"a": 4, "b": "z"}] * 3,
        "category": pa.array(["a", "b", "c", "a"] * 3).dictionary_encode(),
    }
)
POLARS = pl.DataFrame(
    {"t": ["x", None, "z" * 40], "n": [1, None, 3], "b": [True, None, False], "l": [[1], None, [2, 3]]}
)

SAME: dict[str, tuple[Any, Any]] = {
    "numpy: order in memory": (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
    "numpy: a view of every other item": (np.arange(3) * 2, np.arange(6)[::2]),
    "numpy: a view backwards": (np.array([2, 1, 0]), np.arange(3)[::-1]),
    "numpy: one item for all": (np.array([[1, 2], [1, 2]]), np.broadcast_to([1, 2], (2, 2))),
    "numpy: gaps between fields": (gaps(4), np.array([(n,) for n in range(4)], [("v", "u1")])),
    "numpy: below a mask": (masked([1, 2, 3], [0, 1, 0]), masked([1, 9, 3], [0, 1, 0])),
    "numpy: a mask of none and no mask": (masked([1, 2], False), masked([1, 2], [0, 0])),
    "numpy: below the mask of a field": (
        masked(np.array([(1, 2)], POINT), [(0, 1)]),
        masked(np.array([(1, 9)], POINT), [(0, 1)]),
    ),
    "pandas: blocks": (FRAME, pd.concat([FRAME["a"], FRAME["b"]], axis=1)),
    "pandas: a view of every other row": (FRAME.iloc[[0, 2]].set_index("a"), FRAME.iloc[::2].set_index("a")),
    "pandas: below a missing item": (
        series(pd.arrays.IntegerArray(np.array([1, 2]), np.array([False, True]))),
        series(pd.arrays.IntegerArray(np.array([1, 9]), np.array([False, True]))),
    ),
    "pandas: chunks": (
        series([1, 2, 3], "int64[pyarrow]"),
        pd.concat([series([1], "int64[pyarrow]"), series([2, 3], "int64[pyarrow]")], ignore_index=True),
    ),
    "pandas: levels that nothing has": (
        levels(("a", 1), ("b", 2)).iloc[:1],
        levels(("a", 1)),
    ),
    "pandas: attributes in another order": (with_attrs(FRAME, a=1, b=2), with_attrs(FRAME, b=2, a=1)),
    "pandas: rhythm of an index": (rows(LOCAL), rows(pd.DatetimeIndex(list(LOCAL)).as_unit(LOCAL.unit))),
    "polars: chunks": (POLARS, pl.concat([POLARS[:2], POLARS[2:]])),
    "polars: chunks that are kept": (POLARS, pl.concat([POLARS[:1], POLARS[1:]], rechunk=False)),
    "polars: a part of more": (POLARS, pl.concat([POLARS, POLARS, POLARS])[3:6]),
    "polars: a selection": (POLARS, pl.concat([POLARS, POLARS]).filter(pl.Series([False] * 3 + [True] * 3))),
    "polars: below a missing item": (
        pl.DataFrame({"n": [1, None, 3]}),
        pl.DataFrame({"n": [1, 2, 3]}).select(pl.when(pl.col("n") != 2).then("n")),
    ),
    "polars: codes of categories": (
        pl.Series(["a", "b"], dtype=pl.Categorical),
        pl.Series(["c", "b", "a", "b"], dtype=pl.Categorical)[2:],
    ),
    "pyarrow: chunks": (TABLE, pa.concat_tables([TABLE[:5], TABLE[5:6], TABLE[6:]])),
    "pyarrow: a part of more": (TABLE[:4], pa.concat_tables([TABLE, TABLE]).combine_chunks()[8:12]),
    "pyarrow: a selection": (TABLE[:4], TABLE.filter(pa.array([False] * 8 + [True] * 4))),
    "pyarrow: below a missing item": (of_buffers(0), of_buffers(9)),
    "pyarrow: what is never missing": (pa.table({"a": [1, 3]}), pa.table({"a": pc.drop_null(pa.array([1, None, 3]))})),
    "xarray: order in memory": (cube(), cube(np.asfortranarray(cube().values))),
    "xarray: order of variables": (variables(t=[1.0], u=[2.0]), variables(u=[2.0], t=[1.0])),
    "xarray: order of attributes": (cube(attrs={"a": 1, "b": 2}), cube(attrs={"b": 2, "a": 1})),
}


def digest_of(value: Any) -> str:
    return read(value)[2]().sha256


def digests() -> dict[str, str]:
    """The digests of all values above, by their names."""
    return {
        f"{library}: {name}": digest_of(value) for library, named in DIFFERENT.items() for name, value in named.items()
    }


@pytest.mark.catches("no schema in the digest")
def test_what_differs_in_anything_is_two_things():
    """Types, units, zones, byte order, labels, names and attributes belong to what a value is. With `-rP`, the values
    and the number of pairs are printed.
    """
    alike = defaultdict(list)
    for name, digest in digests().items():
        alike[digest].append(name)
    assert [names for names in alike.values() if len(names) > 1] == []
    for library, named in DIFFERENT.items():
        print(f"{library}: {'; '.join(named)}")
    print(f"{len(alike)} values, {len(alike) * (len(alike) - 1) // 2} pairs, each of two things")


def test_how_a_value_lies_in_memory_makes_no_other_thing():
    """Nor do chunks, strides, what is below a missing item, and the order of what has none."""
    assert [name for name, (one, two) in SAME.items() if digest_of(one) != digest_of(two)] == []


@pytest.mark.long
def test_digests_are_the_same_in_another_process():
    """Where texts hash otherwise."""
    code = "import json, test_data; print(json.dumps(test_data.digests()))"
    path = os.pathsep.join(str(Path(__file__).parents[above] / name) for above, name in ((0, ""), (1, "mutants")))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert json.loads(done.stdout) == digests()


NUMERIC = drawn.scalar_dtypes() | drawn.array_dtypes(drawn.scalar_dtypes(), max_size=3)


@given(st.binary(min_size=96, max_size=96), NUMERIC, NUMERIC)
def test_equal_bytes_are_one_array_only_if_they_are_of_one_type(data: bytes, first: np.dtype, second: np.dtype) -> None:
    """Of any two types, with and without fields."""
    one, two = (np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind) for kind in (first, second))
    assert (digest_of(one) == digest_of(two)) == (first == second)


MONTHS = pd.date_range("1980-01", "2019-12", freq="MS")
X, Y = np.meshgrid(np.linspace(-180, 180, 361), np.linspace(-90, 90, 181))
BY_CHANCE: dict[str, Any] = {
    "nothing": np.array([]),
    "an empty table": pd.DataFrame({"a": []}),
    "zeros": np.zeros(100_000),
    "all missing": np.full(1000, np.nan),
    "all missing, in a table": pl.DataFrame({"a": [None] * 1000, "b": [float("nan")] * 1000}),
    "masked altogether": masked(np.sin(np.arange(1000)), True),
    "one number among zeros": np.where(np.arange(100_000) == 500, 1.234567, 0.0),
    "a range": np.arange(100),
    "a long range": np.arange(1_000_000),
    "even steps": np.linspace(-90, 90, 181),
    "even steps in half precision": np.linspace(-90, 90, 1801, dtype="f4"),
    "even steps in a table": pa.table({"a": np.linspace(0, 1, 1000), "b": range(1000)}),
    "an identity": np.eye(500),
    "a triangle": np.triu(np.ones((50, 50))),
    "a mask of two halves": np.arange(100_000) < 33_333,
    "a pattern": np.tile([3, 1, 4, 1, 5, 9, 2, 6], 1000),
    "a checkerboard": np.indices((100, 100)).sum(0) % 2,
    "a grid": np.stack([X, Y]),
    "an empty map": xr.Dataset({"t": (("y", "x"), np.zeros(X.shape))}, {"x": X[0], "y": Y[:, 0]}, {"title": "T"}),
    "days": pd.Series(list(MONTHS[0] + pd.to_timedelta(range(1000), "D")), dtype=object),
    "a calendar": pd.DataFrame({"a": np.zeros(len(MONTHS))}, index=MONTHS),
    "months of the year": MONTHS.month.to_numpy(),
    "a small table": pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]}),
    "a small table of texts": pl.DataFrame({"a": ["north", "south"], "b": ["x", None]}),
    "many columns of ranges": pd.DataFrame({f"c{number}": range(100) for number in range(100)}),
}
SINES = np.sin(np.arange(60))
IDENTIFIED: dict[str, Any] = {
    "sixty measured numbers": SINES,
    "numbers in a table": pd.DataFrame({"a": range(60), "b": SINES}),
    "numbers in polars": pl.DataFrame({"a": ["x"] * 60, "b": SINES}),
    "numbers in arrow": pa.table({"a": [[value] for value in SINES]}),
    "numbers below a mask of some": masked(SINES, [0, 1] * 30),
    "numbers on a map": xr.DataArray(SINES.reshape(6, 10), dims=("y", "x")),
    "texts": pd.Series([f"station {number**2 % 101}" for number in range(100)]),
    "a mask": SINES[np.arange(1000) % 60] > np.sin(np.arange(1000) ** 2),
}


@pytest.mark.catches("no floor of entropy")
def test_what_may_be_equal_by_chance_is_known_by_the_object():
    """What compresses to next to nothing: out of a cache it is another thing. A value with more in it is the same."""
    cached = {name: (value, pickle.loads(pickle.dumps(value))) for name, value in (BY_CHANCE | IDENTIFIED).items()}
    joined = {name: {content_of(versions.given(each, None).record()) for each in both} for name, both in cached.items()}
    assert all(joined[name] == {None} for name in BY_CHANCE)
    assert all(len(joined[name]) == 1 and None not in joined[name] for name in IDENTIFIED)
    assert all(versions.given(value, None).id == versions.given(value, None).id for value, _ in cached.values())


@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e3),
    st.integers(0, 3000),
    st.sampled_from(["f8", "f4", "i8", "M8[s]", "m8[D]"]),
)
def test_even_steps_identify_nothing(start: float, step: float, count: int, kind: str) -> None:
    """Wherever they begin, however long they are."""
    if kind[0] != "f":
        start, step = round(start), round(step)
    assert not read((start + np.arange(count) * step).astype(kind))[2]().identifies


def table() -> pd.DataFrame:
    return pd.DataFrame({"sst": SINES})


def test_what_is_not_read_says_why(monkeypatch):
    """Lazy frames, unknown objects and types, and what is too large are unhashed, each with its reason. So is a table
    that breaks when it is read.
    """
    dask = pytest.importorskip("dask.array")

    class Odd:
        def __repr__(self) -> str:
            raise AssertionError("printed")

    class Metres(np.ndarray):
        """One of the types that hold a unit besides the numbers."""

    class Broken(pd.DataFrame):
        def __len__(self) -> int:
            raise RuntimeError

    def reason_of(value: object) -> str:
        with pytest.raises(UnhashedError) as caught:
            read(value)[2]()
        return str(caught.value)

    odd = np.array([Odd()], dtype=object)
    assert "not computed" in reason_of(pl.LazyFrame({"a": [1]}))
    assert "not computed" in reason_of(dask.ones(3))
    assert "Odd" in reason_of(odd)
    assert "Odd" in reason_of(pd.DataFrame({"a": odd}))
    assert "Odd" in reason_of(cube().assign_attrs(a=Odd()))
    assert "Metres may hold more" in reason_of(np.arange(3).view(Metres))
    broken = versions.given(Broken({"a": [1]}), None)
    assert (broken.sha256, broken.record().type) == (None, "unhashed") and "RuntimeError" in broken.reason
    monkeypatch.setattr(contents, "LIMIT", 10)
    assert "larger" in reason_of(np.arange(100))
    assert "larger" in reason_of(table())


def test_recording_keeps_no_data_alive():
    """Once the flow lets go of a table, nothing holds it, though its call may still wait to be written."""
    frame = recorded(table)()
    kept = weakref.ref(frame)
    del frame
    assert kept() is None
