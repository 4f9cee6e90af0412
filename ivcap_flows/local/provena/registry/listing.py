"""Pages of registry items, read by key in the order of an index. Filters and access apply after a page is read."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from ivcap_flows.local import clock
from ivcap_flows.local.provena.registry.kinds import ANY_SUBTYPE
from ivcap_flows.local.provena.registry.state import Entry, Registry, entry_of
from ivcap_flows.local.provena.shape import DICT, FLAG, TEXT, WHOLE, Choice, Object, given, maybe, needed
from ivcap_flows.local.provena.store import without_nulls
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import Refusal, invalid, status

__all__ = [
    "BAD_PAGE",
    "GENERAL_LIST",
    "PAGE",
    "RELEASES",
    "SUBTYPE_LIST",
    "general_page",
    "releases_page",
    "subtype_page",
]

_COLUMNS: Final = {
    "CREATED_TIME": "created_timestamp",
    "UPDATED_TIME": "updated_timestamp",
    "DISPLAY_NAME": "display_name",
    "RELEASE_TIMESTAMP": "release_timestamp",
    "ACCESS_INFO_URI_BEGINS_WITH": "access_info_uri",
}

_SORTS: Final[dict[str | None, frozenset[str | None]]] = {
    "item_subtype": frozenset({None, "UPDATED_TIME", "CREATED_TIME", "DISPLAY_NAME", "ACCESS_INFO_URI_BEGINS_WITH"}),
    "release_approver": frozenset({"RELEASE_TIMESTAMP"}),
    None: frozenset({None, "UPDATED_TIME", "CREATED_TIME", "DISPLAY_NAME"}),
}
"""Column that a list is filtered by -> the sorts that have an index."""

_MOST: Final = 1_000
"""Maximum items of a page, however many are asked for, since DynamoDB limits a page's bytes."""

_LAST: Final = "\U0010ffff"
"""The character that sorts after all others."""


def _prefixed(sort: dict[str, Any]) -> str | None:
    wants = sort["sort_type"] == "ACCESS_INFO_URI_BEGINS_WITH"
    if wants and not sort["begins_with"]:
        return "The sort by the beginning of the access URI needs begins_with."
    return "begins_with goes with ACCESS_INFO_URI_BEGINS_WITH only." if not wants and sort["begins_with"] else None


def _one_release_filter(chosen: dict[str, Any]) -> str | None:
    both = chosen["item_subtype"] is not None and chosen["release_status"] is not None
    return "item_subtype and release_status cannot both be given." if both else None


_SORT_BY = maybe(
    Object(
        {"sort_type": maybe(Choice(*_COLUMNS)), "ascending": given(FLAG, False), "begins_with": maybe(TEXT)},
        rules=(_prefixed,),
    )
)
BAD_PAGE: Final = "The page size is below 1, or the key is malformed."
PAGE = {"sort_by": _SORT_BY, "pagination_key": maybe(DICT), "page_size": given(WHOLE, 20)}
_RECORD_TYPE = given(Choice("COMPLETE_ONLY", "SEED_ONLY", "ALL"), "COMPLETE_ONLY")
_RELEASE_STATUS = maybe(Choice("NOT_RELEASED", "PENDING", "RELEASED"))

SUBTYPE_LIST = Object(PAGE | {"filter_by": maybe(Object({"record_type": _RECORD_TYPE}))})
GENERAL_LIST = Object(
    PAGE
    | {
        "filter_by": maybe(
            Object(
                {
                    "record_type": _RECORD_TYPE,
                    "item_subtype": maybe(ANY_SUBTYPE),
                    "release_reviewer": maybe(TEXT),
                    "release_status": _RELEASE_STATUS,
                },
                rules=(_one_release_filter,),
            )
        )
    }
)
RELEASES = Object(
    PAGE | {"filter_by": needed(Object({"release_reviewer": needed(TEXT), "release_status": _RELEASE_STATUS}))}
)


