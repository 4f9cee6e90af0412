"""The search-api over HTTP."""

from __future__ import annotations

from typing import Any

from ivcap_flows.local.provena.operation import Call
from ivcap_flows.local.provena.registry.kinds import ANY_SUBTYPE
from ivcap_flows.local.provena.search.state import search
from ivcap_flows.local.provena.shape import TEXT, WHOLE, Object, given, maybe, needed
from ivcap_flows.local.provena.web import Api, Desk, status

__all__ = ["api"]

_QUERY = Object({"query": needed(TEXT), "subtype_filter": maybe(ANY_SUBTYPE), "record_limit": given(WHOLE, 10)})


def api(desk: Desk) -> Api:
    """Return the search-api."""
    site = Api(desk, "search-api", "entity-registry")
    site.check_access()

    def entity_registry(call: Call) -> dict[str, Any]:
        wanted = call.query
        found = search(desk.store, wanted["query"], wanted["subtype_filter"], wanted["record_limit"])
        return {"status": status(True, f"Found {len(found)} items."), "results": found, "warnings": None}

    site.get("/search/entity-registry", "read", entity_registry, _QUERY, gives=("status", "results"))
    return site
