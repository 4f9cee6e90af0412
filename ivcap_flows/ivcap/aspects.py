"""Aspects: statements about entities, append only (IVCAP OpenAPI 0.48, `/1/aspects`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from pydantic import Field

from ivcap_flows.errors import ForbiddenError, NotFoundError
from ivcap_flows.handles import Aspect
from ivcap_flows.http.session import Session
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap.wire import Instant, Text, Wire, instant, listed, replied, segment, urn_argument

__all__ = ["AspectRecord", "Aspects"]


class AspectRecord(Wire):
    """An aspect as read or listed. Listings have no asserter and policy, and content only where it was asked for."""

    id: str
    entity: str
    schema_urn: str = Field(alias="schema")
    content: Any = None
    content_type: Text = None
    valid_from: Instant = None
    valid_to: Instant = None
    asserter: Text = None
    retracter: Text = None
    replaces: Text = None
    account: Text = None
    policy: Text = None

    @property
    def urn(self) -> str:
        return ivcap_urn("aspect", self.id)

    @property
    def active(self) -> bool:
        """Whether it was neither retracted nor replaced."""
        return self.valid_to is None

    def handle(self, platform: str) -> Aspect:
        return Aspect(
            urn=self.urn, platform=platform, entity=self.entity, schema_urn=self.schema_urn, content=self.content
        )


class _Written(Wire):
    id: str


class Aspects:
    """`/1/aspects`. Content is any JSON and goes out as it is given."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, entity: str, schema: str, content: Any, policy: str | None = None) -> str:
        """Add an aspect beside those that exist; its URN. Keyed: sent once, found again by its content."""
        return await self._write("POST", entity, schema, content, policy)

    async def update(self, entity: str, schema: str, content: Any, policy: str | None = None) -> str:
        """Put an aspect in the place of the one active aspect of this entity and schema; its URN.

        Adds where there is none and where a deployment allows only adding (403, 404). Raises NotUniqueError where
        several are active. Keyed: sent once.
        """
        try:
            return await self._write("PUT", entity, schema, content, policy)
        except (ForbiddenError, NotFoundError):
            return await self._write("POST", entity, schema, content, policy)

    async def _write(self, method: str, entity: str, schema: str, content: Any, policy: str | None) -> str:
        params = {"entity": urn_argument(entity, "entity"), "schema": urn_argument(schema, "schema"), "policy": policy}
        reply = await self._session.request(
            method, "/1/aspects", params=params, json=content, repeat="keyed", expect=(200, 201)
        )
        return ivcap_urn("aspect", replied(_Written, reply, self._session).id)

    async def read(self, urn: str) -> AspectRecord:
        """Read an aspect; a retracted one stays readable and has `valid_to`."""
        reply = await self._session.request("GET", f"/1/aspects/{segment(urn)}", repeat="idempotent")
        return replied(AspectRecord, reply, self._session)

    def list(
        self,
        *,
        entity: str | None = None,
        schema: str | None = None,
        content_path: str | None = None,
        at_time: datetime | None = None,
        filter: str | None = None,  # noqa: A002 - the API's word
        order_by: str = "valid_from",
        order_direction: str = "DESC",
        include_content: bool = True,
        limit: int | None = None,
    ) -> AsyncIterator[AspectRecord]:
        """The aspects active now, or at `at_time`, newest first; `limit` is the total.

        `schema` may hold `%` as a wildcard; `content_path` is a PostgreSQL JSONPath.
        """
        params = {
            "entity": entity,
            "schema": schema,
            "content-path": content_path,
            "at-time": instant(at_time),
            "filter": filter,
            "order-by": order_by,
            "order-direction": order_direction,
            "include-content": include_content,
        }
        return listed(AspectRecord, self._session, "/1/aspects", params, limit)

    async def retract(self, urn: str) -> None:
        """Retract an aspect: it is no longer active and stays readable by its URN."""
        await self._session.request("DELETE", f"/1/aspects/{segment(urn)}", repeat="idempotent", expect=(200, 204))
