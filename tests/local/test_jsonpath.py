"""The language of `content-path`: PostgreSQL's JSON paths, compared with a PostgreSQL server."""

from __future__ import annotations

import json
import re
import string
import time

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ivcap_flows.local.ivcap.errors import Problem
from ivcap_flows.local.ivcap.jsonpath import matches

SLOW = settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def postgresql(postgresql_server):
    with psycopg.connect(postgresql_server.format("postgres"), autocommit=True) as connection:
        yield connection


def by_postgresql(connection, documents, path):
    """Return what PostgreSQL answers for each document, or None if it refuses the path."""
    question = (
        "SELECT jsonb_path_exists_tz(document::jsonb, %s::jsonpath) "
        "FROM unnest(%s::text[]) WITH ORDINALITY AS given (document, place) ORDER BY place"
    )
    try:
        return [found for (found,) in connection.execute(question, (path, documents))]
    except (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError):
        return None


def by_us(documents, path):
    try:
        return [matches(document, path) for document in documents]
    except Problem:
        return None


DOCUMENT = (
    '{"n": 1, "name": "A b", "tags": ["x", "y"], "images": [{"size": 5}, {"size": 20000}], "none": null, "a-b": 1,'
    ' "text": "one\\ntwo"}'
)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.n ? (@ == 1)", True),
        ("$.n ? (@ == 1.0)", True),
        ('$.n ? (@ == "1")', False),
        ("$.n ? (@ == true)", False),
        ('$.name ? (@ starts with "A")', True),
        ("$.images[*] ? (@.size > 10000)", True),
        ("$.images ? (@.size > 30000)", False),
        ("$.images[0].size ? (@ > 5)", False),
        ("$.images[0 to 1].size ? (@ > 5)", True),
        ("$.images ? (@.size == $.n)", False),
        ('$.tags ? (@ == "y")', True),
        ('$."a-b" ? (@ == 1)', True),
        ("$.none ? (@ == null)", True),
        ("$.absent", False),
        ("$.n", True),
        ("$ ? (exists(@.n) && !(@.n > 1))", True),
        ('$ ? (@.n == 2 || @.name != "x")', True),
        ('$.n ? (!(@ == "1"))', False),
        ("$ ? (!(@.absent == 1))", True),
        ('$ ? ((@.n == "1") is unknown)', True),
        ('$.name ? (@ like_regex "^a")', False),
        ('$.name ? (@ like_regex "^a" flag "i")', True),
        ('$.name ? (@ like_regex "^A B$" flag "x")', None),
        ('$.name ? (@ like_regex "a. b")', False),
        ('$.name ? (@ like_regex "A b" flag "q")', True),
        ('$.text ? (@ like_regex "one.two")', False),
        ('$.text ? (@ like_regex "one.two" flag "s")', True),
        ('$.text ? (@ like_regex "^two$")', False),
        ('$.text ? (@ like_regex "^two$" flag "m")', True),
        ('$.text ? (@ like_regex "ONE.TWO" flag "is")', True),
        ('$.text ? (@ like_regex "one" flag "g")', None),
        ('$.text ? (@ like_regex "(")', None),
        ('$.tags[last] ? (@ like_regex "[[:alpha:]]")', True),
    ],
)
def test_a_json_path_selects_as_in_postgresql(postgresql, path, found):
    """A path selects what jsonb_path_exists selects in lax mode: what cannot be compared is neither true nor false."""
    answers = None if found is None else [found]
    assert by_postgresql(postgresql, [DOCUMENT], path) == answers
    assert by_us([DOCUMENT], path) == answers


@pytest.mark.parametrize(
    "path",
    [
        *("$.[[ ? (", "n == 1", "$.n ? (@ == )", "$.n == 1", "$n", "$.n ? (@ == 01)", '$ ? (@ == "\\u12")'),
        *("$.n.type()", "strict $.n", "$[-1]", "$.**", "$ ? (@.n + 1 == 2)", "$[0.5]", "$" + "[0]" * 2000),
        '$ ? (@ like_regex "(a)\\\\1")',
        '$ ? (@ like_regex "(?i)a")',
        '$ ? (@ like_regex "a{256}")',
        '$ ? (@ like_regex "' + "(" * 200 + '")',
    ],
)
def test_a_json_path_outside_the_subset_is_refused(path):
    """An unsupported path is a 400 that shows the supported form, and never a wrong answer."""
    with pytest.raises(Problem) as refused:
        matches(DOCUMENT, path)
    assert refused.value.status == 400 and "content-path" in refused.value.body["message"]


def test_no_expression_takes_for_ever():
    """Expressions that would take a backtracking engine years are answered at once."""
    began = time.monotonic()
    assert not matches(json.dumps("a" * 1000 + "b"), '$ ? (@ like_regex "^(a+)+$")')
    assert not matches(json.dumps("a" * 1000), '$ ? (@ like_regex "(a*)*(a|aa)*b")')
    assert time.monotonic() - began < 5


