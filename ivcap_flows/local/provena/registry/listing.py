"""Pages of registry items, read by key in the order of an index. Filters and access apply after a page is read."""

from __future__ import annotations

from typing import Any, Final, Literal, NoReturn

from fastapi import HTTPException
from pydantic import model_validator

from ivcap_flows.local import clock
from ivcap_flows.local.provena.model import AnyDict, Model, RootError, Whole
from ivcap_flows.local.provena.registry.kinds import AnySubtype
from ivcap_flows.local.provena.registry.state import Entry, Registry, entry_of
from ivcap_flows.local.provena.store import without_nulls
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import invalid, status

__all__ = [
    "BAD_GENERAL_PAGE",
    "BAD_PAGE",
    "GeneralPage",
    "Page",
    "SubtypePage",
    "general_page",
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


_RecordType = Literal["COMPLETE_ONLY", "SEED_ONLY", "ALL"]
_ReleaseStatus = Literal["NOT_RELEASED", "PENDING", "RELEASED"]
_SortType = Literal["CREATED_TIME", "UPDATED_TIME", "DISPLAY_NAME", "RELEASE_TIMESTAMP", "ACCESS_INFO_URI_BEGINS_WITH"]

BAD_PAGE: Final = "The page size is below 1, or the key is malformed."
BAD_GENERAL_PAGE: Final = "The page size is below 1, the key is malformed, or a reviewer is given without a sort."


class _SortBy(Model):
    sort_type: _SortType | None = None
    ascending: bool = False
    begins_with: str | None = None

    @model_validator(mode="after")
    def _prefixed(self) -> _SortBy:
        wants = self.sort_type == "ACCESS_INFO_URI_BEGINS_WITH"
        if wants and not self.begins_with:
            raise RootError("The sort by the beginning of the access URI needs begins_with.")
        if self.begins_with and not wants:
            raise RootError("begins_with goes with ACCESS_INFO_URI_BEGINS_WITH only.")
        return self


class Page(Model):
    """The page of a list that is wanted."""

    sort_by: _SortBy | None = None
    pagination_key: AnyDict | None = None
    page_size: Whole = 20


class _Filter(Model):
    record_type: _RecordType = "COMPLETE_ONLY"


class SubtypePage(Page):
    """A page of the items of one subtype."""

    filter_by: _Filter | None = None


class _GeneralFilter(_Filter):
    item_subtype: AnySubtype | None = None
    release_reviewer: str | None = None
    release_status: _ReleaseStatus | None = None

    @model_validator(mode="after")
    def _one_release_filter(self) -> _GeneralFilter:
        if self.item_subtype is not None and self.release_status is not None:
            raise RootError("item_subtype and release_status cannot both be given.")
        return self


class GeneralPage(Page):
    """A page of the items of any subtype."""

    filter_by: _GeneralFilter | None = None


def read(
    registry: Registry, wanted: Page, partition: str | None = None, value: str | None = None
) -> tuple[list[Entry], Any]:
    """Return the entries of a page and the key to continue after.

    These are all entries, or those with `value` in the column `partition`.
    """
    sort = wanted.sort_by or _SortBy()
    if sort.sort_type not in _SORTS[partition]:
        _refuse_sort(partition, sort.sort_type)
    column, now = _COLUMNS[sort.sort_type or "UPDATED_TIME"], clock.seconds()
    conditions, values = [f"{column} IS NOT NULL", "visible_from BETWEEN ? AND ?"], list[Any]([-now, now])
    if partition is not None:
        conditions.append(f"{partition}=?")
        values.append(value)
    if sort.sort_type == "ACCESS_INFO_URI_BEGINS_WITH":
        conditions.append("access_info_uri >= ? AND access_info_uri < ?")
        values += [sort.begins_with, f"{sort.begins_with}{_LAST}"]
    compare, direction = (">", "ASC") if sort.ascending else ("<", "DESC")
    if (key := wanted.pagination_key) is not None:
        if not isinstance(key.get("id"), str) or not _is_place(key.get(column)):
            raise HTTPException(500, "The items could not be listed: the pagination key is malformed.")
        conditions.append(f"({column}, id) {compare} (?, ?)")
        values += [key[column], key["id"]]
    if wanted.page_size < 1:
        raise HTTPException(500, f"The items could not be listed: page size {wanted.page_size} is below 1.")
    rows = registry.store.rows(
        f"SELECT * FROM items WHERE {' AND '.join(conditions)}"  # noqa: S608 - column names are our own
        f" ORDER BY {column} {direction}, id {direction} LIMIT ?",
        *values,
        min(wanted.page_size, _MOST),
    )
    following = None
    if len(rows) == min(wanted.page_size, _MOST):
        last = rows[-1]
        place = {partition: value} if partition is not None else {"universal_partition_key": "OK"}
        following = {"id": last["id"], **place, column: last[column]}
    return [entry_of(row) for row in rows], following


def _refuse_sort(partition: str | None, sort: str | None) -> NoReturn:
    if partition == "release_approver" and sort is None:
        raise HTTPException(500, "The items could not be listed: the table has no such index.")
    words = f"filter by {partition or 'nothing'} and sort {sort}"
    raise invalid(f"Could not derive an index for {words}. The sorts of a subtype need the filter by it.")


def subtype_page(
    registry: Registry, user: User, wanted: Page, subtype: str, record_type: _RecordType = "COMPLETE_ONLY"
) -> dict[str, Any]:
    """Return the reply of a list of one subtype."""
    entries, key = read(registry, wanted, "item_subtype", subtype)
    open_, shut = _split(registry, user, [entry for entry in entries if _is_of(entry, record_type)])
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


def general_page(registry: Registry, user: User, wanted: GeneralPage) -> dict[str, Any]:
    """Return the reply of a list of any subtype, with its items without nulls.

    A filter by release status takes precedence over one by the type of record.
    """
    chosen = wanted.filter_by or _GeneralFilter()
    if chosen.item_subtype:
        entries, key = read(registry, wanted, "item_subtype", chosen.item_subtype)
    elif chosen.release_reviewer:
        entries, key = read(registry, wanted, "release_approver", chosen.release_reviewer)
    else:
        entries, key = read(registry, wanted)
    if chosen.release_status is None:
        entries = [entry for entry in entries if _is_of(entry, chosen.record_type)]
    else:
        entries = [entry for entry in entries if entry.item.get("release_status") == chosen.release_status]
    open_, _ = _split(registry, user, entries)
    return {
        "status": status(True, f"Listed {len(open_)} items."),
        "items": [without_nulls(entry.item) for entry in open_],
        "total_item_count": len(open_),
        "pagination_key": key,
    }


def _is_place(value: Any) -> bool:
    """Return whether a key's value can be compared with a column."""
    return isinstance(value, str) or (isinstance(value, int | float) and abs(value) < 2**63)


def _is_of(entry: Entry, record_type: _RecordType) -> bool:
    return record_type == "ALL" or entry.is_seed == (record_type == "SEED_ONLY")


def _split(registry: Registry, user: User, entries: list[Entry]) -> tuple[list[Entry], int]:
    readable = [entry for entry in entries if registry.readable(user, entry)]
    return readable, len(entries) - len(readable)
