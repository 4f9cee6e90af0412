"""Task for IVCAP's search over aspects."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike
from ivcap_flows.tasks.pair import task_pair

__all__ = ["asearch", "search"]


async def _search(
    query: str,
    *,
    at_time: datetime | None = None,
    limit: int | None = None,
    credentials: IvcapCredentialsLike = None,
) -> list[Any]:
    """Run a Mangle program (a Datalog dialect) and return what it derives for its predicate `query`.

    Returns at most `limit` items. The program names the aspects that it reads; they are read as they were at `at_time`:

        :load_aspect(/reading, "urn:example:schema:reading.1", ["entity", ".station"]).
        query(Artifact) :- reading(Artifact, "Callao").

    The items are returned as the platform sends them. Raises BadRequestError or InvalidParameterError if the program
    has an error.
    """
    call = await IvcapCall.of(credentials)
    return [item async for item in call.client.search(query, at_time=at_time, limit=limit)]


search, asearch = task_pair(_search)
