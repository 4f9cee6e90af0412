"""Lists that come in pages with a `next` link, as lazy iterators (IVCAP OpenAPI 0.48, list results)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from ivcap_flows.http.session import Reply, Session

__all__ = ["PAGE_SIZE", "cursor_of", "next_cursor", "paged"]

PAGE_SIZE: Final = 50
"""Most items of one page (IVCAP OpenAPI: `limit` from 1 to 50)."""


def cursor_of(href: str) -> str | None:
    """The cursor in a next link: the query parameter `page` wherever it stands, or the whole of a bare cursor.

    Host and path of the link are not used, so a link to a foreign host leads nowhere.
    """
    text = href.strip()
    if "?" in text or "://" in text or text.startswith("/"):
        try:
            query = urlsplit(text).query
        except ValueError:
            query = text.partition("?")[2]
        return next(iter(parse_qs(query).get("page", ())), None)
    return text.removeprefix("page=") or None


def next_cursor(body: Mapping[str, Any]) -> str | None:
    """The cursor of the page after this one; None at the end."""
    links = body.get("links")
    if isinstance(links, Mapping):  # the prose documentation shows an object instead of a list
        links = [{"rel": rel, "href": href} for rel, href in links.items()]
    for link in links if isinstance(links, list) else ():
        if isinstance(link, Mapping) and link.get("rel") == "next" and isinstance(link.get("href"), str):
            return cursor_of(link["href"])
    return None


async def paged(
    session: Session,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    limit: int | None = None,
    page_size: int = PAGE_SIZE,
    first: Mapping[str, Any] | None = None,
) -> AsyncIterator[dict[str, Any]]:
    """The items of a list, a page at a time as they are asked for.

    `limit` is the total number of items, None for all. `first` is a first page that is at hand already. Raises
    ProtocolError for a reply that is no list, and for a cursor that repeats and would never end.
    """
    left = limit
    seen: set[str] = set()
    page = first
    cursor: str | None = None
    while left is None or left > 0:
        if page is None:
            size = page_size if left is None else min(page_size, left)
            # A server reads only `limit` beside `page`; the rest is for those whose cursor does not hold the query.
            query = {**(params or {}), "limit": size, "page": cursor}
            reply = await session.request("GET", path, params=query, repeat="idempotent")
            page = _page(reply)
            upcoming = next_cursor(page)
            if upcoming in seen:
                raise reply.violation("names a page as the next that was read before")
        for item in page["items"]:
            if left is not None:
                if left == 0:
                    return
                left -= 1
            yield item
        cursor = next_cursor(page)
        if cursor is None:
            return
        seen.add(cursor)
        page = None


def _page(reply: Reply) -> dict[str, Any]:
    body = reply.json()
    if not isinstance(body, dict):
        raise reply.violation("is no list result")
    items = body.get("items") or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise reply.violation("has no list of objects under `items`")
    return {**body, "items": items}
