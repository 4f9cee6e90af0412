"""Search the registry (search-api)."""

from __future__ import annotations

from typing import Final

from ivcap_flows.errors import InputError
from ivcap_flows.provena.api import Api, members, parse
from ivcap_flows.provena.infos import Info
from ivcap_flows.provena.subtypes import kind_of
from ivcap_flows.provena.wire import Wire

__all__ = ["MOST_HITS", "Hit", "SearchApi"]

MOST_HITS: Final = 50
"""The server's maximum number of hits; it has no second page."""


class Hit(Wire):
    """An item that was found. A higher score means a better match; scores of different searches cannot be compared."""

    id: str
    score: float


class SearchApi(Api):
    """Search. It ignores access rights, so the caller may be unable to read a hit."""

    async def registry(self, query: str, *, subtype: type[Info] | str | None = None, limit: int = 10) -> list[Hit]:
        """Return items whose texts match the query, the best first, at most `limit` (1 to 50)."""
        if not 1 <= limit <= MOST_HITS:
            raise InputError(f"A search of Provena's registry gives 1 to {MOST_HITS} items, not {limit}.")
        asked = {
            "query": query,
            "subtype_filter": None if subtype is None else kind_of(subtype).subtype,
            "record_limit": limit,
        }
        body = await self.call("GET", "/search/entity-registry", repeat="idempotent", params=asked)
        return [parse(Hit, hit, "search result") for hit in members(body, "results", "search result")]
