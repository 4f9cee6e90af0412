"""Search: what a program means, what it may not contain, and its requests and replies."""

import pytest

from ivcap_flows.local.ivcap.search.columns import Columns
from ivcap_flows.local.ivcap.search.datalog import Plan
from ivcap_flows.local.ivcap.search.program import Name, ProgramError, Tree, parse

DATALOG = "application/datalog+mangle"


def answer(text, **loaded):
    """Return the rows of `query`, with these rows as if loaded from aspects."""
    widths = {name: len(rows[0]) for name, rows in loaded.items()}
    return Plan(parse(text), widths).answer(loaded)


PROGRAMS = {
    "a rule joins what its premises share": (
        '# comment\nquery(A) :- # the collection\n order_parameter("o1", "images", C), collection(C, A).',
        {
            "order_parameter": [("o1", "images", "c1"), ("o1", "size", 3), ("o2", "images", "c2")],
            "collection": [("c1", "a1"), ("c2", "a2"), ("c1", "a3")],
        },
        [("a1",), ("a3",)],
    ),
    "recursion ends in a graph with a cycle": (
        'way(X, Y) :- edge(X, Y). way(X, Z) :- way(X, Y), edge(Y, Z). query(Y) :- way("b", Y).',
        {"edge": [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]},
        [("a",), ("b",), ("c",), ("d",)],
    ),
    "rules that need each other are answered together": (
        "even(0). even(Y) :- odd(X), step(X, Y). odd(Y) :- even(X), step(X, Y). query(X) :- even(X).",
        {"step": [(n, n + 1) for n in range(6)]},
        [(0,), (2,), (4,), (6,)],
    ),
    "a variable that is twice in an atom is one value": (
        "query(X) :- p(X, X, _).",
        {"p": [(1, 1, 2), (1, 2, 2), (3, 3, 4)]},
        [(1,), (3,)],
    ),
    "each _ is another variable": ("query(X) :- p(X, _, _).", {"p": [(1, 1, 2), (3, 3, 4)]}, [(1,), (3,)]),
    "a text is no number and no name": (
        'query(X) :- p("1", X).',
        {"p": [("1", "a"), (1, "b"), (Name("1"), "c")]},
        [("a",)],
    ),
    "1 and 1.0 are one": ("query(X) :- p(1.0, X).", {"p": [("1", "a"), (1, "b")]}, [("b",)]),
    "constants": ("query(/a). query('it\\'s'). query(-2.5e1).", {}, [(-25.0,), ("it's",), (Name("/a"),)]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_means_what_the_language_says(name):
    """A program over loaded rows gives the rows of `query`."""
    text, loaded, expected = PROGRAMS[name]
    assert answer(text, **loaded) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (".a.b", [(1,)]),
        (".l[*]", [("x",), ("y",)]),
        (".l[1]", [("y",)]),
        (".parameters[*].name|value", [("n", "v"), ("m", 2)]),
        (".parameters[*].name", [("n",), ("m",), ("half",)]),
        ('."$schema"', [("urn:s",)]),
        (".$schema", [("urn:s",)]),
        (".yes", [(Name("/true"),)]),
        (".a", [(Tree('{"b":1}'),)]),
        (".none", []),
        (".missing.b", []),
        ("entity", [("urn:e",)]),
    ],
)
def test_a_column_gives_what_its_path_leads_to(column, expected):
    """Missing members, null, and elements without one of the members give no row. Columns combine."""
    content = {
        "a": {"b": 1},
        "l": ["x", "y"],
        "parameters": [{"name": "n", "value": "v"}, {"name": "m", "value": 2}, {"name": "half"}],
        "$schema": "urn:s",
        "yes": True,
        "none": None,
    }
    columns = Columns([column])
    assert list(columns.rows("urn:e", content)) == expected
    assert all(len(row) == columns.width for row in expected)
    rows = list(Columns(["entity", ".l[*]", ".a.b"]).rows("urn:e", content))
    assert rows == [("urn:e", "x", 1), ("urn:e", "y", 1)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("query(X) :- p(X) |> do fn:group_by(X).", "transforms"),
        ("query(fn:plus(1, 1)).", "fn:plus"),
        ("query(X) :- p(X), !p(X).", "negation"),
        ("query(X) :- p(X), X < 1.", "comparisons"),
        ('query(X) :- p(X), "a" = X.', "comparisons"),
        ("query(X) :- p(X), :lt(X, 1).", ":lt"),
        ("query([1]).", "lists"),
        ("query({/a: 1}).", "maps"),
        ("Decl query(X).", "declarations"),
        (":other(/p).", ":other"),
        ("query(X) :- p(X), :match_prefix(X, /a).", ":match_prefix"),
        ("?query(X).", "queries"),
        ("query(X) :- q(X).", "q is not defined"),
        ("query(X) :- p(_).", "gives X a value"),
        ("query(X).", "gives X a value"),
        ("query(X) :- p(X, X).", "terms"),
        ("p(1).", "loaded from aspects"),
        ("other(X) :- p(X).", "needs a rule for query"),
        ("query(X) :- ((", "Line 1"),
        ("query(X) :- p(X)\nquery(Y) :- p(Y).", "Line 2"),
        ('query("\\q").', "escape"),
        ("query(1e999).", "too large"),
        ("", "needs a rule for query"),
        ("query(1)." * 501, "500 clauses"),
        ("#" * 70_000, "65536 characters"),
    ],
)
def test_what_is_not_answered_is_named(text, said):
    """The error names the unsupported construct, or what is wrong."""
    with pytest.raises(ProgramError, match=said):
        answer(text, p=[(1,)])