KEYS = ("a", "b", "c")
DOCUMENTS = st.recursive(
    st.sampled_from([0, 1, -1, 2, 1.5, 1.0, 0.1, True, False, None, "", "a", "b", "ab", "1", "A", "é", " a", "a\nb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
LITERALS = st.sampled_from(
    ["0", "1", "-1", "1.5", "0.10", "1e0", "true", "false", "null", '""', '"a"', '"1"', '"ab"', '"A"', '"\\u0061"']
)
PLACES = st.sampled_from(["0", "1", "2", "last", "last - 1", "0 to 1", "1 to last", "last to 0", "0, last", "0 to 1,0"])
STEPS = st.sampled_from([".a", ".b", '."c"', ".*", "[*]"]) | PLACES.map("[{}]".format)
EXPRESSIONS = st.sampled_from(['"^a"', '"a|b"', '"[[:alpha:]]"', '"^$"', '"\\\\s"', '"b$"', '"a.b"', '"^b"'])


def paths(start, steps=STEPS):
    return st.lists(steps, max_size=3).map(lambda found: start + "".join(found))


def comparisons(steps):
    side = paths("@", steps) | paths("$") | LITERALS
    flags = st.sampled_from(["", ' flag "i"', ' flag "s"', ' flag "m"', ' flag "q"', ' flag "ism"'])
    return st.one_of(
        st.tuples(side, st.sampled_from(["==", "!=", "<>", "<", "<=", ">", ">="]), side).map(" ".join),
        st.tuples(side, st.just("starts with"), st.sampled_from(['"a"', '""', '"é"'])).map(" ".join),
        st.builds("{} like_regex {}{}".format, side, EXPRESSIONS, flags),
        paths("@", steps).map("exists ({})".format),
    )


CONDITIONS = st.recursive(
    comparisons(STEPS),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(" ".join),
        inner.map("!({})".format),
        inner.map("({})".format),
        inner.map("({}) is unknown".format),
        comparisons(STEPS | inner.map(" ? ({})".format)),
    ),
    max_leaves=5,
)
PATHS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "lax ", " /* any */ "]),
    paths("$", STEPS | CONDITIONS.map(" ? ({})".format)),
    CONDITIONS.map(" ? ({})".format),
)


@pytest.mark.long
@SLOW
@given(path=PATHS, documents=st.lists(DOCUMENTS, min_size=4, max_size=4))
def test_paths_select_as_postgresql_does(postgresql, path, documents):
    """Random paths and documents give PostgreSQL's answers in lax mode. No path of the subset is refused."""
    texts = [json.dumps(document) for document in documents]
    assert by_us(texts, path) == by_postgresql(postgresql, texts, path)


PARTS = st.sampled_from(
    [
        *"aAbBé-_0 {},]^$.|()[]*+?\\\n:",
        *(f"\\{letter}" for letter in "dwsDWSmMyYAZnB."),
        *("[a-z]", "[^a]", "[[:alpha:]]", "[[:upper:]]", "[^[:space:]_]", "[\\w-]", "[]a]", "[^]a]", "[a\\]]"),
        *("[a-b-]", "\\u00e9"),
        *("(?:", "(?=", "(?!", "(?<=", "(?<!", "(a|b)", "(ab)*", "{2}", "{1,2}", "{0,1}?", "*?", "+?"),
    ]
)


LEFT_OUT = re.compile(r"\(\?[^:=!<]|\\[0-9cxU]|\[[.=]")
"""Options, back references, characters by number, collating elements."""


@pytest.mark.long
@SLOW
@example(pattern=r"[\D[a-z]", flags="", texts=["", "a", "0", "[", "\n"])
@example(pattern=r"[^\W0]", flags="", texts=["", "a", "0", "_", " "])
@given(
    pattern=st.lists(PARTS, max_size=6).map("".join),
    flags=st.sets(st.sampled_from("ismq"), max_size=3).map(lambda found: "".join(sorted(found))),
    texts=st.lists(st.text("aAbBéÉ-_0 {},]^$\n.\\", max_size=5), min_size=5, max_size=5),
)
def test_expressions_match_as_postgresql_has_them(postgresql, pattern, flags, texts):
    """Random expressions with flags, valid or not, match or are refused as in PostgreSQL."""
    path = f"$ ? (@ like_regex {json.dumps(pattern, ensure_ascii=False)}"
    path += f' flag "{flags}")' if flags else ")"
    documents = [json.dumps(text) for text in texts]
    ours, theirs = by_us(documents, path), by_postgresql(postgresql, documents, path)
    assert ours == theirs or (ours is None and LEFT_OUT.search(pattern))


def test_characters_are_of_the_classes_that_postgresql_has_them_in(postgresql):
    """Character classes agree with PostgreSQL for ASCII and for letters; beyond, each has its own table."""
    characters = [*string.printable, *"éÉßñςΣ\u001f"]
    texts = [json.dumps(char) for char in characters]
    names = "alpha alnum digit xdigit space upper lower punct cntrl word graph print blank"
    for name in names.split():
        path = f'$ ? (@ like_regex "[[:{name}:]]")'
        assert by_us(texts, path) == by_postgresql(postgresql, texts, path), name
