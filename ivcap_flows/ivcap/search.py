"""Search the aspects with a Datalog program (IVCAP OpenAPI 0.48, `/1/search`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final

from ivcap_flows.canonical import canonical_form
from ivcap_flows.errors import InputError
from ivcap_flows.http.paging import walked
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.ivcap.wire import instant

__all__ = ["MEDIA_TYPE", "search"]

MEDIA_TYPE: Final = "application/datalog+mangle"
"""The type that ivcap-client sends; the OpenAPI document says `application/json`."""


def search(
    session: Session, query: str, *, at_time: datetime | None = None, limit: int | None = None
) -> AsyncIterator[Any]:
    """See `IvcapClient.search`."""
    if not isinstance(query, str) or not query.strip():
        raise InputError("The query is a Mangle program, for instance `query(X) :- p(X).`; it is empty.")
    when = instant(at_time)

    async def ask(asked: Mapping[str, Any]) -> Reply:
        # This POST only reads. Each page sends the program again, for servers whose cursor does not contain it.
        return await session.request(
            "POST",
            "/1/search",
            params={"at-time": when, **asked},
            headers={"Content-Type": MEDIA_TYPE},
            content=canonical_form(query, "query").encode(),
            repeat="idempotent",
        )

    return walked(session, ask, object, limit=limit)
