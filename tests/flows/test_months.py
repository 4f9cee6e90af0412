"""The CSV of a monthly series: what is read, and what a fault is called."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.services.months import COLUMNS, Month, SeriesError, read_series

HEADER = ",".join(f'"{name}"' for name in COLUMNS)
GOOD = ",".join(f"{20 + month / 10:.3f}" for month in range(12))


def table(*rows: str) -> bytes:
    return "\n".join((HEADER, *rows, "")).encode()


def test_every_month_of_a_row_is_read_in_order():
    """A row gives January to December of its year."""
    series = read_series(table(f"1950,{GOOD}", f"1951,{GOOD}"))

    assert list(series) == [Month(1950, 1).plus(step) for step in range(24)]
    assert series[Month(1951, 12)] == 21.1


@pytest.mark.parametrize("mark", ["", "  ", "-99", "-99.99", "-999.9", "-9.99E+01"])
def test_a_missing_month_has_no_entry(mark):
    """An empty cell and a value of -99 or less are missing months, not temperatures."""
    series = read_series(table(f"1950,{mark}," + ",".join(["20"] * 11)))

    assert Month(1950, 1) not in series
    assert len(series) == 11


@pytest.mark.parametrize(
    "data",
    [
        ("\ufeff" + HEADER + "\r\n" + f"1950,{GOOD}\r\n").encode(),
        (HEADER.lower().replace('"', "") + "\n\n" + f'"1950",{GOOD}\n   \n').encode(),
    ],
    ids=["byte order mark and CRLF", "unquoted lower case and blank lines"],
)
def test_other_spellings_of_the_same_table_are_read(data):
    """Quotes, case, line ends, blank lines and a byte order mark make no difference."""
    assert len(read_series(data)) == 12


@pytest.mark.parametrize(
    ("data", "line", "column", "words"),
    [
        (b"", 0, 0, "the file is empty"),
        (b"a,b\n", 1, 1, "'a' where YEAR is expected"),
        (HEADER.replace("FEB", "FEV").encode(), 1, 3, "'FEV' where FEB is expected"),
        (HEADER.removesuffix(',"DEC"').encode(), 1, 13, "nothing where DEC is expected"),
        ((HEADER + ",TOTAL\n").encode(), 1, 14, "'TOTAL' after DEC"),
        (table(), 2, 0, "followed by no year"),
        (table(f"1950,{GOOD}", "1951,20.1,abc" + ",20" * 10), 3, 3, "'abc' is no number"),
        (table("1950,20.1,nan" + ",20" * 10), 2, 3, "'nan' is no number"),
        (table("1950,1_0.5,20" + ",20" * 10), 2, 2, "'1_0.5' is no number"),
        (table("1950,20.1,20,236.4" + ",20" * 9), 2, 4, "no sea surface temperature"),
        (table("1950,20.1,20.3"), 2, 4, "3 columns where 13 are expected"),
        (table(f"1950,{GOOD},99"), 2, 14, "14 columns where 13 are expected"),
        (table(f"50,{GOOD}"), 2, 1, "'50' is no year"),
        (table(f"1950,{GOOD}", f"1950,{GOOD}"), 3, 1, "1950 follows 1950"),
        (table(f"1950,{GOOD}", f"1952,{GOOD}"), 3, 1, "1952 follows 1950"),
        (table("1950" + "," * 12), 0, 0, "every month is missing"),
        (table('1950,"20.1' + ",20" * 11), 2, 0, "no CSV"),
        (HEADER.encode() + b"\n1950,\xff\xfe", 2, 0, "no UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", 1, 0, "no UTF-8 text"),
    ],
)
def test_a_fault_names_its_line_and_column(data, line, column, words):
    """Whatever is wrong with the table, the error says where, in words and as attributes."""
    with pytest.raises(SeriesError) as caught:
        read_series(data)

    text = str(caught.value)
    assert words in text
    assert (caught.value.line, caught.value.column) == (line, column)
    assert (f"line {line}" in text) == (line > 0)
    assert (f"column {column}" in text) == (column > 0)
    if 0 < column <= len(COLUMNS):
        assert f"({COLUMNS[column - 1]})" in text


def test_a_fault_quotes_no_more_than_the_start_of_a_cell():
    """A huge cell does not flood the message."""
    with pytest.raises(SeriesError) as caught:
        read_series(table("1950," + "x" * 5000 + ",20" * 11))

    assert len(str(caught.value)) < 200


def test_a_month_moves_across_years():
    """`plus` carries into the neighbouring year, both ways."""
    assert Month(1982, 12).plus(1) == Month(1983, 1)
    assert Month(1983, 1).plus(-1) == Month(1982, 12)
    assert str(Month(1983, 1)) == "1983-01"
    assert pickle.loads(pickle.dumps(Month(1983, 1))) == Month(1983, 1)


values = st.none() | st.integers(-500, 4500).map(lambda number: number / 100)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9900), st.lists(st.lists(values, min_size=12, max_size=12), min_size=1, max_size=5))
def test_what_is_written_is_read(first, years):
    """Every table of the form gives back the values it was written from."""
    written = {
        Month(first + offset, month): value
        for offset, year in enumerate(years)
        for month, value in enumerate(year, start=1)
        if value is not None
    }
    data = table(
        *(
            f"{first + offset:04d}," + ",".join("" if value is None else f"{value}" for value in year)
            for offset, year in enumerate(years)
        )
    )
    if written:
        assert read_series(data) == written
    else:
        with pytest.raises(SeriesError):
            read_series(data)


cells = st.text(alphabet='0123456789.-eE+", \n\r\tnai°\x00', max_size=8)
almost = st.lists(cells, max_size=30).map(lambda parts: table(",".join(parts)))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | almost)
def test_no_bytes_whatever_raise_anything_else(data):
    """Any bytes are a series or a `SeriesError`."""
    try:
        series = read_series(data)
    except SeriesError:
        return
    assert all(-5 <= value <= 45 for value in series.values())
