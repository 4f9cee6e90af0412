"""Lists of the embedded IVCAP: pages, filters, orders and times, as clients request them."""

import itertools
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FOREIGN = {"description": "d", "controller-schema": "urn:ivcap:schema.service.nextflow.1", "controller": {}}
COUNT = itertools.count()


def next_of(page):
    """Return the cursor as the official Python client takes it: all that follows `page=`, not decoded."""
    for link in page["links"]:
        if link["rel"] == "next":
            query = urlsplit(link["href"]).query
            assert query.startswith("page=") and "&" not in query and parse_qs(query)["page"] == [query[5:]]
            return query[5:]
    return None


def all_of(caller, path, limits, between=lambda: None, **params):
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


@pytest.fixture
def names(first):
    """Artifacts of one test alone: ids by name."""
    mark = f"m{next(COUNT)}"
    given = ["Scott's", "Scott", "scott", "Anna", "A*b", "100%", "ü"]
    made = {}
    for name in given:
        made[name] = first.upload(b"x" * len(made), **{"X-Name": name.encode(), "X-Policy": policy(mark)})["id"]
    return mark, made


def policy(mark):
    return f"urn:ivcap:policy:{mark}"


def found(first, mark, text, **params):
    text = f"policy == '{policy(mark)}' && ({text})"
    return {item["name"] for item in first.get("/1/artifacts", params={"limit": 50, "filter": text, **params})["items"]}


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("name ~= 'Scott%'", {"Scott's", "Scott"}),
        ("name~=Scott", {"Scott"}),
        ("name ~= '%nn%'", {"Anna"}),
        ("name == 'Scott''s'", {"Scott's"}),
        ('name == "Scott\'s"', {"Scott's"}),
        ("name ~= 'A*%'", {"A*b"}),
        ("name eq 'Anna'", {"Anna"}),
        ("(name == Anna) && (status==ready)", {"Anna"}),
        ("name == Anna || name == scott", {"Anna", "scott"}),
        ("name == Anna and size > 100", set()),
        ("size >= 3 && !(name ~= '%00%')", {"Anna", "A*b", "ü"}),
        ("size lt 2", {"Scott's", "Scott"}),
        ("name = ü", {"ü"}),
        ("created-at > 2020-01-01T00:00:00Z && created_at < '2999-01-01T00:00:00Z' && name==Anna", {"Anna"}),
    ],
)
def test_filters_in_every_published_spelling(first, names, text, wanted):
    """Filters have patterns, equality, word operators, both quotes, unquoted words and URNs, and parentheses."""
    mark, _ = names
    assert found(first, mark, text) == wanted


def test_a_urn_without_quotes_filters_services(first):
    """An unquoted URN works, as the `ivcap` command uses it for services of one controller."""
    made = first.call("POST", "/1/services2", 201, json=FOREIGN).json()["id"]
    text = "controller-schema~=urn:ivcap:schema.service.nextflow.1"
    page = first.get("/1/services2", params={"filter": text, "limit": 50})
    assert made in [item["id"] for item in page["items"]]
    assert {item["controller-schema"] for item in page["items"]} == {"urn:ivcap:schema.service.nextflow.1"}


def test_a_filter_of_aspects_reaches_into_their_content(first):
    """Any other name is a key of the content. Numbers are compared as numbers."""
    entity = f"urn:t:filter{next(COUNT)}"
    made = [first.add(entity, {"collection": f"urn:c:{n}", "n": n, "t": str(n)}) for n in range(12)]
    ask = lambda text: [item["id"] for item in first.aspects(entity=entity, filter=text)]  # noqa: E731
    assert ask("collection~='urn:c:7'") == [made[7]]
    assert ask("n > 9") == [made[11], made[10]]
    assert ask("t == '9'") == [made[9]]
    assert ask("absent == 'x'") == []


