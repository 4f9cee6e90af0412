"""Aspects: append-only statements about entities (IVCAP OpenAPI 0.48, `/1/aspects`)."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import Field

from ivcap_flows.errors import (
    BadRequestError,
    ForbiddenError,
    InputError,
    InvalidParameterError,
    NotFoundError,
    NotUniqueError,
    PlatformError,
    UnavailableError,
)
from ivcap_flows.handles import Aspect
from ivcap_flows.http.retry import Repeat
from ivcap_flows.http.session import Reply, Session
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap.wire import Instant, Text, Wire, instant, listed, replied, segment, urn_argument
from ivcap_flows.loop import all_of
from ivcap_flows.secrets import logger_of

__all__ = ["AspectRecord", "Aspects"]

_log = logger_of(__name__)

_DIRECTIONS: Final = ("ASC", "DESC")


class AspectRecord(Wire):
    """An aspect as read or listed. Listings have no asserter and no policy, and have content only on request."""

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
    """`/1/aspects`. The content is any JSON value and is sent unchanged."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._paths = True
        """Whether the platform accepts content paths; True until it refuses one."""

    async def add(
        self, entity: str, schema: str, content: Any, policy: str | None = None, *, repeat: Repeat = "keyed"
    ) -> str:
        """Add an aspect beside existing ones and return its URN. Keyed: sent once; its content finds it again.

        `repeat` is "idempotent" for content of which two equal aspects say no more than one.
        """
        params = _pair(entity, schema, policy)
        reply = await self._session.request(
            "POST", "/1/aspects", params=params, json=content, repeat=repeat, expect=(200, 201)
        )
        return self._written(reply)

    async def update(
        self, entity: str, schema: str, content: Any, policy: str | None = None, *, repeat: Repeat = "keyed"
    ) -> str:
        """Replace the one active aspect of this entity and schema; return the URN of the new aspect.

        Adds one if there is none. If a deployment does not offer to replace (403, 404), adds one and then retracts the
        other. Raises NotUniqueError if several are active. Keyed, unless `repeat` says otherwise, as for `add`.
        """
        params = _pair(entity, schema, policy)
        try:
            reply = await self._session.request(
                "PUT", "/1/aspects", params=params, json=content, repeat=repeat, expect=(200, 201)
            )
        except (ForbiddenError, NotFoundError) as error:
            return await self._add_and_retract(entity, schema, content, policy, error, repeat)
        return self._written(reply)

    def absent(self, message: str, detail: str) -> NotFoundError:
        """Return the error for something that no aspect states; `detail` says what, in short."""
        return NotFoundError(
            message,
            platform=self._session.platform,
            method="GET",
            path="/1/aspects",
            status=None,
            detail=detail,
            sent=True,
        )

    async def _add_and_retract(
        self, entity: str, schema: str, content: Any, policy: str | None, refusal: PlatformError, repeat: Repeat
    ) -> str:
        before = [record.urn async for record in self.list(entity=entity, schema=schema, include_content=False)]
        if len(before) > 1:
            raise NotUniqueError(
                f"{entity} has {len(before)} active aspects of {schema}, so it is not clear which to replace: "
                f"{', '.join(before)}. Retract all but one.",
                **refusal.data,
            )
        added = await self.add(entity, schema, content, policy, repeat=repeat)
        for urn in before:
            try:
                await self.retract(urn)
            except (ForbiddenError, NotFoundError) as error:
                # The new aspect exists, so this is no refusal of the update.
                _log.warning("The aspect %s was added, and the one it replaces stays active: %s", added, error)
        return added

    def _written(self, reply: Reply) -> str:
        return ivcap_urn("aspect", replied(_Written, reply, self._session).id)

    async def read(self, urn: str) -> AspectRecord:
        """Read an aspect. A retracted aspect stays readable and has `valid_to`."""
        reply = await self._session.request("GET", f"/1/aspects/{segment(urn)}", repeat="idempotent")
        return replied(AspectRecord, reply, self._session)

    async def of_account(self, account: str, records: Sequence[AspectRecord]) -> builtins.list[AspectRecord]:
        """Return those of listed records that an account asserted, which takes a request for each.

        A list also has what other accounts opened to all, and does not say whose it is.
        """

        async def is_its(record: AspectRecord) -> bool:
            try:
                return (await self.read(record.urn)).account in (None, account)
            except (ForbiddenError, NotFoundError):
                return False

        its = await all_of(is_its, records)
        return [record for record, known in zip(records, its, strict=True) if known]

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
        """Yield the aspects that are active now, or were at `at_time`, newest first; `limit` is the total.

        `schema` may contain `%` as a wildcard; `content_path` is a PostgreSQL JSONPath; `filter` is an expression in
        the platform's own grammar, such as `entity ~= 'urn:example:%'`. `order_by` names one or more columns, the most
        significant first: `entity`, `schema`, `content`, `policy`, `account`, `created_by`, `retracted_by`, `replaces`,
        `valid_from`, `valid_to`, or a field of the content, as in `ivcap job list`. `order_direction` is "ASC" or
        "DESC", once for all columns or once for each. Raises InputError if these do not match.
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
        """Yield aspects as `list` does, selected by a content path if the platform accepts it.

        Some deployments refuse content paths. There all aspects of the query are yielded, so the caller must still
        filter.
        """
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
                _log.debug("Content paths are refused here, so all aspects are read: %s", error)
        async for aspect in self.list(**query):
            yield aspect
        if content_path is not None:
            self._paths = False

    async def retract(self, urn: str) -> None:
        """Retract an aspect: it is no longer active, but stays readable by its URN. Idempotent."""
        try:
            await self._session.request("DELETE", f"/1/aspects/{segment(urn)}", repeat="idempotent", expect=(200, 204))
        except NotFoundError:
            # A platform may reply 404 to a second retraction. An aspect that never existed remains an error.
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
    # The platform does not publish whether one direction applies to all columns, so one is sent for each.
    return columns, [direction.upper() for direction in directions] * (len(columns) if len(directions) == 1 else 1)