def read(
    registry: Registry, wanted: dict[str, Any], partition: str | None = None, value: str | None = None
) -> tuple[list[Entry], Any]:
    """Return the entries of a page and the key to continue after.

    These are all entries, or those with `value` in the column `partition`.
    """
    sort = wanted["sort_by"] or {"sort_type": None, "ascending": False, "begins_with": None}
    if sort["sort_type"] not in _SORTS[partition]:
        _refuse_sort(partition, sort["sort_type"])
    column, now = _COLUMNS[sort["sort_type"] or "UPDATED_TIME"], clock.seconds()
    conditions, values = [f"{column} IS NOT NULL", "visible_from BETWEEN ? AND ?"], list[Any]([-now, now])
    if partition is not None:
        conditions.append(f"{partition}=?")
        values.append(value)
    if sort["sort_type"] == "ACCESS_INFO_URI_BEGINS_WITH":
        conditions.append("access_info_uri >= ? AND access_info_uri < ?")
        values += [sort["begins_with"], sort["begins_with"] + _LAST]
    compare, direction = (">", "ASC") if sort["ascending"] else ("<", "DESC")
    if (key := wanted["pagination_key"]) is not None:
        if not isinstance(key.get("id"), str) or not _is_place(key.get(column)):
            raise Refusal(500, "The items could not be listed: the pagination key is malformed.")
        conditions.append(f"({column}, id) {compare} (?, ?)")
        values += [key[column], key["id"]]
    if wanted["page_size"] < 1:
        raise Refusal(500, f"The items could not be listed: page size {wanted['page_size']} is below 1.")
    rows = registry.store.rows(
        f"SELECT * FROM items WHERE {' AND '.join(conditions)}"  # noqa: S608 - column names are our own
        f" ORDER BY {column} {direction}, id {direction} LIMIT ?",
        *values,
        min(wanted["page_size"], _MOST),
    )
    following = None
    if len(rows) == min(wanted["page_size"], _MOST):
        last = rows[-1]
        place = {partition: value} if partition is not None else {"universal_partition_key": "OK"}
        following = {"id": last["id"], **place, column: last[column]}
    return [entry_of(row) for row in rows], following


def _refuse_sort(partition: str | None, sort: str | None) -> NoReturn:
    if partition == "release_approver" and sort is None:
        raise Refusal(500, "The items could not be listed: the table has no such index.")
    words = f"filter by {partition or 'nothing'} and sort {sort}"
    raise invalid(f"Could not derive an index for {words}. The sorts of a subtype need the filter by it.")


def subtype_page(registry: Registry, user: User, wanted: dict[str, Any], subtype: str) -> dict[str, Any]:
    """Return the reply of a list of one subtype."""
    entries, key = read(registry, wanted, "item_subtype", subtype)
    chosen = wanted.get("filter_by") or {}
    open_, shut = _split(registry, user, [entry for entry in entries if _is_chosen(entry, chosen)])
    items = [entry.item for entry in open_ if not entry.is_seed]
    seeds = [entry.item for entry in open_ if entry.is_seed]
    return {
        "status": status(True, f"Listed {len(open_)} items."),
        "items": items,
        "seed_items": seeds,
        "unparsable_items": [],
        "total_item_count": len(open_),
        "complete_item_count": len(items),
        "seed_item_count": len(seeds),
        "unparsable_item_count": 0,
        "not_authorised_count": shut,
        "pagination_key": key,
    }


def general_page(registry: Registry, user: User, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the reply of a list of any subtype, with its items without nulls."""
    chosen = wanted["filter_by"] or {}
    columns = {"item_subtype": "item_subtype", "release_reviewer": "release_approver"}
    by = next(((column, chosen[name]) for name, column in columns.items() if chosen.get(name)), (None, None))
    entries, key = read(registry, wanted, *by)
    open_, _ = _split(registry, user, [entry for entry in entries if _is_chosen(entry, chosen)])
    return {
        "status": status(True, f"Listed {len(open_)} items."),
        "items": [without_nulls(entry.item) for entry in open_],
        "total_item_count": len(open_),
        "pagination_key": key,
    }


def releases_page(registry: Registry, user: User, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the reply of a list of the datasets that wait for, or had, the caller's approval."""
    chosen = wanted["filter_by"]
    if chosen["release_reviewer"] != registry.person_of(user):
        raise Refusal(403, "Releases can be listed for yourself only.")
    entries, key = read(registry, wanted, "release_approver", chosen["release_reviewer"])
    open_, _ = _split(registry, user, [entry for entry in entries if _is_chosen(entry, chosen)])
    return {
        "status": status(True, f"Listed {len(open_)} datasets."),
        "dataset_items": [entry.item for entry in open_],
        "total_dataset_count": len(open_),
        "pagination_key": key,
    }


def _is_place(value: Any) -> bool:
    """Return whether a key's value can be compared with a column."""
    return isinstance(value, str) or (isinstance(value, int | float) and abs(value) < 2**63)


def _is_chosen(entry: Entry, chosen: dict[str, Any]) -> bool:
    """Return whether an entry belongs in the reply. A release status takes precedence over the type of record."""
    if chosen.get("release_status") is not None:
        return bool(entry.item.get("release_status") == chosen["release_status"])
    wanted = chosen.get("record_type", "COMPLETE_ONLY")
    return bool(wanted == "ALL" or entry.is_seed == (wanted == "SEED_ONLY"))


def _split(registry: Registry, user: User, entries: list[Entry]) -> tuple[list[Entry], int]:
    readable = [entry for entry in entries if registry.readable(user, entry)]
    return readable, len(entries) - len(readable)
