"""Queues of messages (IVCAP OpenAPI 0.48, `/1/queues`)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from pydantic import Field

from ivcap_flows.errors import InputError, NotFoundError
from ivcap_flows.handles import Queue
from ivcap_flows.http.session import Session
from ivcap_flows.identity import ivcap_urn
from ivcap_flows.ivcap.wire import Instant, Text, Wire, instant, listed, record_of, replied, segment

__all__ = ["MessageRecord", "QueueRecord", "Queues"]


class QueueRecord(Wire):
    """A queue as created, listed or read. Only reading one queue returns the counts."""

    id: str
    name: Text = None
    description: Text = None
    account: Text = None
    created_at: Instant = None
    total_messages: int | None = None
    bytes: int | None = None
    consumer_count: int | None = None
    first_time: Instant = None
    last_time: Instant = None

    @property
    def urn(self) -> str:
        return ivcap_urn("queue", self.id)

    def handle(self, platform: str) -> Queue:
        return Queue(urn=self.urn, platform=platform, name=self.name, description=self.description)


class MessageRecord(Wire):
    """A message taken from a queue."""

    id: str
    content: Any = None
    schema_urn: Text = Field(default=None, alias="schema")
    content_type: Text = None


class _Messages(Wire):
    messages: list[Any] | None = None


class _Sent(Wire):
    id: str


class Queues:
    """`/1/queues`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(self, name: str, *, description: str | None = None, policy: str | None = None) -> QueueRecord:
        """Create a queue. Idempotent: a name identifies one queue.

        Raises ConflictError if the name is taken, even if an earlier attempt of the same call took it.
        """
        body = {"name": _name(name), "description": description, "policy": policy}
        reply = await self._session.request(
            "POST",
            "/1/queues",
            json={key: value for key, value in body.items() if value is not None},
            repeat="idempotent",
            expect=(200, 201),
        )
        return replied(QueueRecord, reply, self._session)

    async def read(self, urn: str) -> QueueRecord:
        """Read a queue with its counts; the messages stay in it."""
        reply = await self._session.request("GET", f"/1/queues/{segment(urn)}", repeat="idempotent")
        return replied(QueueRecord, reply, self._session)

    def list(
        self,
        *,
        filter: str | None = None,  # noqa: A002 - the API's word
        order_by: str | None = None,
        order_desc: bool | None = None,
        at_time: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[QueueRecord]:
        """Yield the account's queues; `limit` is the total."""
        params = {"filter": filter, "order-by": order_by, "order-desc": order_desc, "at-time": instant(at_time)}
        return listed(QueueRecord, self._session, "/1/queues", params, limit)

    async def by_name(self, name: str) -> QueueRecord | None:
        """Return the queue with exactly this name, or None."""
        async for queue in self.list():
            if queue.name == name:
                return queue
        return None

    async def enqueue(self, urn: str, content: Any, *, schema: str | None = None) -> str:
        """Send a message of any JSON value; return its id. Unsafe: nothing finds the message again."""
        reply = await self._session.request(
            "POST",
            f"/1/queues/{segment(urn)}/messages",
            params={"schema": schema},
            json=content,
            repeat="unsafe",
            expect=(200, 201, 202),
        )
        return replied(_Sent, reply, self._session).id

    async def dequeue(self, urn: str, *, limit: int = 1) -> tuple[MessageRecord, ...]:
        """Take up to `limit` messages out of the queue, oldest first.

        Unsafe and sent once, although it is a GET: the platform removes the messages that it returns, so a lost reply
        loses them.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InputError(f"The limit of messages must be 1 or more, not {limit!r}.")
        path = f"/1/queues/{segment(urn)}/messages"
        reply = await self._session.request("GET", path, params={"limit": limit}, repeat="unsafe")
        found = replied(_Messages, reply, self._session).messages or []
        return tuple(_decoded(record_of(MessageRecord, each, session=self._session, path=path)) for each in found)

    async def delete(self, urn: str) -> None:
        """Delete a queue and the messages in it. Idempotent."""
        try:
            await self._session.request(
                "DELETE", f"/1/queues/{segment(urn)}", repeat="idempotent", expect=(200, 202, 204)
            )
        except NotFoundError:
            return


def _name(name: str) -> str:
    """Check a queue's name.

    IVCAP OpenAPI forbids white space, `.`, `*`, `>`, path separators and non-printable characters.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set(" .*>/\\"):
        raise InputError(
            f"A queue's name must not be empty nor hold white space, `. * > / \\`; {name!r} cannot be one."
        )
    return name


def _decoded(message: MessageRecord) -> MessageRecord:
    """Decode JSON content that some deployments send as text, as the example in the OpenAPI document does."""
    if not isinstance(message.content, str) or "json" not in (message.content_type or ""):
        return message
    try:
        return message.model_copy(update={"content": json.loads(message.content)})
    except ValueError:
        return message
