"""The search-api over HTTP."""

from __future__ import annotations

from typing import Any

from ivcap_flows.local.provena.model import Whole
from ivcap_flows.local.provena.registry.kinds import AnySubtype
from ivcap_flows.local.provena.search.state import search
from ivcap_flows.local.provena.users import User
from ivcap_flows.local.provena.web import Api, Desk, status

__all__ = ["api"]


def api(desk: Desk) -> Api:
    """Return the search-api."""
    site = Api(desk, "search-api", "entity-registry")
    site.check_access()

    @site.get("/search/entity-registry")
    def entity_registry(
        query: str, subtype_filter: AnySubtype | None = None, record_limit: Whole = 10, user: User = site.read
    ) -> Any:
        found = search(desk.store, query, subtype_filter, record_limit)
        return {"status": status(True, f"Found {len(found)} items."), "results": found, "warnings": None}

    return site
