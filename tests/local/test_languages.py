"""The language of filters in query parameters."""

import sqlite3

import pytest

from ivcap_flows.local.ivcap.errors import Problem
from ivcap_flows.local.ivcap.filters import Column, compile_filter

ROWS = [("alpha", 1), ("beta", 2), ("al*ha", 3), ("it's", 4), ("100%", 5)]


def chosen(text):
    columns = {"name": Column("name"), "size": Column("size", "number")}
    compiled = compile_filter(text, columns.get)
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE t (name TEXT, size INTEGER)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", ROWS)
        where, values = compiled or ("1", [])
        return [size for (size,) in connection.execute(f"SELECT size FROM t WHERE {where} ORDER BY size", values)]


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("", [1, 2, 3, 4, 5]),
        ("name ~= 'al%'", [1, 3]),
        ("name~='al*%'", [3]),
        ("name ~= ALPHA", []),
        ("name == 'it''s'", [4]),
        ('name eq "beta"', [2]),
        ("size >= 2 && size < 4", [2, 3]),
        ("(name ~= 'a%') && (size == 1)", [1]),
        ("size == 1 || size == 2 && name == 'none'", [1]),
        ("!(size > 1)", [1]),
        ("name ~= '%a' and ! size == 2", [1, 3]),
    ],
)
def test_a_filter_chooses(text, sizes):
    """Filters have comparisons, patterns, both quotes, precedence of && over ||, negation and parentheses."""
    assert chosen(text) == sizes


@pytest.mark.parametrize(
    "text",
    [
        "' OR '1'='1",
        "name ~= ",
        "((((",
        "name ~= 'x' && (",
        "nobody == 1",
        "size == many",
        "name 'x'",
        "(" * 5000,
        "a" * 5000,
    ],
)
def test_a_filter_that_cannot_be_read_is_refused(text):
    """An invalid filter is a 400 with a message, and never an SQL error."""
    with pytest.raises(Problem) as refused:
        chosen(text)
    assert refused.value.status == 400 and refused.value.body["message"]
