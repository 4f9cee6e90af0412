"""Search the texts of registry items."""

from __future__ import annotations

from typing import Any, Final

from ivcap_flows.local import clock
from ivcap_flows.local.provena.store import Store, dumps, handle_of

__all__ = ["search"]

_MOST: Final = 50
_CANDIDATES: Final = 4 * _MOST
"""Number of items to look at, since a fault may hide some of them."""
_WORDS: Final = 20


def search(store: Store, query: str, subtype: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the ids of complete items that contain a word of the query, best match first, at most 50.

    The score is that of BM25. As in Provena, access rights are ignored.
    """
    words = list(dict.fromkeys(query.replace("\0", " ").split()))[:_WORDS]
    if not words:
        return []
    wanted = "words : (" + " OR ".join('"' + word.replace('"', '""') + '"' for word in words) + ")"
    if subtype is not None:
        wanted += f' AND item_subtype : "{subtype}"'
    found = store.rows(
        "SELECT rowid, rank FROM item_words WHERE item_words MATCH ? ORDER BY rank, rowid DESC LIMIT ?",
        *(wanted, _CANDIDATES),
    )
    now = clock.seconds()
    shown = store.rows(
        "SELECT id FROM items WHERE id IN (SELECT value FROM json_each(?)) AND visible_from BETWEEN ? AND ?",
        *(dumps([handle_of(row["rowid"]) for row in found]), -now, now),
    )
    visible = {row["id"] for row in shown}
    results = [{"id": handle_of(row["rowid"]), "score": -float(row["rank"])} for row in found]
    return [result for result in results if result["id"] in visible][: max(0, min(limit, _MOST))]