@pytest.mark.long
def test_no_program_runs_or_grows_for_ever():
    """Steps and rows are limited, and the error says which limit was reached."""
    numbers = [(n,) for n in range(1500)]
    with pytest.raises(ProgramError, match="steps"):
        answer("query(X) :- p(X), p(Y).", p=numbers)
    with pytest.raises(ProgramError, match="rows"):
        answer("query(X, Y) :- p(X), p(Y).", p=numbers)


def test_a_column_that_is_no_path_is_refused():
    """The error names the column."""
    for column in ("name", "a.b", ".a[", ".a|b.c", "..a", ".", ".a[-1]", ".a b"):
        with pytest.raises(ProgramError, match="neither"):
            Columns([column])


def search(caller, text, status=200, kind=DATALOG, **params):
    return caller.call("POST", "/1/search", status, content=text, params=params, headers={"Content-Type": kind}).json()


def load(schema, *columns):
    listed = ", ".join(f'"{column}"' for column in columns)
    return f':load_aspect(/p, "{schema}", [{listed}]).\n'


def test_all_pages_together_are_the_answer(first):
    """Each item is returned once, in one order, whatever the page size. `next` is exactly `?page=<cursor>`."""
    for number in range(7):
        first.add(f"urn:t:paged:{number}", {"n": number}, schema="urn:t:paged.1")
    text = load("urn:t:paged.1", "entity", ".n") + "query(N, E) :- p(E, N)."
    items, cursor = [], {}
    for _ in range(4):
        page = search(first, text, limit=2, **cursor)
        items += page["items"]
        following = [link["href"] for link in page["links"] if link["rel"] == "next"]
        if not following:
            break
        path, query = following[0].split("?")
        assert path.endswith("/1/search") and query.startswith("page=") and "&" not in query
        cursor = {"page": query.removeprefix("page=")}
        first.add(f"urn:t:paged:late:{len(items)}", {"n": -1}, schema="urn:t:paged.1")
    assert items == [[number, f"urn:t:paged:{number}"] for number in range(7)]
    search(first, text + "#", 400, **cursor)
    first.call("GET", "/1/aspects", 400, params=cursor)


def test_a_search_finds_what_its_caller_may_read_at_its_time(first, second, control):
    """A search finds opened aspects of another account and no private ones, and with `at-time` one that was retracted
    later. Booleans, numbers, texts and whole objects are returned as JSON, a single term as the value itself.
    """
    own = first.add("urn:t:mine", {"v": [True, 2, "x", {"b": [None]}]}, schema="urn:t:found.1")
    first.add("urn:t:open", {"v": [1]}, schema="urn:t:found.1", policy="urn:ivcap:policy:ivcap.open.metadata")
    text = load("urn:t:found.1", "entity") + "query(E) :- p(E)."
    assert search(first, text)["items"] == ["urn:t:mine", "urn:t:open"]
    assert search(second, text)["items"] == ["urn:t:open"]
    values = load("urn:t:found.1", ".v[*]") + "query(X) :- p(X)."
    assert search(first, values)["items"] == [1, 2, "x", True, {"b": [None]}]
    then = control.get("/clock").json()["now"]
    control.post("/clock", json={"advance": 10})
    first.call("DELETE", f"/1/aspects/{own}", 204)
    assert search(first, text)["items"] == ["urn:t:open"]
    assert search(first, text, **{"at-time": then})["items"] == ["urn:t:mine", "urn:t:open"]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (DATALOG, "query(1).", 200),
        (f"{DATALOG}; charset=utf-8", "query(1).", 200),
        ("application/json", "query(1).", 200),
        ("application/json", '"query(1)."', 200),
        ("text/plain", "query(1).", 415),
        (DATALOG, "query(1)", 400),
        (DATALOG, b"\xff", 400),
        (DATALOG, "#" * 300_000, 413),
    ],
)
def test_types_and_sizes_of_a_search(first, kind, body, status):
    """The media types of the official client and of the OpenAPI document are accepted, and no others."""
    reply = first.call("POST", "/1/search", status, content=body, headers={"Content-Type": kind})
    assert status == 200 or (reply.json()["message"] and reply.headers["goa-error"])
    assert status != 415 or reply.headers["goa-error"] == "unsupported-content-type"


def test_services_are_ranked_by_the_words_of_a_search(first):
    """The best services come first on every page, with their scores. Services without any of the words are left out."""
    for name, description in (
        ("rank-storm-surge", "Computes levels."),
        ("rank-plain", "Surge of a storm."),
        ("rank-other", "Nothing of it. But a stormy one."),
        ("rank-none", "Nothing at all."),
    ):
        body = {"name": name, "description": description, "controller-schema": "urn:x:1", "controller": {}}
        first.call("POST", "/1/services2", 201, json=body)
    for asked in ({}, {"order-desc": "false"}):
        found, query = [], {"search": "Storm surge", "limit": 2, **asked}
        while query:
            page = first.get("/1/services2", params=query)
            found += page["items"]
            following = [link["href"].partition("page=")[2] for link in page["links"] if link["rel"] == "next"]
            query = {"page": following[0], "limit": 2} if following else None
        assert [(item["name"], item["score"]) for item in found] == [
            ("rank-storm-surge", 1.0),
            ("rank-plain", 0.6),
            ("rank-other", 0.15),
        ]
    assert all("score" not in item for item in first.get("/1/services2")["items"])
    named = first.get("/1/services2", params={"search": "storm", "order-by": "name", "order-desc": "false"})["items"]
    assert [item["name"] for item in named] == ["rank-other", "rank-plain", "rank-storm-surge"]