@pytest.mark.parametrize(
    "path, params, wanted",
    [
        ("/1/artifacts", {"filter": "name"}, 400),
        ("/1/artifacts", {"filter": "name ~= "}, 400),
        ("/1/artifacts", {"filter": "(name == x"}, 400),
        ("/1/artifacts", {"filter": "colour == x"}, 400),
        ("/1/artifacts", {"filter": "size > many"}, 400),
        ("/1/artifacts", {"filter": "name == 'x"}, 400),
        ("/1/artifacts", {"filter": "(" * 100 + "name == x" + ")" * 100}, 400),
        ("/1/artifacts", {"filter": "name==x" + " && name==x" * 500}, 400),
        ("/1/artifacts", {"order-by": "colour"}, 400),
        ("/1/artifacts", {"order-by": ",".join(["name"] * 9)}, 400),
        ("/1/artifacts", {"order-desc": "perhaps"}, 422),
        ("/1/artifacts", {"limit": "0"}, 422),
        ("/1/artifacts", {"limit": "-1"}, 422),
        ("/1/artifacts", {"limit": "ten"}, 422),
        ("/1/artifacts", {"at-time": "yesterday"}, 422),
        ("/1/services2", {"at-time": "0001-01-01T00:00:00+14:00"}, 422),
        ("/1/services2", {"at-time": "9999-12-31T23:59:59-14:00"}, 422),
        ("/1/artifacts", {"page": "bm90IG91cnM"}, 400),
        ("/1/aspects", {"order-direction": "up"}, 400),
        ("/1/aspects", {"content-path": "$.a ? ("}, 400),
        ("/1/aspects", {"content-path": '$.a ? (@ like_regex "x" flag "x")'}, 400),
        ("/1/aspects", {"filter": 'a"b == x'}, 400),
        ("/1/aspects", {"order-by": "a\x00b"}, 400),
    ],
)
def test_bad_questions_are_refused_in_the_contract_s_form(first, path, params, wanted):
    """A bad request is a 400 with a message, or a 422 with the parameter. A header has the error class."""
    reply = first.call("GET", path, wanted, params=params)
    kind = {400: "bad-request", 422: "invalid-parameter"}[wanted]
    assert reply.headers["goa-error"] == kind
    assert reply.json()["message"]
    if wanted == 422:
        assert reply.json()["name"] == next(iter(params))


def test_orders_by_several_columns_in_directions_of_their_own(first):
    """Columns may be separated by commas, in both spellings and directions, and may be keys of the content."""
    entity = f"urn:t:order{next(COUNT)}"
    made = {}
    for n, kind in itertools.product(range(3), ("a", "b")):
        made[kind, n] = first.add(entity, {"requested-at": f"2026-01-0{n + 1}T00:00:00Z"}, schema=f"urn:t:{kind}")

    def order(**params):
        ids = all_of(first, "/1/aspects", [2], entity=entity, **params)
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
    mark = f"m{next(COUNT)}"
    made = {}
    for name in (None, "b", None, "a", None):
        headers = {"X-Policy": policy(mark), **({"X-Name": name} if name else {})}
        made[first.create(1, **headers)["id"]] = name
    asked = {"filter": f"policy == '{policy(mark)}'", "order-by": "name"}
    up = all_of(first, "/1/artifacts", [1, 2], **asked, **{"order-desc": "false"})
    assert [made[one] for one in up] == [None, None, None, "a", "b"]
    assert all_of(first, "/1/artifacts", [2, 1], **asked) == up[::-1]


def test_beside_a_cursor_only_the_limit_counts(first, names):
    """Beside a cursor, other parameters are ignored, even invalid ones."""
    mark, made = names
    asked = {"filter": f"policy == '{policy(mark)}'", "order-by": "name", "order-desc": "false"}
    page = first.get("/1/artifacts", params={"limit": 2, **asked})
    rest = first.get("/1/artifacts", params={"limit": 50, "page": next_of(page)})["items"]
    assert len(rest) == len(made) - 2
    other = {"filter": "name == none", "order-by": "colour", "order-desc": "perhaps", "at-time": "never"}
    for more in (asked, other):
        again = first.get("/1/artifacts", params={"limit": 3, "page": next_of(page), **more})
        assert again["items"] == rest[:3]


