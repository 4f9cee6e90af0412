"""Lists of the embedded IVCAP: pages, filters, orders and times, as clients request them."""

import itertools
import sqlite3
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ivcap_flows.local.ivcap.errors import Problem
from ivcap_flows.local.ivcap.filters import Column, compile_filter

FOREIGN = {"description": "d", "controller-schema": "urn:ivcap:schema.service.nextflow.1", "controller": {}}
COUNT = itertools.count()
ROWS = ["Scott's", "Scott", "scott", "Anna", "A*b", "100%", "ü"]


def chosen(text):
    """Return which of ROWS, whose sizes count up from 0, a filter selects."""
    columns = {"name": Column("name"), "size": Column("size", "number"), "created-at": Column("at", "time")}
    compiled = compile_filter(text, columns.get)
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE t (name TEXT, size INTEGER, at INTEGER)")
        connection.executemany("INSERT INTO t VALUES (?, ?, 1e12)", [(name, size) for size, name in enumerate(ROWS)])
        where, values = compiled or ("1", [])
        return [name for (name,) in connection.execute(f"SELECT name FROM t WHERE {where} ORDER BY size", values)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ROWS),
        ("name ~= 'Scott%'", ["Scott's", "Scott"]),
        ("name~=Scott", ["Scott"]),
        ("name ~= '%nn%'", ["Anna"]),
        ("name == 'Scott''s'", ["Scott's"]),
        ('name == "Scott\'s"', ["Scott's"]),
        ("name ~= 'A*%'", ["A*b"]),
        ("name eq 'Anna'", ["Anna"]),
        ("(name == Anna) && (size==3)", ["Anna"]),
        ("name == Anna || name == scott", ["scott", "Anna"]),
        ("size == 1 || size == 2 && name == 'none'", ["Scott"]),
        ("name == Anna and size > 100", []),
        ("size >= 3 && !(name ~= '%00%')", ["Anna", "A*b", "ü"]),
        ("name ~= '%nn%' or ! size < 6", ["Anna", "ü"]),
        ("size lt 2", ["Scott's", "Scott"]),
        ("name = ü", ["ü"]),
        ("created-at > 2000-01-01T00:00:00Z && created-at < '2999-01-01T00:00:00Z' && name==Anna", ["Anna"]),
    ],
)
def test_filters_in_every_published_spelling(text, wanted):
    """Filters have patterns, equality, word operators, both quotes, unquoted words, precedence and parentheses."""
    assert chosen(text) == wanted


BAD_FILTERS = [
    *("name", "name ~= ", "(name == x", "colour == x", "size > many", "name == 'x", "' OR '1'='1", "((((", "name 'x'"),
    *("name ~= 'x' && (", "(" * 100 + "name == x" + ")" * 100, "name==x" + " && name==x" * 500, "created-at > never"),
]


@pytest.mark.parametrize("text", BAD_FILTERS)
def test_a_filter_that_cannot_be_read_is_refused(text):
    """An invalid filter is a 400 with a message, and never an SQL error."""
    with pytest.raises(Problem) as refused:
        chosen(text)
    assert refused.value.status == 400 and refused.value.body["message"]


def next_of(page):
    """Return the cursor as the official Python client takes it: all that follows `page=`, not decoded."""
    for link in page["links"]:
        if link["rel"] == "next":
            query = urlsplit(link["href"]).query
            assert query.startswith("page=") and "&" not in query and parse_qs(query)["page"] == [query[5:]]
            return query[5:]
    return None


def page_by_page(caller, path, limits, between=lambda: None, **params):
    """Return the ids in the order of their pages. `limits` are the page sizes in turn."""
    seen, page, sizes = [], None, itertools.cycle(limits)
    while True:
        size = next(sizes)
        page = caller.get(path, params={"limit": size, **(params if page is None else {"page": next_of(page)})})
        assert len(page["items"]) <= min(size, 50)
        seen += [item["id"] for item in page["items"]]
        assert len(seen) == len(set(seen))
        if next_of(page) is None:
            return seen
        assert len(page["items"]) == min(size, 50)
        between()


def test_filters_reach_urns_and_the_content_of_aspects(first):
    """An unquoted URN works, as the `ivcap` command uses it for services of one controller. Any other name of an aspect
    is a key of its content; numbers are compared as numbers.
    """
    made = first.call("POST", "/1/services2", 201, json={"name": "foreign", **FOREIGN}).json()["id"]
    text = "controller-schema~=urn:ivcap:schema.service.nextflow.1"
    page = first.get("/1/services2", params={"filter": text, "limit": 50})
    assert made in [item["id"] for item in page["items"]]
    assert {item["controller-schema"] for item in page["items"]} == {"urn:ivcap:schema.service.nextflow.1"}
    entity = "urn:t:filter"
    made = [first.add(entity, {"collection": f"urn:c:{n}", "n": n, "t": str(n)}) for n in range(12)]
    for text, found in (
        ("collection~='urn:c:7'", [made[7]]),
        ("n > 9", [made[11], made[10]]),
        ("t == '9'", [made[9]]),
        ("absent == 'x'", []),
    ):
        assert [item["id"] for item in first.aspects(entity=entity, filter=text)] == found


