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
    """All that a Mangle program (a Datalog) derives for its predicate `query`, at most `limit` items.

    The program names the aspects that it is about, as they were at `at_time`:

        :load_aspect(/reading, "urn:example:schema:reading.1", ["entity", ".station"]).
        query(Artifact) :- reading(Artifact, "Callao").

    The items are as the platform gives them. Raises BadRequestError or InvalidParameterError for a faulty program.
    """
    call = await IvcapCall.of(credentials)
    return [item async for item in call.client.search(query, at_time=at_time, limit=limit)]


search, asearch = task_pair(_search, name="Search", run_name="search")
