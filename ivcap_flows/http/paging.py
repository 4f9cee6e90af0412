"""Lists that come in pages with a `next` link, as lazy iterators (IVCAP OpenAPI 0.48, list results)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

from ivcap_flows.errors import InputError
from ivcap_flows.http.session import Reply, Session

__all__ = ["PAGE_SIZE", "checked_limit", "cursor_of", "next_link", "paged", "pages", "walked"]

T = TypeVar("T")

Ask = Callable[[Mapping[str, Any]], Awaitable[Reply]]
"""Requests a page by its `limit` and `page`, a cursor."""
Cursor = Callable[[str], str | None]

_TURNS: Final = 24
"""Turns of the event loop that suffice to connect to an address and to send a request."""

_BREATH: Final = 10
"""Items after which the loop gets a turn while a page is read ahead, for callers that never await."""

PAGE_SIZE: Final = 50
"""Maximum items of one page (IVCAP OpenAPI: `limit` from 1 to 50)."""


def checked_limit(limit: int | None) -> int | None:
    """Return a limit of items, None for all. Raises InputError unless it is a number from 0."""
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise InputError(f"`limit` must be a whole number from 0, or None for all, not {limit!r}.")
    return limit


def cursor_of(href: str) -> str | None:
    """Return the cursor in a next link: its query parameter `page`, or the whole text if it is a bare cursor.

    Host and path of the link are ignored.
    """
    text = href.strip()
    if "?" in text or "://" in text or text.startswith("/"):
        try:
            query = urlsplit(text).query
        except ValueError:
            query = text.partition("?")[2]
        return next(iter(parse_qs(query).get("page", ())), None)
    return text.removeprefix("page=") or None


def next_link(body: Mapping[str, Any]) -> str | None:
    """Return the link to the next page, or its bare cursor; None at the end."""
    links = body.get("links")
    if isinstance(links, Mapping):  # IVCAP's written documentation shows an object instead of a list
        links = [{"rel": rel, "href": href} for rel, href in links.items()]
    for link in links if isinstance(links, list) else ():
        if isinstance(link, Mapping) and link.get("rel") == "next" and isinstance(link.get("href"), str):
            return str(link["href"])
    return None


def paged(
    session: Session, path: str, *, params: Mapping[str, Any] | None = None, limit: int | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects of a list. Pages are requested as they are needed.

    `limit` is the total number of items, None for all. Raises ProtocolError for a reply that is not a list, for a next
    link to another host (see `Session.own`), and for a cursor that repeats, which would never end.
    """
    return walked(session, _get(session, path, params), dict, limit=limit)


async def walked(
    session: Session, ask: Ask, kind: type[T], *, cursor_in: Cursor = cursor_of, limit: int | None = None
) -> AsyncIterator[T]:
    """Yield the items of any list that comes in pages, each of type `kind`; `cursor_in` finds the cursor in a link.

    A caller that needs a second page probably wants them all, so from then on the next page is requested while the
    current one is used. Raises as `paged` does.
    """
    async with aclosing(_pages(session, ask, kind, cursor_in, limit, ahead=True)) as found:
        async for page in found:
            for number, item in enumerate(page):
                if number % _BREATH == 0:
                    await asyncio.sleep(0)
                yield item


def pages(
    session: Session, path: str, *, params: Mapping[str, Any] | None = None
) -> AsyncGenerator[list[dict[str, Any]], None]:
    """Yield the pages of a list. Each is requested only when it is needed. Raises as `paged` does."""
    return _pages(session, _get(session, path, params), dict, cursor_of, None, ahead=False)


def _get(session: Session, path: str, params: Mapping[str, Any] | None) -> Ask:
    async def ask(asked: Mapping[str, Any]) -> Reply:
        # With a `page`, a server needs only `limit`. Send the rest for servers whose cursor does not contain the query.
        return await session.request("GET", path, params={**(params or {}), **asked}, repeat="idempotent")

    return ask


async def _pages(
    session: Session, ask: Ask, kind: type[T], cursor_in: Cursor, limit: int | None, *, ahead: bool
) -> AsyncGenerator[list[T], None]:
    """Yield the pages of a list, of no more than `limit` items in all; with `ahead`, from the second page on the next
    one is requested before the current one is yielded."""
    seen: set[str] = set()

    async def read(cursor: str | None, left: int | None) -> tuple[list[T], str | None]:
        reply = await ask({"limit": PAGE_SIZE if left is None else min(PAGE_SIZE, left), "page": cursor})
        page, following = _read(reply, session, kind, cursor_in)
        if following in seen:
            raise reply.violation("names a page as the next that was read before")
        return page, following

    left, cursor = checked_limit(limit), None
    reading: asyncio.Task[tuple[list[T], str | None]] | None = None
    try:
        while left != 0:
            page, cursor = await (reading or read(cursor, left))
            reading = None
            page = page[:left]
            left = None if left is None else left - len(page)
            going_on = bool(seen)
            if cursor is not None:
                seen.add(cursor)
            if cursor is not None and left != 0 and ahead and going_on:
                reading = asyncio.create_task(read(cursor, left))
                for _ in range(_TURNS):  # let the server work while the first items are yielded
                    await asyncio.sleep(0)
            yield page
            if cursor is None:
                return
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def _read(reply: Reply, session: Session, kind: type[T], cursor_in: Cursor) -> tuple[list[T], str | None]:
    """Return the items of a page, and the cursor of the next page."""
    body = reply.json()
    page = (body.get("items") or []) if isinstance(body, Mapping) else None
    if not isinstance(page, list) or not all(isinstance(item, kind) for item in page):
        raise reply.violation(f"is no page with a list of {kind.__name__} under `items`")
    link = next_link(body)
    if link is not None and _names_host(link):
        session.own(link)
    return page, None if link is None else cursor_in(link)


def _names_host(link: str) -> bool:
    """Return whether a link names a host, so is more than a cursor or a path."""
    return "://" in link.partition("?")[0] or link.strip().startswith("//")
