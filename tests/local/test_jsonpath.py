"""The language of `content-path`: PostgreSQL's JSON paths, compared with a PostgreSQL server."""

from __future__ import annotations

import json

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
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
        ('$.name ? (@ like_regex ".*a B.*" flag "i")', True),
        ('$.name ? (@ like_regex "a B")', False),
        ('$ ? (@.text like_regex "o.*t" || @.n like_regex "1")', False),
        ('$.text ? (@ like_regex "^ONE$" flag "i")', False),
        ('$.text ? (@ like_regex "e\\nt|x$")', True),
        ('$."a-b" ? (@ like_regex "1")', False),
        ("$.images[*] ? (@.size > 10000)", True),
        ("$.images ? (@.size > 30000)", False),
        ("$.images[0].size ? (@ > 5)", False),
        ("$.images ? (@.size == $.n)", False),
        ('$.tags ? (@ == "y")', True),
        ('$."a-b" ? (@ == 1)', True),
        ("$.none ? (@ == null)", True),
        ("$.none ? (@ != 1)", True),
        ('$.n ? (@ != "1")', False),
        ('$ ? (@.n == "1" || (@.n == 1 && @.name starts with "A"))', True),
        ("$.images ? (@.size == -5 || @.size == 5.0e0)", True),
        ("$.absent", False),
        ("$.n", True),
        ('$ ? (@.n == 2 || @.name != "x")', True),
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
        *('$ ? (@ like_regex "(a)")', '$ ? (@ like_regex "[a-z]")', '$ ? (@ like_regex "a\\\\d")'),
        *('$ ? (@ like_regex "a$b")', '$ ? (@ like_regex "a" flag "x")', "$ ? (@ like_regex 1)"),
        *(
            '$ ? (@ like_regex "a**")',
            '$ ? (@ like_regex "a{2}")',
            "$ ? (@ like_regex)",
            "$ ? (!(@.n == 1))",
            "$ ? (exists(@.n))",
            '$ ? ((@.n == "1") is unknown)',
        ),
        *(
            "$.*",
            "$[last]",
            "$[0 to 1]",
            "$[0, 1]",
            "$.n /* a comment */",
            "lax $.n",
            "$ ? " + "(" * 200,
            '$."\\ud800"',
        ),
    ],
)
def test_a_json_path_outside_the_subset_is_refused(path):
    """An unsupported path is a 400 that shows the supported form, and never a wrong answer."""
    with pytest.raises(Problem) as refused:
        matches(DOCUMENT, path)
    assert refused.value.status == 400 and "content-path" in refused.value.body["message"]


def test_no_expression_holds_the_platform_up():
    """Whatever an expression repeats, the text is read once."""
    text, expression = "a" * 2000, "a*" * 20 + "b"
    assert not matches(json.dumps({"t": text}), f'$.t ? (@ like_regex "{expression}")')
    assert matches(json.dumps({"t": f"{text}b"}), f'$.t ? (@ like_regex "{expression}")')


KEYS = ("a", "b", "c")
DOCUMENTS = st.recursive(
    st.sampled_from([0, 1, -1, 2, 1.5, 1.0, 0.1, True, False, None, "", "a", "b", "ab", "1", "A", "é", " a", "a\nb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
LITERALS = st.sampled_from(
    ["0", "1", "-1", "1.5", "0.10", "1e0", "true", "false", "null", '""', '"a"', '"1"', '"ab"', '"A"', '"\\u0061"']
)
ATOMS = st.tuples(st.sampled_from([*"aAb1é .-", "\\\\.", "\\\\^", "\\n"]), st.sampled_from(["", *"*+?"])).map("".join)
EXPRESSIONS = st.tuples(
    st.sampled_from(["", "^"]), st.lists(ATOMS | st.just("|"), max_size=4).map("".join), st.sampled_from(["", "$"])
).map(lambda parts: f'"{"".join(parts)}"')
STEPS = st.sampled_from([".a", ".b", '."c"', "[*]", "[0]", "[1]"])


def paths(start, steps=STEPS):
    return st.lists(steps, max_size=3).map(lambda found: start + "".join(found))


def comparisons(steps):
    side = paths("@", steps) | paths("$") | LITERALS
    return st.one_of(
        st.tuples(side, st.sampled_from(["==", "!=", "<>", "<", "<=", ">", ">="]), side).map(" ".join),
        st.tuples(side, st.just("starts with"), st.sampled_from(['"a"', '""', '"é"'])).map(" ".join),
        st.tuples(side, st.just("like_regex"), EXPRESSIONS, st.sampled_from(["", 'flag "i"', 'flag ""'])).map(" ".join),
    )


CONDITIONS = st.recursive(
    comparisons(STEPS),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(" ".join),
        inner.map("({})".format),
        comparisons(STEPS | inner.map(" ? ({})".format)),
    ),
    max_leaves=5,
)
PATHS = st.builds(
    "{}{}".format,
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
