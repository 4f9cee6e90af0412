"""Lists: pages by key, so that items added or removed meanwhile never shift the others.

A cursor contains the whole query, the moment of the first request, and the key of the last item returned. The `next`
link is exactly `?page=<cursor>`, because the official Python client takes everything after `page=` undecoded
(ivcap_client/utils.py).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ivcap_flows.local import clock
from ivcap_flows.local.ivcap.errors import bad_request
from ivcap_flows.local.ivcap.filters import Column, compile_filter
from ivcap_flows.local.ivcap.replies import link
from ivcap_flows.local.ivcap.routing import Call

__all__ = ["Listing", "cursor_after", "page_of"]

_MOST_ORDER: Final = 8
_SEQ: Final = Column("seq", "number", never_null=True)


@dataclass(frozen=True)
class Listing:
    """A kind of list: its table, the columns to filter and sort by, and the default order.

    `since` is the column with the moment from which an item exists; a list shows the items that existed at its moment.
    `column` resolves names beyond `columns`. Names may be spelled with hyphens or underscores.
    """

    name: str
    table: str
    columns: Mapping[str, Column]
    order: str
    column: Callable[[str], Column | None] = lambda name: None
    since: str = ""

    def find(self, name: str) -> Column | None:
        return self.columns.get(name.replace("_", "-")) or self.column(name)

    def order_keys(self, question: Mapping[str, Any]) -> list[tuple[Column, bool]]:
        """Return the columns to sort by, each with whether it descends.

        The last is `seq`, so that no two keys are equal.
        """
        names = [part.strip() for part in (question.get("order-by") or self.order).split(",") if part.strip()]
        if len(names) > _MOST_ORDER:
            raise bad_request(f"order-by takes at most {_MOST_ORDER} columns.")
        ways = _directions(question, len(names))
        keys = []
        for name, way in zip(names, ways, strict=True):
            column = self.find(name)
            if column is None:
                raise bad_request(f"order-by: there is no column {name[:60]!r}; known are {', '.join(self.columns)}.")
            keys.append((column, way))
        return [*keys, (_SEQ, ways[-1] if ways else True)]


def _directions(question: Mapping[str, Any], count: int) -> list[bool]:
    text = question.get("order-direction")
    if not text:
        return [bool(question.get("order-desc", True))] * count
    ways = [part.strip().upper() for part in text.split(",")]
    if any(way not in ("ASC", "DESC") for way in ways):
        raise bad_request("order-direction takes ASC and DESC.")
    return [way == "DESC" for way in (ways + ways[-1:] * count)[:count]]


def _behind(
    keys: Sequence[tuple[Column, bool]], last: Sequence[Any] | None
) -> Iterator[tuple[list[str], list[Any], int]]:
    """Yield conditions that together select the items after a key, nearest first, and how many columns each one fixes.

    Each condition is a range of an index. SQLite makes no such range from a row value with a rowid, nor from an OR.
    """
    if last is None:
        yield [], [], 0
        return
    for depth in reversed(range(len(keys))):
        where: list[str] = []
        values: list[Any] = []
        for (column, down), value in zip(keys[: depth + 1], last, strict=False):
            compared = "=" if len(where) < depth else "<" if down else ">"
            where.append(f"{column.sortable} {compared} ?")
            values += [*column.values, value]
        yield where, values, depth


def _place(path: str) -> str:
    """Return a path with bare ids, so that every form of an id leads to the same list."""
    return re.sub(r"urn:ivcap:[a-z]+:", "", path)


def cursor_after(call: Call, listing: Listing, path: str, question: Mapping[str, Any], last: Sequence[Any]) -> str:
    """Return the cursor for the items after the key `last`."""
    kept = {"list": listing.name, "path": _place(path), "question": question, "last": list(last)}
    return call.platform.cursors.write(kept)


def page_of(
    call: Call,
    listing: Listing,
    conditions: Callable[[Mapping[str, Any]], tuple[list[str], list[Any]]],
    item: Callable[[sqlite3.Row, Mapping[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Return the reply of a list. `conditions` and `item` get the query, with the moment in ms as `at`."""
    cursors, query = call.platform.cursors, call.query
    if query["page"]:
        kept = cursors.read(query["page"])
        if kept["list"] != listing.name or kept["path"] != _place(call.request.url.path):
            raise bad_request("page is the cursor of another list.")
        question, last = kept["question"], kept["last"]
    else:
        question = {name: value for name, value in query.items() if name not in ("page", "limit", "at-time")}
        at = query.get("at-time")
        question |= {"at": clock.now() if at is None else at}
        last = None

    where, values = conditions(question)
    compiled = compile_filter(question.get("filter") or "", listing.find)
    if compiled:
        where, values = [*where, f"({compiled[0]})"], [*values, *compiled[1]]
    keys = listing.order_keys(question)
    if listing.since:
        # The plus stops SQLite from seeking by this bound if an index already gives the order or the last item's key.
        plain = last is None and keys[0][0].sql == listing.since
        where, values = [*where, f"{'' if plain else '+'}{listing.since} <= ?"], [*values, question["at"]]
    chosen = ", ".join(f"{column.sortable} AS key_{index}" for index, (column, _) in enumerate(keys))
    order = [f"key_{index} {'DESC' if down else 'ASC'}" for index, (_, down) in enumerate(keys)]
    chosen_values = [value for column, _ in keys for value in column.values]
    wanted, rows = query["limit"] + 1, list[sqlite3.Row]()
    for behind, key, equal in _behind(keys, last):
        rows += call.platform.store.all(
            f"SELECT *, {chosen} FROM {listing.table} WHERE {' AND '.join([*where, *behind]) or '1'}"  # noqa: S608 - values are parameters
            f" ORDER BY {', '.join(order[equal:])} LIMIT ?",
            [*chosen_values, *values, *key, wanted - len(rows)],
        )
        if len(rows) == wanted:
            break
    here = call.base + call.request.url.path
    links = [link("self", here + (f"?{call.request.url.query}" if call.request.url.query else ""))]
    if len(rows) > query["limit"]:
        rows = rows[: query["limit"]]
        last = [rows[-1][f"key_{index}"] for index in range(len(keys))]
        cursor = cursor_after(call, listing, call.request.url.path, question, last)
        links.append(link("next", f"{here}?page={cursor}"))
    return {"items": [item(row, question) for row in rows], "at-time": clock.stamp(question["at"]), "links": links}
