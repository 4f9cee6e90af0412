"""Search over the texts of registry items."""

from __future__ import annotations

from typing import Any, Final

from ivcap_flows.local import clock
from ivcap_flows.local.provena.store import Store, dumps, handle_of

__all__ = ["search"]

_MOST: Final = 50
_CANDIDATES: Final = 4 * _MOST
"""How many are looked at: a fault may hide some of them."""
_WORDS: Final = 20


def search(store: Store, query: str, subtype: str | None, limit: int) -> list[dict[str, Any]]:
    """Ids of the complete items that hold a word of the query, the most fitting first, 50 at most.

    The score is that of BM25. As in Provena, access to the items is not looked at.
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
