"""Container images of services in the platform's registry (IVCAP OpenAPI 0.48, `/1/packages`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from ivcap_flows.errors import NotFoundError
from ivcap_flows.http.paging import walked
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.ivcap.wire import urn_argument

__all__ = ["Packages"]


class Packages:
    """`/1/packages`. Images are pushed and pulled with container tools, not through this API."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self, *, tag: str | None = None, limit: int | None = None) -> AsyncIterator[str]:
        """Yield the account's images as `name:tag`, or only those of `tag`; `limit` is the total."""

        async def ask(asked: Mapping[str, Any]) -> Reply:
            return await self._session.request(
                "GET", "/1/packages/list", params={"tag": tag, **asked}, repeat="idempotent"
            )

        return walked(self._session, ask, str, limit=limit)

    async def remove(self, tag: str) -> None:
        """Remove an image, `name:tag`. Idempotent."""
        try:
            await self._session.request(
                "DELETE",
                "/1/packages/remove",
                params={"tag": urn_argument(tag, "tag")},
                repeat="idempotent",
                expect=(200, 202, 204),
            )
        except NotFoundError:
            return