BAD_REQUEST = [
    ("/1/artifacts", {"filter": "name ~= "}),
    ("/1/artifacts", {"order-by": "colour"}),
    ("/1/artifacts", {"order-by": ",".join(["name"] * 9)}),
    ("/1/artifacts", {"page": "bm90IG91cnM"}),
    ("/1/aspects", {"order-direction": "up"}),
    ("/1/aspects", {"content-path": "$.a ? ("}),
    ("/1/aspects", {"content-path": '$.a ? (@ like_regex "(x)")'}),
    ("/1/aspects", {"filter": 'a"b == x'}),
    ("/1/aspects", {"order-by": "a\x00b"}),
]
INVALID_PARAMETER = [
    ("/1/artifacts", {"order-desc": "perhaps"}),
    ("/1/artifacts", {"limit": "0"}),
    ("/1/artifacts", {"limit": "ten"}),
    ("/1/artifacts", {"at-time": "yesterday"}),
    ("/1/services2", {"at-time": "0001-01-01T00:00:00+14:00"}),
    ("/1/services2", {"at-time": "9999-12-31T23:59:59-14:00"}),
    ("/1/secrets", {"secret-name": ""}),
]


def test_bad_questions_are_refused_in_the_contract_s_form(first):
    """A bad request is a 400 with a message, or a 422 with the parameter. A header has the error class."""
    for status, kind, cases in ((400, "bad-request", BAD_REQUEST), (422, "invalid-parameter", INVALID_PARAMETER)):
        for path, params in cases:
            reply = first.call("GET", path, status, params=params)
            assert reply.headers["goa-error"] == kind and reply.json()["message"]
            assert status == 400 or reply.json()["name"] == next(iter(params))


def test_orders_by_several_columns_in_directions_of_their_own(first):
    """Columns may be separated by commas, in both spellings and directions, and may be keys of the content."""
    entity, made = "urn:t:order", {}
    for n, kind in itertools.product(range(3), ("a", "b")):
        made[kind, n] = first.add(entity, {"requested-at": f"2026-01-0{n + 1}T00:00:00Z"}, schema=f"urn:t:{kind}")

    def order(**params):
        ids = page_by_page(first, "/1/aspects", [2], entity=entity, **params)
        return [next(key for key, urn in made.items() if urn == one) for one in ids]

    newest = [(kind, n) for n in (2, 1, 0) for kind in ("b", "a")]
    assert order() == newest
    assert order(**{"order-by": "valid_from", "order-direction": "desc"}) == newest
    assert order(**{"order-by": "valid-from", "order-direction": "ASC"}) == newest[::-1]
    mixed = order(**{"order-by": "schema,requested-at", "order-direction": "asc,desc"})
    assert mixed == [(kind, n) for kind in ("a", "b") for n in (2, 1, 0)]
    assert order(**{"order-by": "nobody_knows"}) == newest


def test_rows_without_a_value_have_their_place_in_an_order(first):
    """Rows without a name come first, and are not lost between pages."""
    policy, made = "urn:ivcap:policy:unnamed", {}
    for name in (None, "b", None, "a", None):
        headers = {"X-Policy": policy, **({"X-Name": name} if name else {})}
        made[first.create(1, **headers)["id"]] = name
    asked = {"filter": f"policy == '{policy}'", "order-by": "name"}
    up = page_by_page(first, "/1/artifacts", [1, 2], **asked, **{"order-desc": "false"})
    assert [made[one] for one in up] == [None, None, None, "a", "b"]
    assert page_by_page(first, "/1/artifacts", [2, 1], **asked) == up[::-1]


def test_beside_a_cursor_only_the_limit_counts(first):
    """Beside a cursor, other parameters are ignored, even invalid ones. A limit above 50 counts as 50."""
    entity = "urn:t:cap"
    for n in range(53):
        first.add(entity, {"n": n})
    asked = {"entity": entity, "order-by": "n", "order-direction": "desc"}
    page = first.get("/1/aspects", params={"limit": 1000, **asked})
    assert len(page["items"]) == 50
    assert len(first.get("/1/aspects", params={"entity": entity})["items"]) == 10
    other = {"filter": "name == none", "order-by": "colour", "order-direction": "perhaps", "at-time": "never"}
    rests = [first.get("/1/aspects", params={"page": next_of(page), **more})["items"] for more in ({}, asked, other)]
    assert len(rests[0]) == 3 and rests == [rests[0]] * 3
    assert len(first.get("/1/aspects", params={"page": next_of(page), "limit": 2**70})["items"]) == 3


