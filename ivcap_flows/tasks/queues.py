"""Tasks for IVCAP queues: create, list, delete, send messages at least once, take them at most once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ivcap_flows.canonical import canonical_form
from ivcap_flows.capture import found
from ivcap_flows.durable import Effect, Found, Progress, planning
from ivcap_flows.errors import ConflictError
from ivcap_flows.handles import Queue, QueueMessage
from ivcap_flows.identity import Scope
from ivcap_flows.ivcap.queues import QueueRecord
from ivcap_flows.journal import IntentRow
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike, urn_of
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned
from ivcap_flows.tasks.waiting import PlannedError

__all__ = [
    "KEY_MEMBER",
    "acreate_queue",
    "adelete_queue",
    "adequeue",
    "aenqueue",
    "alist_queues",
    "create_queue",
    "delete_queue",
    "dequeue",
    "enqueue",
    "list_queues",
]

KEY_MEMBER: Final = "$ivcap-flows-key"
"""The member of a message that holds its key. IVCAP's own documents keep names with `$` for what is not content
(`$schema`, `$id`, `$policy`), so that a consumer which knows them reads past it."""

_PAUSE: Final = 1.0
"""Seconds between two sends of a message whose reply was lost; no time would make it show."""


async def _create_queue(
    name: str,
    *,
    description: str | None = None,
    policy: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> Queue:
    """The queue of this name, created where there is none. Idempotent: a name is one queue.

    A name holds no white space and none of `. * > / \\`; `description` and `policy` are of use to a new queue only.
    Raises ConflictError for a name that another account has taken.
    """
    call = await IvcapCall.of(credentials)
    known = await call.client.queues.by_name(name)
    if known is None and only_planned("queue", name):
        return Queue(urn=f"urn:ivcap-flows:planned:queue:{name}", platform=call.platform, name=name)
    if known is not None:
        found(known.urn)
    record = known or await _made(call, name, description, policy)
    return record.handle(call.platform)


async def _made(call: IvcapCall, name: str, description: str | None, policy: str | None) -> QueueRecord:
    try:
        return await call.client.queues.create(name, description=description, policy=policy)
    except ConflictError:
        # Another was quicker, or an earlier send of ours whose reply was lost.
        known = await call.client.queues.by_name(name)
        if known is None:
            raise
        return known


async def _list_queues(*, credentials: IvcapCredentialsLike = None) -> list[Queue]:
    """All queues of the account."""
    call = await IvcapCall.of(credentials)
    queues = [record.handle(call.platform) async for record in call.client.queues.list()]
    for queue in queues:
        found(queue.urn)
    return queues


async def _enqueue(
    queue: Queue | str,
    content: Any,
    *,
    schema: str | None = None,
    scope: Scope = "run",
    discriminator: str | None = None,
    credentials: IvcapCredentialsLike = None,
) -> QueueMessage:
    """Send a message to a queue; equal messages within `scope` are one unless a `discriminator` tells them apart.

    `content` is any JSON, in which handles stand for their URNs, or a pydantic model (by alias). `schema` is by default
    what the content has as `$schema`.

    At least once: a queue cannot be asked what it was sent, so after a lost reply the message is sent again. A message
    that is a JSON object carries its key as `$ivcap-flows-key`, the same in each delivery, by which a consumer tells a
    second one; `dequeue` gives it as `key`. Other JSON goes as it is and has no key.
    """
    call = await IvcapCall.of(credentials)
    call.check(queue, content)
    urn, document = urn_of(queue), canonical_form(content, "content")
    if schema is None and isinstance(document, dict) and isinstance(document.get("$schema"), str):
        schema = document["$schema"]
    done = await call.perform(
        MessageEffect(
            call=call,
            request={"queue": urn, "content": document, "schema": schema},
            visibility_delay=_PAUSE,
            scope=scope,
            discriminator=discriminator,
        )
    )
    return done.value


@dataclass(frozen=True, kw_only=True)
class MessageEffect(Effect[QueueMessage]):
    """A message in a queue, which cannot be asked what it was sent. A JSON object bears the key."""

    noun: str = "message"
    call: IvcapCall

    async def send(self, intent: IntentRow, progress: Progress) -> QueueMessage:
        content = self.request["content"]
        keyed = {**content, KEY_MEMBER: intent.key} if isinstance(content, dict) else content
        sent = await self.call.client.queues.enqueue(self.request["queue"], keyed, schema=self.request["schema"])
        return self._message(sent, intent.key)

    async def find(self, intent: IntentRow) -> list[Found[QueueMessage]]:
        return []

    def decode(self, outcome: Any) -> QueueMessage:
        return QueueMessage.model_validate(outcome)

    def placeholder(self, key: str) -> QueueMessage:
        return self._message(f"planned:{key}", key)

    def urn(self, value: QueueMessage) -> None:
        return None

    def _message(self, id: str, key: str) -> QueueMessage:  # noqa: A002 - the platform's own word
        content = self.request["content"]
        return QueueMessage(
            id=id,
            content=content,
            schema_urn=self.request["schema"],
            media_type="application/json",
            key=key if isinstance(content, dict) else None,
        )


async def _dequeue(
    queue: Queue | str, *, limit: int = 1, credentials: IvcapCredentialsLike = None
) -> list[QueueMessage]:
    """Take up to `limit` messages out of a queue, oldest first; an empty list where there is none.

    At most once: the platform removes what it replies, so a lost reply loses up to `limit` messages for good, and this
    task never asks again by itself. Raises UnreachableError then. Keep `limit` small where each message counts.
    """
    call = await IvcapCall.of(credentials)
    call.check(queue)
    if planning() is not None:
        raise PlannedError(f"The plan ends here: the flow would take messages out of {urn_of(queue)}.")
    return [
        _opened(
            QueueMessage(
                id=record.id, content=record.content, schema_urn=record.schema_urn, media_type=record.content_type
            )
        )
        for record in await call.client.queues.dequeue(urn_of(queue), limit=limit)
    ]


def _opened(message: QueueMessage) -> QueueMessage:
    """The message as it was enqueued, its key beside it."""
    if not isinstance(message.content, dict) or not isinstance(message.content.get(KEY_MEMBER), str):
        return message
    content = dict(message.content)
    return message.model_copy(update={"key": content.pop(KEY_MEMBER), "content": content})


async def _delete_queue(queue: Queue | str, *, credentials: IvcapCredentialsLike = None) -> None:
    """Delete a queue and the messages in it. Idempotent: one that is gone stays so."""
    call = await IvcapCall.of(credentials)
    call.check(queue)
    if not only_planned("queue deletion", urn_of(queue)):
        await call.client.queues.delete(urn_of(queue))


create_queue, acreate_queue = task_pair(_create_queue, name="Create queue", run_name="create queue {name}")
list_queues, alist_queues = task_pair(_list_queues, name="List queues", run_name="list queues")
enqueue, aenqueue = task_pair(_enqueue, name="Enqueue", run_name="enqueue to {queue}")
dequeue, adequeue = task_pair(_dequeue, name="Dequeue", run_name="dequeue from {queue}")
delete_queue, adelete_queue = task_pair(_delete_queue, name="Delete queue", run_name="delete {queue}")
