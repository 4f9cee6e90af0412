"""Lists in pages: lazy, bounded, and never of another host."""

import asyncio

import pytest
from eventually import until
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse

from ivcap_flows.errors import ProtocolError
from ivcap_flows.http.paging import cursor_of, next_link, paged


def page(items, following=None):
    links = [{"rel": "self", "type": "application/json", "href": "/1/x"}]
    if following:
        links.append({"rel": "next", "type": "application/json", "href": following})
    return {"items": [{"n": n} for n in items], "links": links}


async def collect(web, session=None, **options):
    async with web.session(**session or {}) as made:
        return [item["n"] async for item in paged(made, "/1/x", **options)]


async def first(pages, count):
    return [(await anext(pages))["n"] for _ in range(count)]


@pytest.mark.parametrize(
    ("href", "cursor"),
    [
        ("https://h/1/x?page=abc", "abc"),
        ("https://h/1/x?limit=2&page=abc&z=1", "abc"),
        ("https://h/1/x?page=a%2Bb%3D", "a+b="),
        ("?page=abc", "abc"),
        ("/1/x?page=abc", "abc"),
        ("page=abc", "abc"),
        ("abc", "abc"),
        ("YWJj==", "YWJj=="),
        ("https://h/1/x", None),
        ("https://h/1/x?limit=2", None),
        ("", None),
    ],
)
def test_a_cursor_is_read_from_any_link(href, cursor):
    """The parameter may stand anywhere in the query; a bare cursor is one; a link without is the end."""
    assert cursor_of(href) == cursor


@given(st.text(max_size=60))
def test_any_link_is_a_cursor_or_the_end(href):
    assert cursor_of(href) is None or isinstance(cursor_of(href), str)


def test_a_next_link_is_read_in_both_forms_and_its_absence_is_the_end():
    """Links may also be an object, as the prose documentation shows."""
    for links in (None, [], "x", [None], [{"rel": "next"}], [{"rel": "self", "href": "a"}], {}):
        assert next_link({"items": [], "links": links}) is None
    assert next_link({"links": {"self": "x", "next": "/1/x?page=c"}}) == "/1/x?page=c"


async def test_pages_are_read_to_the_end(web):
    """Each is asked for with the query and the cursor of the one before, which may look like anything. One without
    items does not end the list."""
    empty = {"items": None, "links": page([], "c-5")["links"]}
    web.on("GET /1/x", page([1, 2], f"{web.url}/1/x?page=c-2"), page([3, 4], "?page=http://h/c-4"), empty, page([5]))
    assert await collect(web, params={"filter": "f", "order-by": None}) == [1, 2, 3, 4, 5]
    query = {"filter": "f", "limit": "50"}
    cursors = ("c-2", "http://h/c-4", "c-5")
    assert [call.query for call in web.calls] == [query, *(query | {"page": cursor} for cursor in cursors)]


async def test_a_limit_is_the_total(web):
    """No page beyond it is asked for, none with more than what is left, and what is too much is dropped."""
    web.on("GET /1/x", page([1, 2], "?page=a"), page([3, 4], "?page=b"))
    assert await collect(web, limit=3) == [1, 2, 3]
    assert [call.query["limit"] for call in web.calls] == ["3", "1"]
    assert await collect(web, limit=0) == [] and len(web.calls) == 2


async def test_one_page_is_read_ahead_and_given_up_with_the_list(web):
    """From the second page on, while a page is used. No request and no task outlives the loop over the items."""
    web.on("GET /1/x", page([0, 1], "?page=a"), page([2], "?page=b"), page([3], "?page=c"), page([4], "?page=d"))
    async with web.session() as session:
        pages = paged(session, "/1/x")
        assert await first(pages, 2) == [0, 1] and len(web.calls) == 1
        assert await first(pages, 1) == [2]
        while len(web.calls) < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(web.calls) == 3
        await pages.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_user_who_never_waits_has_the_rest_read_ahead_too(web):
    """The next page is asked for before the first item of one is given, and other tasks get turns between items."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    web.on("GET /1/x", page([99], "?page=a"), page(range(50), "?page=b"), page([100]))
    async with web.session() as session:
        other = asyncio.create_task(count())
        async for item in paged(session, "/1/x"):
            if item["n"] == 0:
                until(lambda: len(web.calls) == 3)  # it holds the loop; the server has a thread of its own
                turns = 0
            if item["n"] == 45:
                assert turns >= 4
        other.cancel()


async def test_what_fails_ahead_is_told_where_it_is_needed(web):
    """The items before it are given first; who stops before it never learns of it."""
    web.on("GET /1/x", page([1], "?page=a"), page([2], "?page=b"), JSONResponse([]))
    async with web.session() as session:
        pages = paged(session, "/1/x")
        assert await first(pages, 2) == [1, 2]
        with pytest.raises(ProtocolError):
            await anext(pages)


@pytest.mark.parametrize(
    "link",
    [
        *("http://evil.example/1/x?page=c", "//evil.example/1/x?page=c", "ftp://h/?page=c"),
        *("c://x", "http://h:x/?page=c"),
    ],
)
async def test_a_next_link_to_another_host_is_refused(web, link):
    """The platform that names it is not the one that was asked, or is not to be trusted: nothing more is asked."""
    web.on("GET /1/x", page([1], link), page([2]))
    with pytest.raises(ProtocolError, match="it is not followed"):
        await collect(web)
    assert len(web.calls) == 1


async def test_inside_a_container_links_of_any_host_are_the_sidecars(web):
    """The platform names itself as it is known outside."""
    web.on("GET /1/x", page([1], "https://api.example.org/1/x?page=c&limit=9"), page([2]))
    assert await collect(web, {"rewrite_hosts": True}) == [1, 2]
    assert web.calls[1].query == {"limit": "50", "page": "c"}


async def test_a_cursor_that_comes_again_would_page_for_ever_and_is_refused(web):
    web.on("GET /1/x", page([1], "?page=a"), page([2], "?page=b"), page([3], "?page=a"))
    with pytest.raises(ProtocolError, match="read before"):
        await collect(web)


@pytest.mark.parametrize("body", [[], "x", {"items": 3}, {"items": ["x"]}])
async def test_a_reply_that_is_no_list_is_a_violation_that_names_the_call(web, body):
    web.on("GET /1/x", JSONResponse(body))
    with pytest.raises(ProtocolError, match="The reply of IVCAP to GET /1/x"):
        await collect(web)