def test_a_cursor_belongs_to_its_list(first):
    """A changed cursor, or one of another list, is refused. That of a long request fits into a URL."""
    for n in range(3):
        first.add("urn:t:cursor", {"name": f"name {n}"})
    text = " || ".join(f"name == 'name {n}'" for n in range(180))
    page = first.get("/1/aspects", params={"entity": "urn:t:cursor", "filter": text, "limit": 1})
    cursor = next_of(page)
    assert len(cursor) < 3000
    assert len(first.get("/1/aspects", params={"page": cursor})["items"]) == 2
    first.call("GET", "/1/artifacts", 400, params={"page": cursor})
    swapped = cursor[:-2] + ("AA" if not cursor.endswith("AA") else "BB")
    first.call("GET", "/1/aspects", 400, params={"page": swapped})


def test_every_list_takes_a_time(first):
    """`at-time` shows what existed then, on all pages, and each reply has its own time."""
    order = first.finished(first.order("echo", message="then"))
    entity = "urn:t:history"

    def put(n):
        pair = {"entity": entity, "schema": f"urn:t:v{n}"}
        return first.call("PUT", "/1/aspects", params=pair, json={}).json()["id"]

    old = [put(n) for n in range(3)]
    page = first.get("/1/aspects", params={"entity": entity, "limit": 1})
    new = [put(n) for n in range(3)]
    seen = [page["items"][0]["id"]]
    while next_of(page):
        page = first.get("/1/aspects", params={"page": next_of(page), "limit": 1})
        seen += [item["id"] for item in page["items"]]
    assert seen == old[::-1]
    assert page_by_page(first, "/1/aspects", [2], entity=entity) == new[::-1]
    first.create(1)
    for path in ("/1/artifacts", "/1/services2", "/1/orders", "/1/aspects", f"/1/services2/{order['service']}/jobs"):
        assert first.get(path, params={"at-time": "1999-01-01T00:00:00+10:00"})["items"] == []
        now = first.get(path, params={"at-time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        assert now["items"] and now["at-time"].endswith("Z")


UP = {"order-desc": "false"}
LISTS = {
    "/1/artifacts": [{}, UP, {"order-by": "name"}, {"order-by": "size,name", **UP}],
    "/1/aspects": [
        {},
        {"order-direction": "ASC"},
        {"order-by": "n", "order-direction": "asc"},
        {"order-by": "entity,n", "order-direction": "asc,desc"},
    ],
    "/1/orders": [{}, {"order-by": "name,status", **UP}],
    "/1/services2": [{}, {"order-by": "name"}],
}


@pytest.fixture(scope="module")
def lists(first):
    """A caller of the account, and what each list has before the pages are read."""
    service = first.call("POST", "/1/services2", 201, json={"name": "s", **FOREIGN, "parameters": []}).json()["id"]

    def add(path):
        n = next(COUNT)
        if path == "/1/artifacts":
            return first.create(n % 4, **({"X-Name": f"a{n % 3}"} if n % 4 else {}))["id"]
        if path == "/1/aspects":
            return first.add(f"urn:t:{n % 3}", {"n": [n % 2, "text", None, 1.5][n % 4]})
        if path == "/1/orders":
            body = {"service": service, "parameters": [], "name": f"o{n % 2}"}
            return first.call("POST", path, json=body).json()["id"]
        return first.call("POST", path, 201, json={**FOREIGN, "name": f"s{n % 2}"}).json()["id"]

    made = {path: [add(path) for _ in range(9)] for path in LISTS}
    # The end of an order replaces an aspect of its job.
    for urn in made["/1/orders"]:
        first.finished({"id": urn})
    return first, add


@pytest.mark.parametrize("path", LISTS)
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pages_have_each_earlier_item_once(lists, path, data):
    """Each item that existed before is listed once, whatever the limits, the order and the new items."""
    caller, add = lists
    order = data.draw(st.sampled_from(LISTS[path]))
    limits = data.draw(st.lists(st.integers(5, 60), min_size=1, max_size=4))
    more = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
    before = page_by_page(caller, path, [50], **order)
    adding = itertools.cycle(more)
    seen = page_by_page(caller, path, limits, lambda: [add(path) for _ in range(next(adding))], **order)
    assert [one for one in seen if one in set(before)] == before
