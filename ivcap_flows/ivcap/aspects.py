"""Aspects: statements about entities, append only (IVCAP OpenAPI 0.48, `/1/aspects`)."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import Field

from ivcap_flows.errors import (
    BadRequestError,
    ForbiddenError,
    InputError,
    InvalidParameterError,
    NotFoundError,
    UnavailableError,
)
from ivcap_flows.handles import Aspect
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap.wire import Instant, Text, Wire, instant, listed, listed_pages, replied, segment, urn_argument
from ivcap_flows.secrets import logger_of

__all__ = ["AspectRecord", "Aspects"]

_log = logger_of(__name__)

_DIRECTIONS: Final = ("ASC", "DESC")


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
        self._paths = True
        """Whether content paths are taken, as far as is known."""

    async def add(self, entity: str, schema: str, content: Any, policy: str | None = None) -> str:
        """Add an aspect beside those that exist; its URN. Keyed: sent once, found again by its content."""
        params = _pair(entity, schema, policy)
        reply = await self._session.request(
            "POST", "/1/aspects", params=params, json=content, repeat="keyed", expect=(200, 201)
        )
        return self._written(reply)

    async def update(self, entity: str, schema: str, content: Any, policy: str | None = None) -> str:
        """Put an aspect in the place of the one active aspect of this entity and schema; its URN.

        Adds where there is none and where a deployment allows only adding (403, 404). Raises NotUniqueError where
        several are active. Keyed: sent once.
        """
        params = _pair(entity, schema, policy)
        try:
            reply = await self._session.request(
                "PUT", "/1/aspects", params=params, json=content, repeat="keyed", expect=(200, 201)
            )
        except (ForbiddenError, NotFoundError):
            return await self.add(entity, schema, content, policy)
        return self._written(reply)

    def _written(self, reply: Reply) -> str:
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
        order_by: str | Sequence[str] = "valid_from",
        order_direction: str | Sequence[str] = "DESC",
        include_content: bool = True,
        limit: int | None = None,
    ) -> AsyncIterator[AspectRecord]:
        """The aspects active now, or at `at_time`, newest first; `limit` is the total.

        `schema` may hold `%` as a wildcard; `content_path` is a PostgreSQL JSONPath; `filter` is the platform's own
        grammar, such as `entity ~= 'urn:example:%'`. `order_by` names one column or several, the first deciding most:
        `entity`, `schema`, `content`, `policy`, `account`, `created_by`, `retracted_by`, `replaces`, `valid_from`,
        `valid_to`, or a name in the content, as `ivcap job list` has it. `order_direction` is one for all, or one for
        each, "ASC" or "DESC". Raises InputError where these do not fit.
        """
        columns, directions = _ordering(order_by, order_direction)
        params = {
            "entity": entity,
            "schema": schema,
            "content-path": content_path,
            "at-time": instant(at_time),
            "filter": filter,
            "order-by": ",".join(columns),
            "order-direction": ",".join(directions),
            "include-content": include_content,
        }
        return listed(AspectRecord, self._session, "/1/aspects", params, limit)

    async def where(self, content_path: str | None, **query: Any) -> AsyncIterator[AspectRecord]:
        """As `list`: aspects that a content path selects, and perhaps more, since deployments that refuse such paths
        give all."""
        given = False
        if content_path is not None and self._paths:
            try:
                async for aspect in self.list(content_path=content_path, **query):
                    given = True
                    yield aspect
                return
            except (BadRequestError, InvalidParameterError, UnavailableError) as error:
                if given:
                    raise
                _log.info("Content paths are refused here, so all aspects are read: %s", error)
        async for aspect in self.list(**query):
            yield aspect
        if content_path is not None:
            self._paths = False

    def newest(self, schema: str) -> AsyncGenerator[builtins.list[AspectRecord], None]:
        """The aspects of a schema, which may hold `%` as a wildcard, newest first and with their content, page by page.

        Since nothing in an aspect is changed later, what is new on a second look stands before what was there.
        """
        params = {
            "schema": schema,
            "order-by": "valid_from",
            "order-direction": "DESC",
            "include-content": True,
        }
        return listed_pages(AspectRecord, self._session, "/1/aspects", params)

    async def retract(self, urn: str) -> None:
        """Retract an aspect: it is no longer active and stays readable by its URN. Again it changes nothing."""
        try:
            await self._session.request("DELETE", f"/1/aspects/{segment(urn)}", repeat="idempotent", expect=(200, 204))
        except NotFoundError:
            # A platform may hide what is retracted from a second retraction; what was never there stays an error.
            if (await self.read(urn)).active:
                raise


def _pair(entity: str, schema: str, policy: str | None) -> dict[str, str | None]:
    return {"entity": urn_argument(entity, "entity"), "schema": urn_argument(schema, "schema"), "policy": policy}


def _ordering(order_by: str | Sequence[str], order_direction: str | Sequence[str]) -> tuple[list[str], list[str]]:
    columns, directions = (
        [part.strip() for part in (given.split(",") if isinstance(given, str) else given)]
        for given in (order_by, order_direction)
    )
    wrong = [direction for direction in directions if direction.upper() not in _DIRECTIONS]
    if wrong or not all(columns) or len(directions) not in (1, len(columns)):
        raise InputError(
            f"order_direction is ASC or DESC, once for all or once for each of order_by={columns}, not {directions}."
        )
    # Whether one direction holds for all columns is not published, so each is sent.
    return columns, [direction.upper() for direction in directions] * (len(columns) if len(directions) == 1 else 1)
