"""The small languages in query parameters: filters and JSON paths."""

import sqlite3

import pytest

from ivcap_flows.local.ivcap.errors import Problem
from ivcap_flows.local.ivcap.filters import Column, compile_filter
from ivcap_flows.local.ivcap.jsonpath import matches

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
    """Comparisons, patterns, both quotes, precedence of && over ||, negation, parentheses."""
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
    """400 with words, never an SQL error."""
    with pytest.raises(Problem) as refused:
        chosen(text)
    assert refused.value.status == 400 and refused.value.body["message"]


DOCUMENT = (
    '{"n": 1, "name": "A b", "tags": ["x", "y"], "images": [{"size": 5}, {"size": 20000}], "none": null, "a-b": 1}'
)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.n ? (@ == 1)", True),
        ("$.n ? (@ == 1.0)", True),
        ('$.n ? (@ == "1")', False),
        ('$.name ? (@ == "A b")', True),
        ('$.name ? (@ starts with "A")', True),
        ("$.images[*] ? (@.size > 10000)", True),
        ("$.images ? (@.size > 30000)", False),
        ("$.images[0].size ? (@ > 5)", False),
        ('$.tags ? (@ == "y")', True),
        ('$."a-b" ? (@ == 1)', True),
        ("$.none ? (@ == null)", True),
        ("$.absent", False),
        ("$.n", True),
        ("$ ? (exists(@.n) && !(@.n > 1))", True),
        ('$ ? (@.n == 2 || @.name != "x")', True),
        ("$.n ? (@ == true)", False),
    ],
)
def test_a_json_path_selects(path, found):
    """As PostgreSQL's jsonb_path_exists does in lax mode."""
    assert matches(DOCUMENT, path) is found


@pytest.mark.parametrize(
    "path",
    ["$.[[ ? (", "n == 1", "$.n.type()", "strict $.n", '$.n ? (@ like_regex "x")', "$.n ? (@ == )", "$[-1]", '$."\\z"'],
)
def test_a_json_path_outside_the_subset_is_refused(path):
    """400 that says what is taken instead of a wrong answer."""
    with pytest.raises(Problem) as refused:
        matches(DOCUMENT, path)
    assert refused.value.status == 400 and "content-path" in refused.value.body["message"]