def test_the_limit_is_capped_at_fifty(first):
    """A larger limit counts as 50, as documented."""
    entity = f"urn:t:cap{next(COUNT)}"
    for n in range(52):
        first.add(entity, {"n": n})
    page = first.get("/1/aspects", params={"entity": entity, "limit": 1000})
    assert len(page["items"]) == 50
    assert len(first.get("/1/aspects", params={"page": next_of(page), "limit": 2**70})["items"]) == 2
    assert len(first.get("/1/aspects", params={"entity": entity})["items"]) == 10


def test_the_page_after_a_long_question_can_be_asked_for(first):
    """The cursor of a long request fits into a URL."""
    text = " || ".join(f"name == 'name {n}'" for n in range(180))
    for n in (1, 2):
        first.add("urn:t:long", {"name": f"name {n}"})
    page = first.get("/1/aspects", params={"filter": text, "limit": 1, "entity": "urn:t:long"})
    assert len(next_of(page)) < 3000
    assert len(first.get("/1/aspects", params={"page": next_of(page)})["items"]) == 1


def test_a_cursor_belongs_to_its_list(first, second):
    """A changed cursor, or one of another list, is refused. Another account sees only its own items with it."""
    entity = f"urn:t:cursor{next(COUNT)}"
    for n in range(3):
        first.add(entity, {"n": n})
    cursor = next_of(first.get("/1/aspects", params={"entity": entity, "limit": 1}))
    first.call("GET", "/1/artifacts", 400, params={"page": cursor})
    swapped = cursor[:-2] + ("AA" if not cursor.endswith("AA") else "BB")
    first.call("GET", "/1/aspects", 400, params={"page": swapped})
    assert second.get("/1/aspects", params={"page": cursor})["items"] == []


def test_every_list_takes_a_time(first, register_service):
    """`at-time` shows what existed then. Each reply has its own time."""
    service = register_service("shows", [])
    first.finished(first.order(service))
    first.add("urn:t:then", {})
    paths = ["/1/artifacts", "/1/services2", "/1/orders", "/1/aspects", f"/1/services2/{service}/jobs"]
    for path in paths:
        assert first.get(path, params={"at-time": "2020-01-01T00:00:00+10:00"})["items"] == []
        now = first.get(path, params={"at-time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        assert now["items"] or path == "/1/artifacts"
        assert now["at-time"].endswith("Z")


def test_history_is_seen_as_it_was(first):
    """All pages at an earlier time have the versions of that time."""
    entity = f"urn:t:history{next(COUNT)}"

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
    assert all_of(first, "/1/aspects", [2], entity=entity) == new[::-1]


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
def lists(local_platform):
    """Callers of the account, and what each list has before the pages are read."""
    caller = local_platform.caller()
    service = caller.call("POST", "/1/services2", 201, json={**FOREIGN, "parameters": []}).json()["id"]

    def add(path):
        n = next(COUNT)
        if path == "/1/artifacts":
            return caller.create(n % 4, **({"X-Name": f"a{n % 3}"} if n % 4 else {}))["id"]
        if path == "/1/aspects":
            return caller.add(f"urn:t:{n % 3}", {"n": [n % 2, "text", None, 1.5][n % 4]})
        if path == "/1/orders":
            body = {"service": service, "parameters": [], "name": f"o{n % 2}"}
            return caller.call("POST", path, json=body).json()["id"]
        return caller.call("POST", path, 201, json={**FOREIGN, "name": f"s{n % 2}"}).json()["id"]

    for path in LISTS:
        for _ in range(9):
            add(path)
    return caller, add


@pytest.mark.parametrize("path", LISTS)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pages_have_each_earlier_item_once(lists, path, data):
    """Each item that existed before is listed once, whatever the limits, the order and the new items."""
    caller, add = lists
    order = data.draw(st.sampled_from(LISTS[path]))
    limits = data.draw(st.lists(st.integers(2, 60), min_size=1, max_size=4))
    more = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
    before = all_of(caller, path, [50], **order)
    adding = itertools.cycle(more)
    seen = all_of(caller, path, limits, lambda: [add(path) for _ in range(next(adding))], **order)
    assert [one for one in seen if one in set(before)] == before
