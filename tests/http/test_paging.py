"""Lists in pages: lazy, bounded, and never of another host."""

import asyncio
import time

import pytest
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


async def collect(web, **options):
    async with web.session() as session:
        return [item["n"] async for item in paged(session, "/1/x", **options)]


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
def test_any_link_is_survived(href):
    """A malformed link is a cursor or the end, never a crash."""
    assert cursor_of(href) is None or isinstance(cursor_of(href), str)


@pytest.mark.parametrize("links", [None, [], "x", [None], [{"rel": "next"}], [{"rel": "self", "href": "a"}], {}])
def test_no_next_link_is_the_end(links):
    """Missing and malformed links end the list."""
    assert next_link({"items": [], "links": links}) is None


def test_links_may_be_an_object():
    """The form that the prose documentation shows is read too."""
    assert next_link({"links": {"self": "x", "next": "/1/x?page=c"}}) == "/1/x?page=c"


async def test_pages_are_read_to_the_end(web):
    """Every page is asked for with the query and the cursor of the one before."""
    web.on("GET /1/x", page([1, 2], f"{web.url}/1/x?page=c-2"), page([3, 4], "c-4"), page([5]))
    assert await collect(web, params={"filter": "f", "order-by": None}, page_size=2) == [1, 2, 3, 4, 5]
    assert [seen.query for seen in web.seen] == [
        {"filter": "f", "limit": "2"},
        {"filter": "f", "limit": "2", "page": "c-2"},
        {"filter": "f", "limit": "2", "page": "c-4"},
    ]


async def test_a_limit_is_the_total(web):
    """No page beyond the limit is asked for, none with more than what is left, and what is too much is dropped."""
    web.on("GET /1/x", page([1, 2], "?page=a"), page([3, 4], "?page=b"))
    assert await collect(web, limit=3, page_size=2) == [1, 2, 3]
    assert [seen.query["limit"] for seen in web.seen] == ["2", "1"]


async def test_a_limit_of_nothing_asks_nothing(web):
    """Zero items cost no request."""
    assert await collect(web, limit=0) == []
    assert web.seen == []


async def test_pages_are_lazy(web):
    """Who takes two items of many has read one page."""
    web.on("GET /1/x", page([1, 2, 3], "?page=a"))
    async with web.session() as session:
        pages = paged(session, "/1/x")
        assert [(await anext(pages))["n"] for _ in range(2)] == [1, 2]
        await pages.aclose()
    assert len(web.seen) == 1


async def test_the_rest_is_read_ahead(web):
    """From the second page on the next one is asked for while a page is used, and no further; none beyond a limit."""
    web.on("GET /1/x", page([1], "?page=a"), page([2], "?page=b"), page([3], "?page=c"), page([4], "?page=d"))
    async with web.session() as session:
        pages = paged(session, "/1/x")
        assert [(await anext(pages))["n"] for _ in range(2)] == [1, 2]
        while len(web.seen) < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(web.seen) == 3
        await pages.aclose()
    web.seen.clear()
    assert await collect(web, limit=1) == [4]
    assert len(web.seen) == 1


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
                time.sleep(0.3)  # the server has a thread of its own
                assert len(web.seen) == 3
                turns = 0
            if item["n"] == 45:
                assert turns >= 4
        other.cancel()


async def test_what_fails_ahead_is_told_where_it_is_needed(web):
    """The items before it are given first; who stops before it never learns of it."""
    web.on("GET /1/x", page([1], "?page=a"), page([2], "?page=b"), JSONResponse([]))
    async with web.session() as session:
        pages = paged(session, "/1/x")
        assert [(await anext(pages))["n"] for _ in range(2)] == [1, 2]
        with pytest.raises(ProtocolError):
            await anext(pages)


@pytest.mark.parametrize("link", ["http://evil.example/1/x?page=c", "//evil.example/1/x?page=c", "ftp://h/?page=c"])
async def test_a_next_link_to_another_host_is_refused(web, link):
    """The platform that names it is not the one that was asked, or is not to be trusted: nothing more is asked."""
    web.on("GET /1/x", page([1], link), page([2]))
    with pytest.raises(ProtocolError, match="it is not followed"):
        await collect(web)
    assert len(web.seen) == 1


async def test_inside_a_container_links_of_any_host_are_the_sidecars(web):
    """The platform names itself as it is known outside."""
    web.on("GET /1/x", page([1], "https://api.example.org/1/x?page=c&limit=9"), page([2]))
    async with web.session(rewrite_hosts=True) as session:
        assert [item["n"] async for item in paged(session, "/1/x")] == [1, 2]
    assert web.seen[1].query == {"limit": "50", "page": "c"}


@pytest.mark.parametrize("link", ["c://x", "?page=http://h/c", "http://h:x/?page=c"])
async def test_odd_links_are_a_cursor_or_refused(web, link):
    """A cursor in a query may look like anything; what looks like a link must be a good one."""
    web.on("GET /1/x", page([1], link), page([2]))
    if link.startswith("?"):
        assert await collect(web) == [1, 2]
    else:
        with pytest.raises(ProtocolError, match="it is not followed"):
            await collect(web)


async def test_a_page_that_is_read_ahead_is_given_up_with_the_list(web):
    """No request and no task outlives the loop over the items."""
    web.on("GET /1/x", page([1], "?page=a"), page([2], "?page=b"), page([3], "?page=c"))
    async with web.session() as session:
        pages = paged(session, "/1/x")
        assert [(await anext(pages))["n"] for _ in range(2)] == [1, 2]
        await pages.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_list_that_never_ends_is_refused(web):
    """A cursor that comes again would page for ever."""
    web.on("GET /1/x", page([1], "?page=a"), page([2], "?page=b"), page([3], "?page=a"))
    with pytest.raises(ProtocolError, match="read before"):
        await collect(web)


async def test_empty_pages_do_not_end_a_list(web):
    """A page without items but with a next link is followed."""
    web.on("GET /1/x", page([], "?page=a"), {"items": None, "links": page([], "?page=b")["links"]}, page([7]))
    assert await collect(web) == [7]


@pytest.mark.parametrize("body", [[], "x", {"items": 3}, {"items": ["x"]}])
async def test_a_reply_that_is_no_list_is_a_violation(web, body):
    """The error names the call instead of a type error somewhere."""
    web.on("GET /1/x", JSONResponse(body))
    with pytest.raises(ProtocolError, match="The reply of IVCAP to GET /1/x"):
        await collect(web)
