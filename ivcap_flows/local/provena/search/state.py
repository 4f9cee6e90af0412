"""Search over the texts of registry items."""

from __future__ import annotations

from typing import Any, Final

from ivcap_flows.local import clock
from ivcap_flows.local.provena.store import Store

__all__ = ["search"]

_MOST: Final = 50
_WORDS: Final = 20


def search(store: Store, query: str, subtype: str | None, limit: int) -> list[dict[str, Any]]:
    """Ids of the complete items that hold a word of the query, those with more of them first, 50 at most.

    The score is the number of words found. As in Provena, access to the items is not looked at.
    """
    words = list(dict.fromkeys(query.lower().split()))[:_WORDS]
    if not words:
        return []
    now = clock.seconds()
    score = " + ".join("(instr(words, ?) > 0)" for _ in words)
    rows = store.rows(
        f"SELECT id, {score} AS score FROM items"  # noqa: S608 - only placeholders are put together
        " WHERE record_type='COMPLETE_ITEM' AND visible_from BETWEEN ? AND ? AND score > 0"
        " AND (? IS NULL OR item_subtype=?)"
        " ORDER BY score DESC, updated_timestamp DESC, id DESC LIMIT ?",
        *(*words, -now, now, subtype, subtype, max(0, min(limit, _MOST))),
    )
    return [{"id": row["id"], "score": float(row["score"])} for row in rows]
